"""
What a tolerance costs and loses
================================

The tolerance of prediction is a parameter of its own, which can be changed without training again.
A curve shows what each tolerance gives: the score, the share of the pixels that change against the
tightest, the evaluations of f, the time.
"""

import pandas as pd

from bloodseg import BloodCellSegmenter
from bloodseg.datasets import make_smears
from bloodseg.model_selection import choose_tolerance, tolerance_curve
from bloodseg.plotting import ToleranceCurveDisplay

smears = make_smears(1, 96, random_state=5, red_cell_diameter=24, white_cells=(1, 1))
segmenter = BloodCellSegmenter.from_pretrained()

curve = tolerance_curve(segmenter, smears.images, smears.masks, [1e-3, 1e-2, 1e-1, 1])
pd.DataFrame(curve).round(4)

# %%
display = ToleranceCurveDisplay(
    curve.tolerances, curve.scores, curve.changed, evaluations=curve.evaluations
).plot()

# %%
# :func:`bloodseg.model_selection.choose_tolerance` sets the loosest tolerance that loses no more
# than ``max_drop``. Choose on images that have no part in the final score.
choose_tolerance(
    segmenter,
    smears.images,
    smears.masks,
    max_drop=0.005,
    tolerances=[1e-2, 1e-1],
    n_repeats=1,
)
