"""Make the published weights, show what each ingredient is worth, and score them.

    python -m benchmarks.pretrained train SMEAR256_TRAIN BCCD -o smears.safetensors
    python -m benchmarks.pretrained average MODEL ... [--shares SHARE ...] -o smears.safetensors
    python -m benchmarks.pretrained ablation SMEAR256_TRAIN BCCD OTHER [--only NAME ...]
    python -m benchmarks.pretrained evaluate MODEL --masks FOLDER ... [--bccd BCCD] [--json FILE]

``train`` uses the masks of SMEAR256_TRAIN and the boxes of BCCD but those of fold 0, each image
rescaled so that its red cells are 36 pixels wide. Seed and checkpoints make the same weights again;
``--start MODEL`` goes on from a model. ``average`` takes the mean of the weights of models of one
start, which holds up on other laboratories better than each of them.
``ablation`` changes one ingredient at a time, in short trainings of a narrower network: a quarter
of SMEAR256_TRAIN and fold 1 of BCCD are left out of these, and OTHER, masks of another laboratory,
is trained on in none. ``evaluate`` only reports.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch

from bloodseg import BloodCellSegmenter, Preprocessor
from bloodseg.cells import find_cells
from bloodseg.cells._scale import typical_radius
from bloodseg.datasets import load_folder, load_voc, make_smears, masks_from_boxes
from bloodseg.metrics import confusion_matrix, scores_from_confusion
from bloodseg.models import model_file
from bloodseg.training import check_groups, split_images

from ._resizing import resized
from ._timing import machine, write_json

DIAMETER = 36  # pixels of a red cell in training


@dataclass(frozen=True)
class Recipe:
    """What a network is trained on, and how."""

    smear256: int = 3  # times that the fields with masks are repeated
    bccd: bool = True
    n_drawn: int = 0
    white_balance: bool = True
    clahe: bool = True
    augment: bool | str = True
    loss: str = "cross_entropy"
    width: int = 24
    n_steps: int = 2600
    ode_tol: float = 1e-2  # one step of bosh3 then carries most of the time: 4 evaluations, not 10
    seed: int = 0
    start: str | None = None  # a model to go on from

    @property
    def learning_rate(self) -> float:
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
            learning_rate=self.learning_rate,
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
    "without boxes of bccd": {"bccd": False},
    "drawn smears too": {"n_drawn": 100},
    "cross-entropy and Dice": {"loss": "cross_entropy+dice"},
}


# ---------------------------------------------------------------- data


def rescaled(image, mask):
    """Return an image and its label map with red cells of the training's diameter."""
    radius = typical_radius(mask)
    if radius is None:
        return None
    factor = DIAMETER / 2 / radius
    labels = np.unique(mask)
    shares = [resized((mask == label).astype(np.float32), factor) for label in labels]
    return resized(image, factor), labels[np.argmax(shares, axis=0)]


def all_rescaled(images, masks):
    """Return images and masks, rescaled; those without red cells have no ruler and are left out."""
    pairs = [rescaled(image, mask) for image, mask in zip(images, masks, strict=True)]
    kept = [pair for pair in pairs if pair is not None]
    return [image for image, _ in kept], [mask for _, mask in kept]


def labelled_by_boxes(bccd, folds):
    chosen = np.flatnonzero(np.isin(bccd.fold, folds))
    images, boxes, labels = (
        [each[i] for i in chosen] for each in (bccd.images, bccd.boxes, bccd.labels)
    )
    return images, masks_from_boxes(images, boxes, labels)


def training_data(recipe, smear256, bccd, folds):
    """Return the images and label maps that a recipe trains on, rescaled."""
    images, masks = all_rescaled(*smear256)
    images, masks = images * recipe.smear256, masks * recipe.smear256
    if recipe.bccd:
        more = all_rescaled(*labelled_by_boxes(bccd, folds))
        images, masks = images + more[0], masks + more[1]
    if recipe.n_drawn:
        drawn = make_smears(recipe.n_drawn, 192, random_state=0, red_cell_diameter=DIAMETER)
        images, masks = images + list(drawn.images), masks + list(drawn.masks)
    return images, masks


def trained(recipe, images, masks, **parameters):
    n_crops = sum(int(np.ceil(mask.size / 128**2)) for mask in masks)
    return recipe.segmenter(n_crops, **parameters).fit(images, masks)


# ---------------------------------------------------------------- commands


