"""Find, count and measure the cells of smears with the published weights: nothing to train.

    python examples/count_cells.py [IMAGE ...]

Without images, two smears are drawn. Leaves out/cells.csv and out/cells.png.
"""

import sys
from pathlib import Path

import numpy as np
from skimage.io import imread, imsave
from skimage.segmentation import mark_boundaries

from bloodseg import BloodCellSegmenter
from bloodseg.datasets import make_smears

OUT = Path("out")

images = [imread(path) for path in sys.argv[1:]]
if not images:
    images = list(make_smears(2, 384, random_state=3, white_cells=(2, 2)).images)
segmenter = BloodCellSegmenter.from_pretrained(pixel_size=None)  # micrometres, if you know it

results = list(segmenter.segment(images))  # one prediction for all that follows
for result in results:
    print(result.count())

OUT.mkdir(exist_ok=True)
results[0].measure().to_csv(OUT / "cells.csv", index=False)

cells = results[0].cells()
picture = images[0]
for label, colour in ((1, (0, 0.45, 0.7)), (2, (0.1, 0.1, 0.1))):
    of_class = np.concatenate([[False], cells.classes == label])[cells.labels]
    picture = mark_boundaries(picture, cells.labels * of_class, color=colour, mode="thick")
imsave(OUT / "cells.png", (255 * picture).astype(np.uint8))
print(f"Cells of the first image: {OUT / 'cells.csv'}, outlined: {OUT / 'cells.png'}")
