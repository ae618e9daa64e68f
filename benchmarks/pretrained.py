"""Make the published weights, show what each ingredient is worth, and score them.

    python -m benchmarks.pretrained train DATA [--sets NAME=TIMES ...] [--start MODEL] -o FILE
    python -m benchmarks.pretrained average MODEL ... [--shares SHARE ...] -o FILE
    python -m benchmarks.pretrained leave-out DATA [--sets NAME=TIMES ...] [--exchange] [--restain]
    python -m benchmarks.pretrained score DATA MODEL ... [--sets NAME ...] [--json FILE]
    python -m benchmarks.pretrained ablation DATA [--only NAME ...]
    python -m benchmarks.pretrained evaluate MODEL --masks FOLDER ... [--bccd BCCD] [--json FILE]

DATA is the folder that holds the folders of all laboratories; the tables ``TRAINING`` and
``JUDGES`` in `_laboratories` say which there are, and what each may be used for. ``train`` brings
every image to red cells of 36 pixels and takes each set so many times an epoch. Seed and
checkpoints make the same weights again; ``--start MODEL`` goes on from a model. ``average`` takes
the mean of the weights of models of one start, which holds up on other laboratories better than
each of them. ``leave-out`` trains without each laboratory in turn, from no start, and scores on it.
``score`` makes one table a model, a row for each laboratory; without ``--sets`` only of those that
may choose. ``ablation`` changes one ingredient at a time, in short trainings of a narrower network:
a quarter of smear256's training fields and fold 1 of BCCD are left out of these, and leukocyte300
is trained on in none. ``evaluate`` only reports: other magnifications, tolerances, counts.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch

from bloodseg import BloodCellSegmenter, Preprocessor
from bloodseg._hardware import choose_device
from bloodseg.cells import find_cells
from bloodseg.datasets import load_folder, load_voc, make_smears
from bloodseg.metrics import confusion_matrix, scores_from_confusion
from bloodseg.models import model_file
from bloodseg.training import check_groups, split_images

from ._colours import exchange_colours
from ._laboratories import DIAMETER, JUDGES, TRAINING, all_rescaled, labelled_by_boxes, read
from ._resizing import resized
from ._stains import restain
from ._timing import machine, write_json


@dataclass(frozen=True)
class Recipe:
    """What a network is trained on, and how."""

    sets: Mapping[str, int] = field(default_factory=dict)  # names, and how often an epoch
    n_drawn: int = 0
    white_balance: bool = True
    clahe: bool = True
    augment: bool | str = True
    loss: str = "cross_entropy"
    width: int = 24
    n_steps: int = 4282
    ode_tol: float = 1e-2  # one step then carries most of the time: 3 evaluations, not 9
    seed: int = 0
    start: str | None = None  # a model to go on from
    exchange: bool = False  # each image once more in the colours of another laboratory
    restain: bool = False  # each image twice, and twice more in stains drawn at random
    ode_regularization: float = 0.0
    learning_rate: float | None = None

    @property
    def highest_rate(self) -> float:
        if self.learning_rate is not None:
            return self.learning_rate
        return 2e-3 if self.start is None else 1e-3

    def segmenter(self, n_crops: int, **parameters) -> BloodCellSegmenter:
        clip_limit = 2.0 if self.clahe else 1e-6
        batch_size = 8
        return BloodCellSegmenter(
            Preprocessor(clip_limit, white_balance=self.white_balance),
            width=self.width,
            loss=self.loss,
            augment=self.augment,
            ode_tol=self.ode_tol,
            batch_size=batch_size,
            learning_rate=self.highest_rate,
            ode_regularization=self.ode_regularization,
            pretrained=self.start,
            max_epochs=max(1, round(self.n_steps * batch_size / n_crops)),
            validation_fraction=None,
            random_state=self.seed,
            **parameters,
        )


ABLATION = {
    "all": {},
    "without white balance": {"white_balance": False},
    "without CLAHE": {"clahe": False},
    "strong augmentation": {"augment": "strong"},
    "without boxes of bccd": {"sets": {"smear256": 3}},
    "drawn smears too": {"n_drawn": 100},
    "cross-entropy and Dice": {"loss": "cross_entropy+dice"},
}


def training_data(recipe, sets):
    """Return the images and label maps that a recipe trains on.

    ``sets`` holds the images and label maps of each name, at the ruler's size.
    """
    images, masks, laboratories = [], [], []
    for name, times in recipe.sets.items():
        images += sets[name][0] * times
        masks += sets[name][1] * times
        laboratories += [name] * len(sets[name][0]) * times
    plain, their_masks = images, masks
    if recipe.exchange:
        images = images + exchange_colours(plain, their_masks, laboratories, seed=recipe.seed)
        masks = masks + their_masks
    if recipe.restain:
        images, masks = images + plain, masks + their_masks
        for seed in range(2):
            stained, with_pasted = restain(plain, their_masks, seed)
            images, masks = images + stained, masks + with_pasted
    if recipe.n_drawn:
        drawn = make_smears(recipe.n_drawn, 192, random_state=0, red_cell_diameter=DIAMETER)
        images, masks = images + list(drawn.images), masks + list(drawn.masks)
    return images, masks


def trained(recipe, images, masks, **parameters):
    n_crops = sum(int(np.ceil(mask.size / 128**2)) for mask in masks)
    return recipe.segmenter(n_crops, **parameters).fit(images, masks)


def recipe_of(arguments):
    """Return the recipe that the command line asks for; all sets where it names none."""
    given = {name: value for name, value in vars(arguments).items() if value is not None}
    given = {name: given[name] for name in Recipe.__dataclass_fields__.keys() & given.keys()}
    return Recipe(**{"sets": {name: each.times for name, each in TRAINING.items()}, **given})


def train(arguments):
    recipe = recipe_of(arguments)
    sets = {name: read(arguments.data, TRAINING[name]) for name in recipe.sets}
    images, masks = training_data(recipe, sets)
    print(
        f"{len(images)} images, {sum(mask.size for mask in masks) / 1e6:.1f} megapixels; {recipe}"
    )
    segmenter = trained(
        recipe, images, masks, checkpoint_dir=arguments.checkpoint_dir, verbose=arguments.verbose
    )
    segmenter.set_params(red_cell_diameter="auto")
    segmenter.save(arguments.output, half_precision=True)


def leave_out(arguments):
    recipe = recipe_of(arguments)
    sets = {name: read(arguments.data, TRAINING[name]) for name in recipe.sets}
    other = JUDGES["leukocyte300"]
    of_other = read(arguments.data, other)
    report = {}
    for left_out in arguments.only or recipe.sets:
        others = {name: times for name, times in recipe.sets.items() if name != left_out}
        trainee = replace(recipe, sets=others)
        segmenter = trained(trainee, *training_data(trainee, sets))
        rows = {
            left_out: scored(segmenter, TRAINING[left_out], *sets[left_out]),
            "leukocyte300": scored(segmenter, other, *of_other),
        }
        print(f"without {left_out}: {rows}", flush=True)
        report[left_out] = rows
    write_json(arguments.json, machine=machine(choose_device("auto")), left_out=report)


def average(arguments):
    shares = arguments.shares or [1 / len(arguments.models)] * len(arguments.models)
    if len(shares) != len(arguments.models) or not np.isclose(sum(shares), 1):
        raise SystemExit(f"--shares: one for each model, of sum 1; got {shares}")
    segmenters = [BloodCellSegmenter.load(model_file(each)) for each in arguments.models]
    averaged = segmenters[0]
    states = [each.network_.state_dict() for each in segmenters]
    for name, weight in averaged.network_.state_dict().items():
        if weight.is_floating_point():  # and no number of batches
            mean = sum(share * state[name] for share, state in zip(shares, states, strict=True))
            weight.copy_(mean)
    averaged.set_params(red_cell_diameter="auto", device="auto")
    averaged.save(arguments.output, half_precision=True)


def ablation(arguments):
    smear256 = load_folder(arguments.data / TRAINING["smear256"].folder)
    bccd = load_voc(arguments.data / TRAINING["bccd"].folder)
    other = read(arguments.data, JUDGES["leukocyte300"])
    groups = check_groups(smear256.groups, len(smear256.images))
    parts = split_images(len(smear256.images), groups, 0.25, seed=0)
    kept, held_out = (
        all_rescaled([smear256.images[i] for i in part], [smear256.masks[i] for i in part])
        for part in parts
    )
    sets = {"smear256": kept, "bccd": all_rescaled(*labelled_by_boxes(bccd, [2, 3, 4]))}
    fold = np.flatnonzero(bccd.fold == 1)
    boxed = all_rescaled(*labelled_by_boxes(bccd, [1]))
    short = Recipe(
        {"smear256": 3, "bccd": 1}, width=arguments.width, n_steps=arguments.n_steps, ode_tol=1e-3
    )
    for name in arguments.only or ABLATION:
        for seed in arguments.seeds:
            recipe = replace(short, seed=seed, **ABLATION[name])
            start = time.perf_counter()
            segmenter = trained(recipe, *training_data(recipe, sets))
            row = {"recipe": name, "seed": seed, "seconds": time.perf_counter() - start}
            row |= {"other laboratory": scores(segmenter, *other)}
            row |= {"held out": scores(segmenter, *held_out)}
            if len(boxed[0]) == len(fold):
                row |= {"count error": count_error(segmenter, boxed[0], bccd.counts[fold])}
            print(json.dumps(row), flush=True)


def score(arguments):
    fields = {**TRAINING, **JUDGES}
    names = arguments.sets or [name for name, each in JUDGES.items() if each.use == "choose"]
    judged = [(fields[name], *read(arguments.data, fields[name])) for name in names]
    report = {}
    for model in arguments.models:
        segmenter = BloodCellSegmenter.load(model_file(model))
        table = pd.DataFrame(
            [scored(segmenter, *each) for each in judged],
            pd.Index(names, name="laboratory"),
        )
        print(f"{model}\n{table.to_string()}\n", flush=True)
        report[str(model)] = json.loads(table.to_json(orient="index"))
    write_json(arguments.json, machine=machine(torch.device("cpu")), models=report)


def scored(segmenter, fields, images, masks):
    """Return a laboratory's row: scores over the known pixels in per cent, and what they cost."""
    crops = fields.labels == "white cells"  # their size is for the model to find
    segmenter.set_params(red_cell_diameter="auto" if crops else None)
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # doubts
        results = list(segmenter.segment(images))
    seconds = time.perf_counter() - start
    maps = [each.class_map for each in results]
    if crops:
        maps = [np.where(each == 1, 1, 0).astype(np.uint8) for each in maps]
    evaluations = sum(sum(each.evaluations.values()) for each in results)
    found = scores_from_confusion(confusion_matrix(masks, maps))
    kinds = {"white": found["iou_white"]}
    if not crops:
        kinds = {"mean IoU": found["mean_iou"], **kinds, "red": found["iou_red"]}
    return {
        "use": fields.use,
        "fields": len(images),
        **{name: round(100 * value, 2) for name, value in kinds.items()},
        "confidence": round(float(np.mean([each.mean_confidence for each in results])), 3),
        "doubted": sum(bool(each.doubts()) for each in results),
        "evaluations an image": round(evaluations / len(images), 1),
        "seconds": round(seconds, 1),
    }


