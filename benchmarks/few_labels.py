"""What networks of the study learn from 2 to 32 labelled fields, in as many steps.

    python -m benchmarks.few_labels TRAIN TEST -o FOLDER [--fields 2 4 8] [--networks unet ...]

Each seed draws its own fields, of different groups, and a larger number holds those of a smaller
one. What would count as an answer is on the page on the study, written there before this was run.
Each number of fields and seed is a study of its own in FOLDER, which goes on where it was.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import ttest_rel
from sklearn.utils import Bunch

from bloodseg.datasets import load_folder
from bloodseg.metrics import scores_from_confusion
from bloodseg.study import run_study
from bloodseg.study._statistics import correct
from bloodseg.study._store import Store
from bloodseg.training import check_groups, split_images

from ._tables import print_heading, print_row
from .robustness import compare_mean_iou, show_differences

FIELDS = (2, 4, 8, 16, 32)
ANSWERING = (2, 4, 8)  # whose mean the plan asks for
_VALIDATION = 0.25  # of the fields, the estimator's default

# Per-image confusion matrices by number of fields, network and seed.
Found = dict[int, dict[str, dict[int, list[list[list[int]]]]]]


def draw_fields(data: Bunch, n_fields: int, seed: int) -> Bunch:
    """Return fields of as many groups, drawn by a seed."""
    n_images = len(data.images)
    groups = check_groups(data.get("groups"), n_images)
    groups = np.arange(n_images) if groups is None else groups
    order = np.random.default_rng(seed).permutation(n_images)
    _, first = np.unique(groups[order], return_index=True)
    if n_fields > len(first):
        raise SystemExit(f"--fields asks for {n_fields} groups of fields; there are {len(first)}.")
    chosen = order[np.sort(first)[:n_fields]]
    return Bunch(
        images=[data.images[i] for i in chosen],
        masks=[data.masks[i] for i in chosen],
        groups=groups[chosen],
        names=[data.names[i] for i in chosen],
    )


def count_epochs(fields: Bunch, seed: int, n_steps: int) -> int:
    """Return the epochs that come to as many steps, of four crops of 128: one field of 256."""
    trained, _ = split_images(len(fields.images), fields.groups, _VALIDATION, seed=seed)
    return max(1, round(n_steps / len(trained)))


def collect(folder: Path) -> Found:
    """Return what the studies in a folder have found."""
    found: Found = {}
    for n_fields in FIELDS:
        for output in sorted(folder.glob(f"{n_fields}-fields-*")):
            for record in Store(output).records():
                of_network = found.setdefault(n_fields, {}).setdefault(record["network"], {})
                of_network[record["seed"]] = record["predictions"][0]["confusion"]
    return found


def judge(found: Found) -> pd.DataFrame:
    """Return NODEs-UNet minus each other network, over the numbers that answer and for each."""
    conditions: dict[str, tuple[int, ...]] = {f"{n} fields": (n,) for n in found}
    if set(ANSWERING) <= found.keys():
        conditions = {"mean of 2, 4 and 8 fields": ANSWERING, **conditions}
    tables = []
    for condition, numbers in conditions.items():
        others = set.intersection(*(set(found[n]) for n in numbers)) - {"NODEs-UNet"}
        for pair in (("NODEs-UNet", other) for other in sorted(others, reverse=True)):
            seeds = sorted(set.intersection(*(set(found[n][k]) for n in numbers for k in pair)))
            matrices = {k: [[found[n][k][seed] for n in numbers] for seed in seeds] for k in pair}
            tables.append(compare_mean_iou(matrices, [pair]).assign(condition=condition))
    return correct(pd.concat(tables, ignore_index=True)).assign(question="few labels")


def show_scores(found: Found) -> None:
    """Print the mean IoU of each number of fields and network, with the spread over seeds."""
    print_heading(["fields", "network", "seeds", "mean IoU"])
    for n_fields, networks in found.items():
        for network, seeds in networks.items():
            of_seeds = [_mean_iou(each) for each in seeds.values()]
            spread = np.std(of_seeds, ddof=1) if len(of_seeds) > 1 else np.nan
            shown = f"{np.mean(of_seeds):.1f} ± {spread:.1f}"
            print_row([n_fields, network, len(of_seeds), shown])


def show_gains(found: Found) -> None:
    """Print NODEs-UNet minus U-Net for each seed, and what a paired t-test says of the seeds."""
    pair = ("NODEs-UNet", "U-Net")
    seeds = set.intersection(*(set(found[n][k]) for n in ANSWERING for k in pair))
    scores = np.array(
        [
            [np.mean([_mean_iou(found[n][k][seed]) for n in ANSWERING]) for k in pair]
            for seed in sorted(seeds)
        ]
    )
    gains = scores[:, 0] - scores[:, 1]
    print(f"NODEs-UNet minus U-Net by seed, mean over the fields: {np.round(gains, 2)}")
    print(f"mean {gains.mean():+.2f}, p {ttest_rel(*scores.T).pvalue:.3f} by a paired t-test")


def _mean_iou(matrices: list[list[list[int]]]) -> float:
    return 100 * scores_from_confusion(np.sum(matrices, axis=0))["mean_iou"]


def main(arguments: list[str] | None = None) -> None:
    """Train what is not trained yet, and print scores and differences."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--fields", nargs="+", type=int, choices=FIELDS, default=list(FIELDS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--networks", nargs="+", default=["unet", "nodes-unet", "resnet-unet"])
    parser.add_argument("--steps", type=int, default=600, help="training steps of each network")
    parser.add_argument("--width", type=int, default=16)
    given = parser.parse_args(arguments)
    data, test = load_folder(given.train), load_folder(given.test)
    for seed in given.seeds:
        for n_fields in given.fields:
            fields = draw_fields(data, n_fields, seed)
            run_study(
                "networks",
                fields,
                test,
                output=given.output / f"{n_fields}-fields-{seed}",
                dataset=f"{n_fields}-fields",
                networks=given.networks,
                seeds=[seed],
                width=given.width,
                validation_fraction=_VALIDATION,
                max_epochs=count_epochs(fields, seed, given.steps),
            )
            print(f"seed {seed}, {n_fields} fields: trained", flush=True)
    found = collect(given.output)
    show_scores(found)
    show_differences(judge(found))
    if set(ANSWERING) <= found.keys():
        show_gains(found)


if __name__ == "__main__":
    main()
