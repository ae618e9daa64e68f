"""Figures of studies: of numbers through matplotlib, of smears as a sheet of pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from .._files import written_whole
from ..estimators import BloodCellSegmenter
from ..metrics import scores_of_each
from ..plotting import coloured, sheet
from ..preprocessing import Preprocessor
from ._canvas import (
    COLOURS,
    DPI,
    PANELS_ACROSS,
    PAPER,
    capitalize,
    choose_style,
    finish,
    make_figure,
    write_plain_ticks,
)
from ._claims import METRIC_NAMES
from ._forest import draw_forest
from ._paper import TABLE_1
from ._plans import BASELINE, make_file_name
from ._store import Examples, Store, make_results_table

_SAME_COST = 0.06  # relative: points no farther apart have one label

Record = Mapping[str, Any]


def draw_figures(
    store: Store,
    study: str,
    dataset: str,
    records: Sequence[Record],
    table: pd.DataFrame | None,
) -> list[Path]:
    """Draw the figures of one study and data set, and return their files.

    The first is the forest plot of the differences in ``table``, where there are any.

    Raises
    ------
    ImportError
        If matplotlib is missing.
    """
    folder = store.folder / "figures"
    folder.mkdir(exist_ok=True)
    files = []
    drawn = {} if table is None else {"differences": draw_forest(study, dataset, table)}
    drawn |= {**_FIGURES[study](dataset, records), "losses": _draw_losses(dataset, records)}
    for name, figure in drawn.items():
        files.append(folder / f"{study}-{make_file_name(dataset)}-{name}.png")
        with written_whole(files[-1]) as unfinished:
            figure.savefig(unfinished, dpi=DPI, format="png")
    return files


def draw_smears(store: Store, dataset: str, records: Sequence[Record]) -> list[Path]:
    """Draw what the networks make of a few test images (Figures 7 and 8); return the files."""
    examples = store.examples(dataset)
    if examples is None:
        return []
    folder = store.folder / "figures"
    folder.mkdir(exist_ok=True)
    seed = min(record["seed"] for record in records)
    maps = {
        record["network"]: BloodCellSegmenter.load(store.model(record["name"])).predict(
            examples.images
        )
        for record in records
        if record["seed"] == seed
    }
    chosen = {"nodes-unet": [name for name in maps if name == "NODEs-UNet"], "networks": [*maps]}
    files = []
    for name, networks in chosen.items():
        if networks:
            files.append(folder / f"networks-{make_file_name(dataset)}-smears-{name}.png")
            picture = _arrange_smears(
                examples, {each: maps[each] for each in networks}, dataset, seed
            )
            with written_whole(files[-1]) as unfinished:
                Image.fromarray(picture).save(unfinished, format="PNG")
    return files


def _arrange_smears(
    examples: Examples, maps: Mapping[str, Sequence[np.ndarray]], dataset: str, seed: int
) -> np.ndarray:
    height, width = np.min([mask.shape for mask in examples.masks], axis=0)
    enhanced = Preprocessor().transform(examples.images)
    rows = [
        [
            part[:height, :width]
            for part in (
                image,
                enhanced[index],
                coloured(examples.masks[index]),
                *(coloured(each[index]) for each in maps.values()),
            )
        ]
        for index, image in enumerate(examples.images)
    ]
    return sheet(
        rows,
        titles=("Image", "Preprocessed", "Label", *maps),
        captions=[f"image {name}" for name in examples.names],
        heading=f"Test images of {dataset}",
        subheading=f"predictions of networks with seed {seed}",
    )


def _draw_images(dataset: str, records: Sequence[Record]) -> dict[str, Any]:
    """Scores of each test image and network (Figures 9 and 10)."""
    names = list(dict.fromkeys(record["network"] for record in records))
    n_images = len(records[0]["images"])
    figures = {}
    for metric, file in (("pixel_accuracy", "pixel-accuracy"), ("mean_iou", "mean-iou")):
        figure, (axis,) = make_figure(1, max(8.5, 0.38 * n_images + 3.5), 4.2)
        for number, name in enumerate(names):
            by_seed = 100 * np.array(
                [
                    scores_of_each(np.array(record["predictions"][0]["confusion"]))[metric]
                    for record in records
                    if record["network"] == name
                ]
            )
            at = np.arange(n_images) + 0.16 * (number - (len(names) - 1) / 2)
            colour, marker = choose_style(number)
            axis.vlines(at, by_seed.min(axis=0), by_seed.max(axis=0), color=colour, lw=2, alpha=0.5)
            axis.plot(at, by_seed.mean(axis=0), marker, color=colour, label=name, ms=4.5)
        axis.set_xticks(range(n_images), records[0]["images"], rotation=90, fontsize=8)
        axis.set(
            xlabel="test image",
            ylabel=f"{METRIC_NAMES[metric]}, %",
            title=f"{capitalize(METRIC_NAMES[metric])} of each test image of {dataset}\n"
            "points: mean over seeds; lines: from the worst seed to the best",
        )
        finish([axis])
        figures[file] = figure
    return figures


def _draw_losses(dataset: str, records: Sequence[Record]) -> Any:
    """Loss of each training by epoch: whether it has converged."""
    trained = list(dict.fromkeys((record["network"], record["train_tol"]) for record in records))
    figure, axes = make_figure(
        len(trained), 3 * min(len(trained), PANELS_ACROSS) + 2, 3.2, alike=True
    )
    for axis, (network, tol) in zip(axes, trained, strict=True):
        of_network = [r for r in records if (r["network"], r["train_tol"]) == (network, tol)]
        for number, record in enumerate(of_network):
            history = record["history"]
            epochs = range(1, len(history) + 1)
            colour, _ = choose_style(number)
            for column, line in (("train_loss", "--"), ("valid_loss", "-")):
                losses = [row.get(column, np.nan) for row in history]
                label = f"seed {record['seed']}, {column.removesuffix('_loss')}"
                axis.plot(epochs, losses, line, color=colour, lw=1.2, label=label)
            axis.axvline(record["best_epoch"], color=colour, lw=0.8, ls=":", alpha=0.7)
        axis.set(
            title=f"{network}\n{f'trained at {tol}' if tol else ''}", xlabel="epoch", yscale="log"
        )
        axis.title.set_fontsize(9)
        axis.xaxis.get_major_locator().set_params(integer=True)
        write_plain_ticks(axis)
    axes[0].set_ylabel("loss")
    finish(axes)
    figure.suptitle(f"Loss of each training on {dataset}; dotted: the epoch that was kept")
    return figure


def _draw_positions(dataset: str, records: Sequence[Record]) -> dict[str, Any]:
    """Table 1 as a plot, the paper's points beside ours."""
    results = make_results_table(records)
    metrics = ["pixel_accuracy", "mean_iou", "seconds"]
    metrics = [metric for metric in metrics if results[metric].notna().any()]
    figure, axes = make_figure(len(metrics), 2 + 4 * len(metrics), 4.2)
    for axis, metric in zip(axes, metrics, strict=True):
        factor = 1 if metric == "seconds" else 100
        ours = factor * results.pivot_table(index="network", columns="seed", values=metric)
        _draw_position_points(axis, ours, {name: row[metric] for name, row in TABLE_1.items()})
        axis.set_xticks(range(1, 10))
        axis.set_xlabel("position of the ODE-block (5: the bottom of the U)")
    for axis, metric in zip(axes, ("pixel_accuracy", "mean_iou"), strict=False):
        axis.set(ylabel=f"{METRIC_NAMES[metric]}, %", title=capitalize(METRIC_NAMES[metric]))
    images = len(records[0]["images"])
    if "seconds" in metrics:
        axes[2].set(
            yscale="log",
            ylabel="seconds",
            title=f"Time for {images} test images\n(paper: 20, other hardware)",
        )
        write_plain_ticks(axes[2])
    finish(axes)
    figure.suptitle(f"One ODE-block at each position: {dataset} and the paper's Table 1")
    return {"table-1": figure}