def pair_of(bunch):
    return bunch.images, bunch.masks


def scores(segmenter, images, masks):
    """Return the mean IoU and that of each class, in per cent."""
    found = scores_from_confusion(confusion_matrix(masks, segmenter.predict(images)))
    return {name: round(100 * value, 2) for name, value in found.items() if "iou" in name}


def count_error(segmenter, images, counts):
    """Return the mean absolute error of white and red cells an image."""
    maps = segmenter.predict(images)
    found = [list(find_cells(each, red_cell_diameter=DIAMETER).counts.values()) for each in maps]
    return np.abs(np.array(found) - counts).mean(axis=0).round(2).tolist()


def evaluate(arguments):
    segmenter = BloodCellSegmenter.load(model_file(arguments.model))
    report = {"mean IoU": {}, "tolerances": {}}
    for folder in arguments.masks or []:
        images, masks = pair_of(load_folder(folder))
        name = f"{folder.resolve().parent.name}/{folder.name}"
        report["mean IoU"][name] = {
            size: magnified_scores(segmenter, images, masks, factor)
            for size, factor in (("original", 1), ("half", 0.5), ("double", 2))
        }
        if arguments.tolerances:
            report["tolerances"][name] = tolerances(segmenter, images, masks, arguments.tolerances)
    if arguments.bccd:
        report["count error on bccd, fold 0"] = bccd_counts(segmenter, load_voc(arguments.bccd))
    print(json.dumps(report, indent=1))
    write_json(arguments.json, machine=machine(torch.device("cpu")), **report)


