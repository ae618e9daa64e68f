"""
Own labels, own model
=====================

Train a NODEs-UNet on label maps, look at how training went, score it on smears that it has not
seen, and keep it in a file.

With real images a fit takes longer than here: for sixty fields of 256 x 256 pixels an hour or more
on two cores, minutes on a GPU (:doc:`all times </own-model>`). Where only a handful of fields are
labelled, :ref:`start from the published weights <sphx_glr_examples_plot_7_fine_tuning.py>`.
"""

import tempfile
from pathlib import Path

import pandas as pd

from bloodseg import BloodCellSegmenter
from bloodseg.datasets import make_smears
from bloodseg.metrics import segmentation_report
from bloodseg.plotting import SegmentationDisplay, TrainingHistoryDisplay

# Yours come from load_annotated("my-smears"). These are small, with small cells, and so is the
# network: the defaults are for real images.
sizes = {"image_size": 96, "red_cell_diameter": 16, "white_cells": (1, 2)}
train = make_smears(12, **sizes, random_state=0)
test = make_smears(4, **sizes, random_state=1)

segmenter = BloodCellSegmenter(
    width=8,
    ode_tol=1e-2,
    max_epochs=8,
    crop_size=48,
    learning_rate=4e-3,
    class_weight="balanced",
    random_state=0,
)
segmenter.fit(train.images, train.masks)

# %%
# A quarter of the images is held out of training. The weights of the epoch that is best on them
# are kept.
display = TrainingHistoryDisplay.from_estimator(segmenter)

# %%
maps = segmenter.predict(test.images)
pd.Series(segmentation_report(test.masks, maps)).round(3)

# %%
# Where it is wrong:
display = SegmentationDisplay.from_predictions(
    test.images[0], maps[0], test.masks[0], kind="difference"
)

# %%
# Model files are safetensors: nothing in them is run when they are loaded.
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "mine.safetensors"
    segmenter.save(path)
    again = BloodCellSegmenter.load(path)
(again.predict(test.images) == maps).all()
