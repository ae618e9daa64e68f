"""The published weights on noisy pictures: as they are, adapted to, smoothed, and both.

    python -m benchmarks.noise DATA smear256 krd_erbil [--fields 8] [--json FILE]

DATA holds the folders of all laboratories, as `benchmarks/_laboratories.py` names them. Noise is
added to the pictures as they are, and red cells have the diameter that their label maps tell.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import pandas as pd
import torch

from bloodseg import BloodCellSegmenter
from bloodseg.cells._scale import typical_radius
from bloodseg.datasets import load_folder
from bloodseg.metrics import mean_iou
from bloodseg.prediction import TileNetwork, _predictor

from ._laboratories import JUDGES, TRAINING
from ._timing import machine, write_json
from .robustness import _compress

WAYS = {"neither": (False, False), "adapted": (True, False), "smoothed": (False, True)}
WAYS["both"] = (True, True)


def add_normal(image, deviation, rng):
    return _to_bytes(image + rng.normal(scale=deviation, size=image.shape))


def catch_photons(image, most, rng):
    """Return an image of so few photons a pixel where it is white, read out with some noise."""
    return add_normal(rng.poisson(image / 255 * most) / most * 255.0, 2, rng)


def add_impulses(image, share, rng):
    changed, drawn = image.copy(), rng.random(image.shape[:2])
    changed[drawn < share / 2], changed[drawn > 1 - share / 2] = 0, 255
    return changed


def add_compressed(image, strength, rng):
    """Return an image with noise that JPEG has made into blocks."""
    deviation, quality = strength
    return _to_bytes(255 * _compress(add_normal(image, deviation, rng) / 255, quality))


def add_chroma(image, deviation, rng):
    """Return an image with noise in its colours, of half their resolution, as cameras leave it."""
    ycc = cv2.cvtColor(image, cv2.COLOR_RGB2YCrCb).astype(np.float32)
    height, width = image.shape[:2]
    noise = rng.normal(scale=deviation, size=((height + 1) // 2, (width + 1) // 2, 2))
    ycc[..., 1:] += cv2.resize(noise.astype(np.float32), (width, height))
    ycc[..., 0] += rng.normal(scale=deviation / 6, size=(height, width))
    return cv2.cvtColor(_to_bytes(ycc), cv2.COLOR_YCrCb2RGB)


def add_grain(image, strength, rng):
    """Return an image with noise that hangs together over some pixels."""
    width, deviation = strength
    noise = cv2.GaussianBlur(rng.normal(size=image.shape), (0, 0), width)
    return _to_bytes(image + deviation * noise / noise.std())


NOISES = {
    "normal": (add_normal, (20, 30, 60)),
    "few photons": (catch_photons, (100, 40, 10)),
    "black and white": (add_impulses, (0.03, 0.07, 0.2)),
    "JPEG": (add_compressed, ((25, 50), (35, 40), (60, 30))),
    "colours": (add_chroma, (20, 30, 60)),
    "coarse": (add_grain, ((1, 15), (1, 25), (2, 30))),
}


def _to_bytes(image):
    return np.rint(image.clip(0, 255)).astype(np.uint8)


def predict(segmenter: Any, images: Any, diameters: Any, way: str) -> dict[str, Any]:
    """Return class maps and counts of images, and seconds of processor time for each."""
    adapts, smooths = WAYS[way]
    with (
        patch.object(_predictor, "is_noisy", _predictor.is_noisy if smooths else _never),
        patch.object(TileNetwork, "adapted_to", TileNetwork.adapted_to if adapts else _never),
    ):
        start = time.process_time()
        found = [
            next(iter(segmenter.set_params(red_cell_diameter=diameter).segment([image])))
            for image, diameter in zip(images, diameters, strict=True)
        ]
        seconds = (time.process_time() - start) / len(images)
    counts = np.array([[each.count()[name] for name in ("white", "red")] for each in found])
    return {"maps": [each.class_map for each in found], "counts": counts, "seconds": seconds}


def _never(*args: Any) -> None:
    return None


def rows(segmenter: Any, bunch: Any, n_fields: int) -> Any:
    """Yield a row for each kind of noise and each way, over all strengths."""
    places = np.linspace(0, len(bunch.images) - 1, min(n_fields, len(bunch.images)))
    places = places.round().astype(int)
    masks = [np.asarray(bunch.masks[place]) for place in places]
    radii = [typical_radius(mask) for mask in masks]
    chosen = [i for i, radius in enumerate(radii) if radius is not None]
    masks, diameters = [masks[i] for i in chosen], [2 * radii[i] for i in chosen]
    images = [np.asarray(bunch.images[places[i]])[..., :3] for i in chosen]
    clean = predict(segmenter, images, diameters, "both")
    for name, (damage, strengths) in NOISES.items():
        for way in WAYS:
            scores = []
            for strength in strengths:
                noisy = [
                    damage(image, strength, np.random.default_rng(seed))
                    for seed, image in enumerate(images)
                ]
                found = predict(segmenter, noisy, diameters, way)
                errors = np.abs(found["counts"] - clean["counts"]).mean(axis=0)
                scores.append(
                    [100 * mean_iou(masks, found["maps"]), *errors.tolist(), found["seconds"]]
                )
            means = np.mean(scores, axis=0).tolist()
            yield {"noise": name, "way": way} | dict(
                zip(("mean IoU", "white", "red", "seconds"), means, strict=True)
            )


def main() -> None:
    """Print a table of all kinds of noise, and write it as JSON where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("laboratories", nargs="+")
    parser.add_argument("--fields", type=int, default=8, help="of each laboratory")
    parser.add_argument("--json", help="write the rows there, too")
    given = parser.parse_args()
    torch.set_num_threads(1)
    segmenter = BloodCellSegmenter.from_pretrained()
    table = []
    for name in given.laboratories:
        bunch = load_folder(given.data / (TRAINING | JUDGES)[name].folder)
        for row in rows(segmenter, bunch, given.fields):
            table.append({"laboratory": name, **row})
            print(table[-1], flush=True)
    print(pd.DataFrame(table).to_string(float_format="%.2f"))
    write_json(given.json, machine=machine(torch.device("cpu")), rows=table)


if __name__ == "__main__":
    main()