def train(arguments):
    recipe = Recipe(
        **{
            name: getattr(arguments, name)
            for name in ("width", "n_steps", "n_drawn", "seed", "smear256", "bccd", "start")
            if getattr(arguments, name) is not None
        }
    )
    images, masks = training_data(
        recipe, pair_of(load_folder(arguments.masks)), load_voc(arguments.boxes), folds=[1, 2, 3, 4]
    )
    print(
        f"{len(images)} images, {sum(mask.size for mask in masks) / 1e6:.1f} megapixels; {recipe}"
    )
    segmenter = trained(
        recipe, images, masks, checkpoint_dir=arguments.checkpoint_dir, verbose=arguments.verbose
    )
    segmenter.set_params(red_cell_diameter="auto")
    segmenter.save(arguments.output, half_precision=True)


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
    averaged.set_params(red_cell_diameter="auto")
    for folder in arguments.masks or []:
        print(folder, scores(averaged, *pair_of(load_folder(folder))), flush=True)
    averaged.save(arguments.output, half_precision=True)


def ablation(arguments):
    smear256 = load_folder(arguments.masks)
    bccd = load_voc(arguments.boxes)
    other = all_rescaled(*pair_of(load_folder(arguments.leukocyte300)))
    groups = check_groups(smear256.groups, len(smear256.images))
    parts = split_images(len(smear256.images), groups, 0.25, seed=0)
    train, held_out = (
        ([smear256.images[i] for i in part], [smear256.masks[i] for i in part]) for part in parts
    )
    held_out = all_rescaled(*held_out)
    fold = np.flatnonzero(bccd.fold == 1)
    boxed = all_rescaled(*labelled_by_boxes(bccd, [1]))
    short = Recipe(width=arguments.width, n_steps=arguments.n_steps, ode_tol=1e-3)
    for name in arguments.only or ABLATION:
        for seed in arguments.seeds:
            recipe = replace(short, seed=seed, **ABLATION[name])
            start = time.perf_counter()
            segmenter = trained(recipe, *training_data(recipe, train, bccd, folds=[2, 3, 4]))
            row = {"recipe": name, "seed": seed, "seconds": time.perf_counter() - start}
            row |= {"other laboratory": scores(segmenter, *other)}
            row |= {"held out": scores(segmenter, *held_out)}
            if len(boxed[0]) == len(fold):
                row |= {"count error": count_error(segmenter, boxed[0], bccd.counts[fold])}
            print(json.dumps(row), flush=True)


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
        report["tolerances"][name] = tolerances(segmenter, images, masks)
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


def tolerances(segmenter, images, masks):
    rows = {}
    for tolerance in 10.0 ** np.arange(-6, 0):
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


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("train", "ablation"):
        command = commands.add_parser(name)
        command.add_argument("masks", metavar="SMEAR256_TRAIN", type=Path)
        command.add_argument("boxes", metavar="BCCD", type=Path)
        command.add_argument("--threads", type=int)
    command.add_argument("leukocyte300", type=Path)
    command.add_argument("--only", nargs="+", choices=ABLATION)
    command.add_argument("--seeds", nargs="+", type=int, default=[0])
    command.add_argument("--width", type=int, default=16)
    command.add_argument("--n-steps", type=int, default=300)
    command = commands.choices["train"]
    command.add_argument("-o", "--output", type=Path, required=True)
    command.add_argument("--checkpoint-dir", type=Path)
    command.add_argument("--width", type=int)
    command.add_argument("--n-steps", type=int)
    command.add_argument("--n-drawn", type=int)
    command.add_argument("--seed", type=int)
    command.add_argument("--start", help="a model to go on from")
    command.add_argument("--repeat", dest="smear256", type=int, help="times each field with masks")
    command.add_argument("--without-boxes", dest="bccd", action="store_false", default=None)
    command.add_argument("--verbose", type=int, default=1)
    command = commands.add_parser("average")
    command.add_argument("models", nargs="+")
    command.add_argument("--shares", nargs="+", type=float)
    command.add_argument("-o", "--output", type=Path, required=True)
    command.add_argument("--masks", nargs="+", type=Path, help="to score: fields that may choose")
    command.add_argument("--threads", type=int)
    command = commands.add_parser("evaluate")
    command.add_argument("model", type=Path)
    command.add_argument("--masks", nargs="+", type=Path)
    command.add_argument("--bccd", type=Path)
    command.add_argument("--json", type=Path)
    command.add_argument("--threads", type=int)
    arguments = parser.parse_args(argv)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    run = {"train": train, "average": average, "ablation": ablation, "evaluate": evaluate}
    run[arguments.command](arguments)


if __name__ == "__main__":
    main()
