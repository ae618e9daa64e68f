"""Throughput and peak memory on slides, against their side.

    python -m benchmarks.slides [--sides 1000 2000 5000 10000 20000] [--model MODEL] [--json FILE]
    python -m benchmarks.slides --agreement IMAGE... --model MODEL

Each side is measured in a process of its own on a TIFF of a drawn smear, repeated, from file to
table. Peak memory is that of the whole process, Python and torch included; "GB before" is what it
takes before the slide is opened. "CPU s" are those of the processor, all threads together, so that
a busy machine can be told apart from slow code; those of the processes that --processes makes stand
beside them.
Without a model, a network of random weights makes the class maps, so that only times and memory
mean something; --masks replaces the network by the true class map, to time the cells alone.
--agreement compares tiles with whole predictions of images (joined into a mosaic), by the share of
pixels, 64 and more from the border, that differ.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile
import torch
from joblib import parallel_config
from joblib.externals.loky import get_reusable_executor

from bloodseg import BloodCellSegmenter
from bloodseg._files import ArrayFile
from bloodseg.cells._blocks import KeptBlocks
from bloodseg.cells._measure import measure_blocks
from bloodseg.cells._scale import typical_radii
from bloodseg.datasets import make_smears, open_slide, read_image
from bloodseg.models import model_file

from ._timing import machine, run_apart, write_json

FIELD, DIAMETER = 1024, 54  # drawn once and repeated; cells as in smear256


def write_slide(path, field, side):
    """Write a tiled TIFF of this side, tile by tile."""
    field = field[:FIELD, :FIELD]
    n_across = -(-side // FIELD)
    tifffile.imwrite(
        path,
        (field for _ in range(n_across**2)),
        shape=(side, side, *field.shape[2:]),
        dtype=np.uint8,
        tile=(FIELD, FIELD),
        compression="zlib",
        compressionargs={"level": 1},
        bigtiff=True,
        photometric="rgb" if field.ndim == 3 else "minisblack",
    )


def peak_gigabytes(whose=resource.RUSAGE_SELF):
    return resource.getrusage(whose).ru_maxrss / 2**20


def timed(call, processes):
    """Return a result, and the seconds: by the clock, of this process, of the others."""
    start = time.perf_counter(), time.process_time(), seconds_of_children()
    with parallel_config(n_jobs=processes):
        result = call()
    elapsed = time.perf_counter() - start[0]
    get_reusable_executor().shutdown(wait=True)  # only then their seconds are known
    return result, {
        "s": elapsed,
        "CPU s": time.process_time() - start[1],
        "CPU s of processes": seconds_of_children() - start[2],
    }


def seconds_of_children():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def make_segmenter(model, width):
    if model is not None:
        return BloodCellSegmenter.load(model)
    smears = make_smears(2, image_size=64, random_state=0, red_cell_diameter=20)
    segmenter = BloodCellSegmenter(width=width, max_epochs=1, crop_size=32, random_state=0)
    return segmenter.fit(smears.images, smears.masks)


def of_cells(folder, side, arguments):
    """Measure the cells of a true class map."""
    slide, masks = open_slide(folder / "slide.tif"), open_slide(folder / "mask.tif")
    class_map = ArrayFile(masks.shape[:2])
    for top in range(0, side, FIELD):
        class_map[slice(top, min(top + FIELD, side)), slice(0, side)] = masks[top : top + FIELD][
            ..., 0
        ]

    def measure():
        blocks = KeptBlocks(class_map, typical_radii(class_map), n_threads=torch.get_num_threads())
        return measure_blocks(blocks, None, slide)

    table, seconds = timed(measure, arguments.processes)
    return speeds(side, len(table), seconds)


def of_network(folder, side, arguments):
    """Measure the cells of a slide, from file to table."""
    segmenter = make_segmenter(arguments.model, arguments.width)
    before = peak_gigabytes()
    segmenter.set_params(device=arguments.device)

    def measure():
        return segmenter.measure(folder / "slide.tif")

    table, seconds = timed(measure, arguments.processes)
    return {"GB before": before, **speeds(side, len(table), seconds)}


def speeds(side, n_cells, seconds):
    return {
        "side": side,
        "cells": n_cells,
        **seconds,
        "cells per second": n_cells / seconds["s"],
        "megapixels per second": side**2 / 1e6 / seconds["s"],
        "megapixels per CPU s": side**2 / 1e6 / (seconds["CPU s"] + seconds["CPU s of processes"]),
    }


def run_one(arguments):
    torch.set_num_threads(arguments.threads)
    side = arguments.one
    smear = make_smears(1, FIELD, random_state=0, red_cell_diameter=DIAMETER)
    with tempfile.TemporaryDirectory() as folder:
        write_slide(Path(folder) / "slide.tif", smear.images[0], side)
        if arguments.masks:
            write_slide(Path(folder) / "mask.tif", smear.masks[0], side)
            row = of_cells(Path(folder), side, arguments)
        else:
            row = of_network(Path(folder), side, arguments)
    peaks = {"peak GB": peak_gigabytes()}
    if arguments.processes != 1:
        peaks["peak GB of a process"] = peak_gigabytes(resource.RUSAGE_CHILDREN)
    print(json.dumps(row | peaks))


def agreement(arguments):
    """Return how many pixels differ between tiles and the whole, and the largest difference."""
    torch.set_num_threads(arguments.threads)
    images = [read_image(path) for path in arguments.agreement]
    across = int(len(images) ** 0.5)
    rows = [np.hstack(images[i * across : (i + 1) * across]) for i in range(across)]
    mosaic = np.vstack(rows)
    segmenter = BloodCellSegmenter.load(arguments.model).set_params(tile_size=None)
    (whole,) = segmenter.predict_proba([mosaic])
    inner = slice(64, -64), slice(64, -64)
    results = []
    for side in (256, 512, 768):
        (tiled,) = segmenter.set_params(tile_size=side).predict_proba([mosaic])
        differs = whole.argmax(axis=-1) != tiled.argmax(axis=-1)
        most = np.abs(whole - tiled)[inner].max()
        row = {
            "mosaic": mosaic.shape[:2],
            "tile_size": side,
            "pixels that differ": differs[inner].mean(),
        }
        results.append({key: np.asarray(v).tolist() for key, v in (row | {"most": most}).items()})
        print(results[-1], flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="sides of 300 and 1200 pixels")
    parser.add_argument("--sides", type=int, nargs="+", default=[1000, 2000, 5000, 10000, 20000])
    parser.add_argument("--model", type=model_file)
    parser.add_argument("--width", type=int, default=8, help="of the network without a model")
    parser.add_argument("--masks", action="store_true", help="time the cells alone")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1, help="for tiles and blocks of cells")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--agreement", type=Path, nargs="+", metavar="IMAGE")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--json", help="write the rows there, too")
    arguments = parser.parse_args()
    if arguments.one:
        run_one(arguments)
        return
    if arguments.agreement:
        rows = agreement(arguments)
    else:
        rows = []
        options = [
            f"--{name}={getattr(arguments, name)}"
            for name in ("width", "threads", "processes", "device")
        ]
        options += ["--masks"] * arguments.masks
        options += [f"--model={arguments.model}"] if arguments.model else []
        for side in [300, 1200] if arguments.quick else arguments.sides:
            rows.append(run_apart("slides", f"--one={side}", *options))
            print({key: round(value, 3) for key, value in rows[-1].items()}, flush=True)
    write_json(arguments.json, machine=machine(torch.device(arguments.device)), rows=rows)


if __name__ == "__main__":
    main()
