"""How far densities of red cells depend on how a smear is cut into photos.

    python -m benchmarks.densities [--smears 14] [--diameter 54]

Drawn smears of 1024 x 1024 pixels are cut into photos of 256 x 256. Per cent by which the density
differs from that of the uncut smear as it was drawn, in its counting frame: of the cells as they
were drawn, and of those found in the true class maps. "All that show" counts every cell of a photo
over the photo's area; "the frame" is the one of `bloodseg.cells.CountingFrame`.
"""

from __future__ import annotations

import argparse

import numpy as np
from skimage.segmentation import relabel_sequential

from bloodseg.cells import find_cells
from bloodseg.datasets import make_smears

from ._tables import print_heading, print_row

SIDE, PHOTO = 1024, 256
RED = 2


def count(class_map, drawn, diameter):
    """Return cells counted and pixels they were counted over, by what was counted and how."""
    cells = find_cells(class_map, red_cell_diameter=diameter)
    drawn, _, _ = relabel_sequential(drawn)  # those that show
    numbers, first = np.unique(drawn, return_index=True)
    classes = class_map.ravel()[first[numbers > 0]]
    red_drawn, red_found = classes == RED, cells.classes == RED
    in_frame = cells.frame.holds(drawn, len(classes))
    return {
        "drawn, all that show": (red_drawn.sum(), class_map.size),
        "found, all that show": (red_found.sum(), class_map.size),
        "drawn, the frame": ((red_drawn & in_frame).sum(), cells.frame.area),
        "found, the frame": ((red_found & cells.in_frame).sum(), cells.frame.area),
    }


def add_up(counts):
    """Return cells per pixel of many pictures, by what was counted."""
    return {
        name: sum(each[name][0] for each in counts) / sum(each[name][1] for each in counts)
        for name in counts[0]
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smears", type=int, default=14)
    parser.add_argument("--diameter", type=float, default=54, help="of red cells, in pixels")
    given = parser.parse_args()
    uncut, photos = [], []
    for seed in range(given.smears):
        smear = make_smears(1, SIDE, random_state=seed, red_cell_diameter=given.diameter)
        class_map, drawn = smear.masks[0], smear.instances[0]
        uncut.append(count(class_map, drawn, given.diameter))
        for top in range(0, SIDE, PHOTO):
            for left in range(0, SIDE, PHOTO):
                place = slice(top, top + PHOTO), slice(left, left + PHOTO)
                photos.append(count(class_map[place], drawn[place], given.diameter))
    in_photos, in_uncut = add_up(photos), add_up(uncut)
    true = in_uncut["drawn, the frame"]
    print_heading(["counted", "photos", "uncut"])
    for name, density in in_photos.items():
        errors = (f"{100 * (each / true - 1):+.1f} %" for each in (density, in_uncut[name]))
        print_row([name, *errors])


if __name__ == "__main__":
    main()
