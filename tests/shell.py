"""What tests of the command line share: smears in a folder, options of a tiny training, tables."""

import csv

from PIL import Image

from bloodseg.datasets import make_smears

SMEARS = make_smears(4, image_size=64, random_state=0, red_cell_diameter=16)
TINY = ["--width", "4", "--max-epochs", "1", "--crop-size", "32", "--random-state", "0", "-q"]


def save_smears(folder, names="abcd"):
    """Write images and label maps, and return the folder."""
    for kind, pictures in (("images", SMEARS.images), ("masks", SMEARS.masks)):
        (folder / kind).mkdir(parents=True)
        for name, picture in zip(names, pictures, strict=False):
            Image.fromarray(picture).save(folder / kind / f"{name}.png")
    return folder


def visible(folder):
    """Return the names of what a folder shows."""
    return {file.name for file in folder.iterdir() if not file.name.startswith(".")}


def rows_of(file):
    """Return the rows of a table."""
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def raiser(error):
    """Return a function that raises an error, whatever it is called with."""

    def raise_it(*args, **kwargs):
        raise error

    return raise_it
