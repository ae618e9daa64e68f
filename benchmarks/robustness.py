"""Networks of a study on damaged images and in another laboratory, at several tolerances.

    bloodseg study networks TRAIN TEST -o STUDY
    python -m benchmarks.robustness STUDY TEST --elsewhere OTHER/test --json robustness.json

Test images are damaged as ImageNet-C does it [1]_, by five corruptions of five strengths. A score
under a corruption is the mean over its strengths: the area under mean IoU against strength. What
would count as an answer is on the page on the study, written there before any of this was run.

.. [1] Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
   Perturbations", ICLR 2019.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from skimage.color import hed_from_rgb, rgb_from_hed
from skimage.filters import gaussian

from bloodseg import BloodCellSegmenter
from bloodseg.datasets import load_folder
from bloodseg.metrics import confusion_matrix
from bloodseg.study import compare
from bloodseg.study._statistics import METRICS, correct, decide, is_equal
from bloodseg.study._store import Store

from ._tables import print_heading, print_row
from ._timing import write_json

MARGIN = 0.005
TOLERANCES = {"1e-6": 1e-6, "1e-1": 1e-1}
_GREATEST = 5


def _blur(image: np.ndarray, sigma: float) -> np.ndarray:
    return gaussian(image, sigma, channel_axis=-1)


def _add_noise(image: np.ndarray, deviation: float) -> np.ndarray:
    return image + np.random.default_rng(0).normal(scale=deviation, size=image.shape)


def _compress(image: np.ndarray, quality: float) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(_to_bytes(image)).save(file, "JPEG", quality=int(quality))
    return np.asarray(Image.open(file)) / 255


def _fade_stain(image: np.ndarray, share: float) -> np.ndarray:
    """Leave a share of haematoxylin, and as much more of eosin as is missing of it."""
    # Not scikit-image's rgb2hed, which cuts off what is below 0: the image would not come back.
    stains = -np.log(np.clip(image, 1 / 255, 1)) @ hed_from_rgb
    return np.exp(-(stains * np.array([share, 2 - share, 1])) @ rgb_from_hed)


def _change_light(image: np.ndarray, density: float) -> np.ndarray:
    """Darken, the blue most: a lamp that is turned down."""
    return image * 10 ** -(density * np.array([0.6, 0.8, 1.0]))


# Each takes an image in [0, 1]; beside it its five strengths: pixels, share of the range, quality,
# share, optical density.
CORRUPTIONS: dict[str, tuple[Callable[[np.ndarray, float], np.ndarray], tuple[float, ...]]] = {
    "blur": (_blur, (0.5, 1.0, 1.5, 2.0, 3.0)),
    "noise": (_add_noise, (0.02, 0.04, 0.06, 0.09, 0.13)),
    "JPEG": (_compress, (50, 30, 20, 12, 7)),
    "stain": (_fade_stain, (0.9, 0.8, 0.7, 0.55, 0.4)),
    "light": (_change_light, (0.05, 0.1, 0.15, 0.22, 0.3)),
}


def corrupt(image: np.ndarray, name: str, strength: int) -> np.ndarray:
    """Return a uint8 image damaged by a corruption of strength 1 to 5."""
    damage, strengths = CORRUPTIONS[name]
    return _to_bytes(damage(image / 255, strengths[strength - 1]))


def _to_bytes(image: np.ndarray) -> np.ndarray:
    return np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)


def score_conditions(
    segmenter: BloodCellSegmenter, test: Any, elsewhere: Any
) -> dict[str, list[Any]]:
    """Return per-image confusion matrices by condition: "clean", "blur 1", ..., "elsewhere"."""

    def predict(images: Any, masks: Any) -> list[Any]:
        maps = segmenter.predict(images)
        return [confusion_matrix([m], [p]).tolist() for m, p in zip(masks, maps, strict=True)]

    damaged = {
        f"{name} {strength}": [corrupt(np.asarray(image), name, strength) for image in test.images]
        for name in CORRUPTIONS
        for strength in range(1, _GREATEST + 1)
    }
    images = {"clean": list(test.images), **damaged}
    found = {name: predict(each, test.masks) for name, each in images.items()}
    if elsewhere is not None:
        found["elsewhere"] = predict(list(elsewhere.images), elsewhere.masks)
    if segmenter.n_function_evaluations_:
        for key, tolerance in TOLERANCES.items():
            segmenter.set_params(predict_ode_tol=tolerance)
            for name in ("clean", *(f"{name} {_GREATEST}" for name in CORRUPTIONS)):
                found[f"{name} at {key}"] = predict(images[name], test.masks)
        segmenter.set_params(predict_ode_tol=None)
    return found


def group_conditions(names: Any) -> dict[str, list[str]]:
    """Return which conditions are averaged for each row of the answer."""
    of_each = {c: [f"{c} {k}" for k in range(1, _GREATEST + 1)] for c in CORRUPTIONS}
    groups = {
        "clean": ["clean"],
        **of_each,
        "all": [name for names in of_each.values() for name in names],
    }
    return {**groups, **({"elsewhere": ["elsewhere"]} if "elsewhere" in names else {})}


def judge(found: dict[str, dict[int, dict[str, Any]]]) -> pd.DataFrame:
    """Return the differences in mean IoU for each group of conditions, corrected by question."""
    seeds = sorted(set.intersection(*(set(each) for each in found.values())))
    nodes = [name for name in found if name.startswith("NODEs-UNet")]

    def collect(name: str, conditions: list[str]) -> np.ndarray:
        return np.array([[found[name][seed][c] for c in conditions] for seed in seeds])

    conditions = set(found[nodes[0]][seeds[0]])
    tables = []
    for group, members in group_conditions(conditions).items():
        pairs = [(first, name) for first in nodes for name in found if name not in nodes]
        matrices = {name: collect(name, members) for name in found}
        question = "another laboratory" if group == "elsewhere" else "robustness"
        tables.append(compare_mean_iou(matrices, pairs).assign(question=question, condition=group))
    greatest = [f"{name} {_GREATEST}" for name in CORRUPTIONS]
    for group, members in (("clean", ["clean"]), ("greatest strength", greatest)):
        for name in nodes:
            matrices = {
                f"{name} at {key}": collect(name, [f"{each} at {key}" for each in members])
                for key in TOLERANCES
            }
            table = compare_mean_iou(matrices, [tuple(matrices)])
            tables.append(table.assign(question="depth for free", condition=group))
    rows = pd.concat(tables, ignore_index=True)
    return pd.concat([correct(of_one) for _, of_one in rows.groupby("question", sort=False)])


def compare_mean_iou(matrices: dict[str, Any], pairs: list[Any]) -> pd.DataFrame:
    """Return differences in mean IoU; p-values are not yet corrected for a whole question."""
    margins = {(*pair, "mean_iou"): MARGIN for pair in pairs}
    table = compare(matrices, pairs, margins=margins)
    return table[table.metric == METRICS[1]]


def show_differences(table: pd.DataFrame) -> None:
    """Print differences in mean IoU as a table, each with its verdict."""
    names = ("question", "condition", "first", "second")
    print_heading([*names, "first - second", "interval", "p", "verdict"])
    for _, row in table.iterrows():
        shown = {1: "better", -1: "worse", 0: "equal" if is_equal(row) else "undecided"}
        numbers = (
            f"{100 * row['difference']:+.2f}",
            f"{100 * row['low']:.2f} to {100 * row['high']:.2f}",
            f"{row['p_holm']:.2g}",
        )
        print_row([*(row[name] for name in names), *numbers, shown[decide(row)]])


def main(arguments: list[str] | None = None) -> None:
    """Print the differences as a table, and write matrices as JSON where it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path, help="output folder of bloodseg study networks")
    parser.add_argument("test", type=Path)
    parser.add_argument("--elsewhere", type=Path, help="a folder of another laboratory")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    store, test = Store(given.study), load_folder(given.test)
    elsewhere = None if given.elsewhere is None else load_folder(given.elsewhere)
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for record in store.records():
        segmenter = BloodCellSegmenter.load(store.model(record["name"]))
        scores = score_conditions(segmenter, test, elsewhere)
        found.setdefault(record["network"], {})[record["seed"]] = scores
    show_differences(judge(found))
    write_json(given.json, **found)


if __name__ == "__main__":
    main()