def magnified_scores(segmenter, images, masks, factor):
    """Score predictions of magnified images on the label maps, magnified likewise."""
    if factor == 1:
        return scores(segmenter, images, masks)
    larger = [resized(image, factor) for image in images]
    maps = [
        cv2.resize(mask, image.shape[1::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        for image, mask in zip(larger, masks, strict=True)
    ]
    return scores(segmenter, larger, maps)


def tolerances(segmenter, images, masks, tried):
    rows = {}
    for tolerance in tried:
        segmenter.set_params(predict_ode_tol=tolerance)
        start = time.perf_counter()
        maps = segmenter.predict(images)
        seconds = time.perf_counter() - start
        found = scores_from_confusion(confusion_matrix(masks, maps))["mean_iou"]
        evaluations = sum(int(n.sum()) for n in segmenter.n_function_evaluations_.values())
        rows[f"{tolerance:.0e}"] = {
            "mean IoU": round(100 * found, 2),
            "seconds": round(seconds, 2),
            "evaluations an image": round(evaluations / len(images), 1),
        }
    segmenter.set_params(predict_ode_tol=None)
    return rows


def bccd_counts(segmenter, bccd):
    fold = np.flatnonzero(bccd.fold == 0)
    found = segmenter.count([bccd.images[i] for i in fold])[["white", "red"]].to_numpy()
    truth, mean = bccd.counts[fold], bccd.counts[bccd.fold != 0].mean(axis=0)
    boxed = truth[:, 1] > 0
    return {
        "segmented and counted": np.abs(found - truth).mean(axis=0).round(2).tolist(),
        "too many": (found - truth).mean(axis=0).round(2).tolist(),
        "the mean of other folds": np.abs(mean - truth).mean(axis=0).round(2).tolist(),
        "images with red boxes": np.abs(found - truth)[boxed].mean(axis=0).round(2).tolist(),
    }


class Repeats(argparse.Action):
    """Sets as NAME=TIMES, or NAME for once."""

    def __call__(self, parser, namespace, values, option_string=None):
        pairs = [value.partition("=") for value in values]
        for name, _, times in pairs:
            if name not in TRAINING or not (times or "1").isdecimal():
                parser.error(f"{option_string}: NAME=TIMES of {', '.join(TRAINING)}; got {values}")
        setattr(namespace, self.dest, {name: int(times or 1) for name, _, times in pairs})


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("train")
    command.add_argument("data", metavar="DATA", type=Path)
    command.add_argument("-o", "--output", type=Path, required=True)
    command.add_argument(
        "--sets", nargs="+", action=Repeats, metavar="NAME=TIMES", help="and how often an epoch"
    )
    command.add_argument("--checkpoint-dir", type=Path)
    command.add_argument("--width", type=int)
    command.add_argument("--n-steps", type=int)
    command.add_argument("--n-drawn", type=int)
    command.add_argument("--seed", type=int)
    command.add_argument("--augment", choices=["strong"])
    command.add_argument("--start", help="a model to go on from")
    command.add_argument("--exchange", action="store_true", help="colours between laboratories")
    command.add_argument("--restain", action="store_true", help="by class, at random")
    command.add_argument("--ode-regularization", type=float)
    command.add_argument("--learning-rate", type=float)
    command.add_argument("--verbose", type=int, default=1)
    command = commands.add_parser("leave-out")
    command.add_argument("data", metavar="DATA", type=Path)
    command.add_argument("--sets", nargs="+", action=Repeats, metavar="NAME=TIMES")
    command.add_argument("--only", nargs="+", choices=TRAINING, metavar="NAME", help="left out")
    command.add_argument("--width", type=int, default=24)
    command.add_argument("--n-steps", type=int, default=3000)
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--exchange", action="store_true", help="colours between laboratories")
    command.add_argument("--restain", action="store_true", help="by class, at random")
    command.add_argument("--ode-regularization", type=float, default=0.05)
    command.add_argument("--json", type=Path)
    command = commands.add_parser("average")
    command.add_argument("models", nargs="+")
    command.add_argument("--shares", nargs="+", type=float)
    command.add_argument("-o", "--output", type=Path, required=True)
    command = commands.add_parser("score")
    command.add_argument("data", metavar="DATA", type=Path)
    command.add_argument("models", nargs="+")
    command.add_argument("--sets", nargs="+", choices=[*TRAINING, *JUDGES], metavar="NAME")
    command.add_argument("--json", type=Path)
    command = commands.add_parser("ablation")
    command.add_argument("data", metavar="DATA", type=Path)
    command.add_argument("--only", nargs="+", choices=ABLATION)
    command.add_argument("--seeds", nargs="+", type=int, default=[0])
    command.add_argument("--width", type=int, default=16)
    command.add_argument("--n-steps", type=int, default=300)
    command = commands.add_parser("evaluate")
    command.add_argument("model", type=Path)
    command.add_argument("--masks", nargs="+", type=Path)
    command.add_argument("--bccd", type=Path)
    command.add_argument(
        "--tolerances", nargs="*", type=float, default=[1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1]
    )
    command.add_argument("--json", type=Path)
    for command in commands.choices.values():
        command.add_argument("--threads", type=int)
    arguments = parser.parse_args(argv)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    run = {
        "train": train,
        "leave-out": leave_out,
        "average": average,
        "score": score,
        "ablation": ablation,
        "evaluate": evaluate,
    }
    run[arguments.command](arguments)


if __name__ == "__main__":
    main()
