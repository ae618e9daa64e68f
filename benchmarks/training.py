"""Crops a second of `fit`, and the share of its time that the network takes.

    python -m benchmarks.training [--cases 4x128 32x256] [--device cuda] [--json FILE]

A case is so many crops of so many pixels to a batch. An epoch of `train_network` on drawn smears,
the network's steps alone (forward, loss, backward, gradient clipping, optimiser; one batch, again
and again), the changes of the images alone and the cutting of crops alone take turns; medians, a
step. The share of the network is its steps' time over that of the epoch's.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from bloodseg._hardware import choose_device, choose_precision
from bloodseg.datasets import make_smears
from bloodseg.networks import make_network
from bloodseg.training import SegmentationTask, TrainingData, TrainingSettings, train_network

from ._timing import machine, seconds_of, write_json

CASES = {"cpu": ["4x128", "8x128", "4x256"], "cuda": ["4x128", "32x128", "32x256"]}


class Case:
    """A network, a task and data that make an epoch of so many steps."""

    def __init__(self, case: str, arguments: argparse.Namespace, device: torch.device):
        self.batch, self.crop = map(int, case.split("x"))
        self.steps, self.device = arguments.steps, device
        torch.manual_seed(0)
        self.network: Any = make_network("nodes-unet", width=arguments.width)
        self.network.precision = choose_precision(device)
        self.network.to(device).to(memory_format=torch.channels_last)
        self.network.decide_compilation("auto", self.crop**2, 100 * self.batch)
        self.task = SegmentationTask(self.crop, "cross_entropy", None, arguments.strong)
        n_crops = self.batch * self.steps
        smears = make_smears(4, image_size=self.crop, random_state=0)
        chosen = np.arange(n_crops) % 4  # as many images as crops, for they are of one size
        self.data = TrainingData(
            [smears.images[i] for i in chosen], [smears.masks[i] for i in chosen], np.ones(n_crops)
        )
        self.crops = self.task.make_training_set(self.data, seed=0)

    def epoch(self) -> float:
        """Return the seconds of an epoch, as its history has them."""
        settings = TrainingSettings(
            task=self.task,
            max_epochs=1,
            batch_size=self.batch,
            learning_rate=1e-3,
            augment=True,
            patience=None,
            seed=0,
            device=self.device,
        )
        return float(train_network(self.network, self.data, None, settings).history[-1]["seconds"])

    def parts(self) -> dict[str, Callable[[], Any]]:
        """Return what can be done alone: a step of it each."""
        images, (masks, weights) = self._move(self._cut())
        criterion = self.task.make_criterion().to(self.device)
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-6)
        augmentation = self.task.make_augmentation()

        def train() -> None:
            self.network.train()
            optimizer.zero_grad()
            criterion(self.network(images), (masks, weights)).backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            optimizer.step()

        seeds = itertools.count()
        return {
            "network": train,
            "changes": lambda: augmentation(images, masks, seed=next(seeds)),
            "cutting": self._cut,
        }

    def _cut(self) -> Any:
        return default_collate([self.crops[number] for number in range(self.batch)])

    def _move(self, batch: Any) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        images, (masks, weights) = batch
        moved = images.to(self.device), masks.to(self.device), weights.to(self.device)
        return moved[0], moved[1:]


def measure(case: Case, repeats: int) -> dict[str, Any]:
    parts = case.parts()
    seconds: dict[str, list[float]] = {name: [] for name in ("fit", *parts)}
    for repeat in range(repeats + 1):  # the first turn warms up
        found = {"fit": case.epoch()}
        for name, part in parts.items():
            # Everything in a row, as it would be if it were all that there is to do.
            steps = partial(_repeat, part, case.steps)
            found[name] = seconds_of(steps, case.device)
        for name, elapsed in found.items():
            if repeat:
                seconds[name].append(elapsed / case.steps)
    step = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "batch": case.batch,
        "crop": case.crop,
        "crops a second": case.batch / step["fit"],
        "share of the network": step["network"] / step["fit"],
        "changes over network": step["changes"] / step["network"],
        "ms a step": {name: 1e3 * value for name, value in step.items()},
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", metavar="BATCHxCROP")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--steps", type=int, default=5, help="of an epoch")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--strong", action="store_true", help="change images strongly")
    parser.add_argument("--quick", action="store_true", help="tiny, one repeat")
    parser.add_argument("--json", help="write the rows there, too")
    arguments = parser.parse_args(argv)
    device = choose_device(arguments.device)
    cases = arguments.cases or CASES[device.type]
    if arguments.quick:
        cases, arguments.width, arguments.steps, arguments.repeats = ["2x32"], 4, 2, 1
    print(machine(device), choose_precision(device), flush=True)
    rows = []
    for case in cases:
        rows.append(measure(Case(case, arguments, device), arguments.repeats))
        print({key: _rounded(value) for key, value in rows[-1].items()}, flush=True)
    precision = choose_precision(device)
    write_json(arguments.json, machine=machine(device), precision=precision, rows=rows)


def _repeat(part: Callable[[], Any], n_times: int) -> None:
    for _ in range(n_times):
        part()


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return value if isinstance(value, int) else float(f"{value:.3g}")


if __name__ == "__main__":
    main()
