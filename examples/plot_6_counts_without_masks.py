"""
Counts without masks
====================

Outlines take long to draw, numbers of cells do not. :class:`bloodseg.BloodCellCounter` learns from
images and numbers alone, and is a regressor as scikit-learn's are. Where you have outlines, train a
segmenter: it shows which cells it has counted.
"""

import matplotlib.pyplot as plt
import pandas as pd
from sklearn.metrics import mean_absolute_error

from bloodseg import BloodCellCounter
from bloodseg.datasets import make_smears

sizes = {"image_size": 96, "red_cell_diameter": 16, "white_cells": (0, 3)}
train = make_smears(24, **sizes, random_state=0)
test = make_smears(12, **sizes, random_state=1)

counter = BloodCellCounter(
    width=4, scale=1, max_epochs=8, batch_size=4, learning_rate=1e-2, random_state=0
)
counter.fit(train.images, train.counts)

# %%
# The mean absolute error of a count, beside that of always saying the mean of the training images:
predicted = counter.predict(test.images)
mean = [train.counts.mean(axis=0)] * len(test.counts)
pd.DataFrame(
    {
        "counter": mean_absolute_error(test.counts, predicted, multioutput="raw_values"),
        "mean": mean_absolute_error(test.counts, mean, multioutput="raw_values"),
    },
    index=counter.class_names_[1:],
).round(2)

# %%
fig, ax = plt.subplots(figsize=(4, 4))
for column, name in enumerate(counter.class_names_[1:]):
    ax.plot(test.counts[:, column], predicted[:, column], "o", label=name)
ax.axline((0, 0), slope=1, color="grey", lw=1)
ax.set(xlabel="cells", ylabel="predicted")
legend = ax.legend()
