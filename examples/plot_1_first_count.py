"""
First count
===========

Find, count and measure the cells of smears with the published weights: nothing to train.

``python examples/plot_1_first_count.py IMAGE ...`` does it with images of your own. Here two smears
are drawn.
"""

import sys

import matplotlib.pyplot as plt
import pandas as pd

from bloodseg import BloodCellSegmenter, summarize
from bloodseg.datasets import make_smears, read_image
from bloodseg.plotting import CellSizeDisplay, InstanceDisplay

images = [read_image(path) for path in sys.argv[1:]]
if not images:
    images = list(make_smears(2, 224, random_state=3, white_cells=(1, 1)).images)

# %%
# One prediction answers all that follows. How wide red cells are, in pixels, is measured in each
# image. How wide a pixel is, in micrometres, files may say; else say so yourself (``pixel_size``).
segmenter = BloodCellSegmenter.from_pretrained(pixel_size=0.2)
results = list(segmenter.segment(images))

counts = pd.DataFrame([result.count() for result in results])
counts[["image", "white", "red", "confidence", "doubts"]]

# %%
# Each cell has an outline of its own, and a row in a table.
fig, axes = plt.subplots(1, 2, figsize=(9, 4.5))
for result, ax in zip(results, axes, strict=False):
    InstanceDisplay.from_predictions(result.image, result.cells(), ax=ax)

# %%
cells = pd.concat([result.measure() for result in results])
cells[["image", "class", "diameter", "unit", "touches_border", "confidence"]].head()

# %%
# How large they are, without those that a border cuts: here both white cells.
display = CellSizeDisplay.from_predictions(cells, bins=12)

# %%
# All images summed up; the second column leaves out those in doubt.
summarize(results).T