def _draw_position_points(axis: Any, ours: pd.DataFrame, paper: Mapping[str, float]) -> None:
    """Plot ours as mean and range over seeds, the paper's as crosses, the U-Nets as lines."""
    positions = [k for k in range(1, 10) if f"ODEUNet{k}" in ours.index]
    rows = ours.loc[[f"ODEUNet{k}" for k in positions]]
    axis.vlines(positions, rows.min(axis=1), rows.max(axis=1), color=COLOURS[0], lw=2, alpha=0.5)
    axis.plot(positions, rows.mean(axis=1), "o", color=COLOURS[0], label="here (range of seeds)")
    if BASELINE in ours.index:
        mean = ours.loc[BASELINE].mean()
        axis.axhline(mean, color=COLOURS[0], ls="--", lw=1, label="U-Net, here")
    axis.plot(range(1, 10), [paper[f"ODEUNet{k}"] for k in range(1, 10)], "x", color=PAPER,
              label="paper (one run)")  # fmt: skip
    axis.axhline(paper[BASELINE], color=PAPER, ls=":", lw=1, label="U-Net, paper")


def _draw_tolerances(dataset: str, records: Sequence[Record]) -> dict[str, Any]:
    """Cost and accuracy: one line a training tolerance, one point a prediction's."""
    results = make_results_table(records)
    images = len(records[0]["images"])
    figure, axes = make_figure(2, 13, 4.6)
    trained = list(dict.fromkeys(results.train_tol))
    for axis, (column, label_of_cost) in zip(
        axes,
        (("seconds", "milliseconds an image"), ("evaluations", "evaluations of f for an image")),
        strict=True,
    ):
        factor = 1000 / images if column == "seconds" else 1
        for number, tol in enumerate(trained):
            rows = results[results.train_tol == tol].groupby("predict_tol", sort=False)
            cost, score = factor * rows[column].mean(), 100 * rows.mean_iou.mean()
            deviation = 100 * rows.mean_iou.std().max()  # NaN of a single seed
            colour, marker = choose_style(number)
            label = f"trained at {tol}"
            if np.isfinite(deviation):
                label += f"\n(seeds ± {deviation:.2f})"
            axis.plot(cost, score, f"{marker}-", color=colour, ms=5, lw=1, label=label)
            for names, at in _keep_apart(cost, score):
                axis.annotate(
                    ", ".join(names),
                    at,
                    color=colour,
                    fontsize=7,
                    xytext=(3, 4 + 8 * number),
                    textcoords="offset points",
                )
        axis.set(xlabel=label_of_cost, ylabel="mean IoU, %")
        axis.margins(0.12)
    finish(axes)
    figure.suptitle(
        f"What tolerances cost and give: NODEs-UNet on {dataset}\n"
        "points are means over seeds, with the tolerance of prediction beside them"
    )
    return {"front": figure}


def _keep_apart(
    cost: pd.Series, score: pd.Series
) -> Iterator[tuple[list[str], tuple[float, float]]]:
    """Yield names of points and where to write them, those that lie on each other together."""
    names: list[str] = []
    for name in cost.index:
        if names and abs(cost[name] / cost[names[-1]] - 1) > _SAME_COST:
            yield names, (cost[names].min(), score[names[0]])
            names = []
        names.append(name)
    yield names, (cost[names].min(), score[names[0]])


_FIGURES = {"networks": _draw_images, "positions": _draw_positions, "tolerance": _draw_tolerances}
