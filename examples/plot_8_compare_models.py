"""
Compare two models
==================

Is one network better than another, or was it lucky with these images, or with its seed? Both are
scored on the same test images, and images and seeds are resampled: the interval says which
differences fit the data.

Two finished models are compared by ``bloodseg compare A B DIR``, or by
:func:`bloodseg.metrics.compare_predictions`.
"""

import matplotlib.pyplot as plt

from bloodseg import BloodCellSegmenter
from bloodseg.datasets import make_smears
from bloodseg.metrics import confusion_matrix
from bloodseg.study import compare

sizes = {"image_size": 96, "red_cell_diameter": 16, "white_cells": (1, 2)}
train = make_smears(12, **sizes, random_state=0)
test = make_smears(12, **sizes, random_state=1)

# %%
# U-Nets of two widths, two seeds each: the seed moves the score as well as the test images do. Two
# seeds make this page short; a verdict of :func:`bloodseg.study.report_study` takes five.
matrices = {}
for width in (2, 8):
    name = f"width {width}"
    matrices[name] = []
    for seed in range(2):
        segmenter = BloodCellSegmenter(
            network="unet",
            width=width,
            max_epochs=8,
            crop_size=48,
            learning_rate=1e-2,
            random_state=seed,
        )
        maps = segmenter.fit(train.images, train.masks).predict(test.images)
        pairs = zip(test.masks, maps, strict=True)
        matrices[name].append([confusion_matrix([true], [found]) for true, found in pairs])

# %%
# ``low`` to ``high`` is the interval. Where it holds 0, these data do not say which is better.
# ``detectable`` is the difference that they could show.
table = compare(matrices, [("width 8", "width 2")])
table[["metric", "difference", "low", "high", "p_holm", "detectable"]].round(3)

# %%
fig, ax = plt.subplots(figsize=(6, 2.5), layout="constrained")
ax.set(xlabel="width 8 minus width 2, with 95 % intervals")
middle = table["difference"]
reach = [middle - table["low"], table["high"] - middle]
ax.errorbar(middle, table["metric"], xerr=reach, fmt="o", capsize=4)
zero = ax.axvline(0, color="grey", linestyle="--")
