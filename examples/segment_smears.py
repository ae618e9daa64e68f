"""Train on drawn blood smears, label new ones, and look at scores, shares and the solver's work.

Runs in under a minute on two cores. Real images come in the same way: see
bloodseg.datasets.load_folder, or `bloodseg train --help`.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from bloodseg import BloodCellSegmenter
from bloodseg.datasets import make_smears
from bloodseg.metrics import segmentation_report

OUT = Path("out")

# Small images with small cells, so that this takes seconds; the defaults are for real ones.
train = make_smears(12, image_size=96, red_cell_diameter=16, white_cells=(1, 2), random_state=0)
test = make_smears(4, image_size=96, red_cell_diameter=16, white_cells=(1, 2), random_state=1)

segmenter = BloodCellSegmenter(
    width=8,
    ode_tol=1e-2,
    max_epochs=6,
    crop_size=48,
    learning_rate=4e-3,
    class_weight="balanced",
    random_state=0,
)
segmenter.fit(train.images, train.masks)
maps = segmenter.predict(test.images)

scores = segmentation_report(test.masks, maps)
print(f"pixel accuracy {scores['pixel_accuracy']:.3f}, mean IoU {scores['mean_iou']:.3f}")
for label, name in enumerate(test.target_names):
    print(f"{name}: {np.mean(maps == label):.1%} of the pixels")
for position, counts in segmenter.n_function_evaluations_.items():
    print(f"ODE-block {position}: {counts.mean():.1f} evaluations of f an image")

# The tolerance of prediction can be changed without training again.
for tol in (1e-1, 1e-4):
    segmenter.set_params(predict_ode_tol=tol)
    print(f"tolerance {tol:g}: mean IoU {segmenter.score(test.images, test.masks):.3f}")

OUT.mkdir(exist_ok=True)
segmenter.save(OUT / "cells.safetensors")
palette = np.array([(240, 240, 243), (0, 114, 178), (230, 159, 0)], np.uint8)
Image.fromarray(np.hstack([test.images[0], palette[maps[0]]])).save(OUT / "cells.png")
print(f"The model and a picture are in {OUT}.")
