"""
Search over tolerance and position
==================================

The solver's tolerance, the ODE-blocks' positions and the strength of the contrast enhancement are
parameters like any other, so scikit-learn searches them.

Images and networks are so small here that the scores mean nothing; the calls are those of a real
search.
"""

import matplotlib.pyplot as plt
import pandas as pd
from sklearn.model_selection import GridSearchCV, ShuffleSplit

from bloodseg import BloodCellSegmenter, Preprocessor
from bloodseg.datasets import make_smears
from bloodseg.metrics import mean_iou_scorer

smears = make_smears(6, image_size=64, red_cell_diameter=16, white_cells=(1, 1), random_state=0)

search = GridSearchCV(
    BloodCellSegmenter(
        # An instance, whose parameters are searched, too; few tiles, as the images are tiny.
        preprocessor=Preprocessor(tile_grid_size=(2, 2)),
        width=4,
        max_epochs=3,
        batch_size=2,
        learning_rate=1e-2,
        crop_size=32,
        validation_fraction=None,
        random_state=0,
    ),
    {
        "ode_tol": [1e-1, 1e-3],
        "ode_positions": [(5,), (4, 5, 6)],
        "preprocessor__clip_limit": [1.0, 3.0],
    },
    scoring=mean_iou_scorer,
    cv=ShuffleSplit(1, test_size=2, random_state=0),
)
search.fit(smears.images, smears.masks)

# %%
table = pd.DataFrame(search.cv_results_["params"])
table["mean IoU"] = search.cv_results_["mean_test_score"].round(3)
table["seconds to fit"] = search.cv_results_["mean_fit_time"].round(2)
table.sort_values("mean IoU", ascending=False)

# %%
search.best_params_

# %%
# The best of each tolerance and position, over the strengths of the contrast:
table["positions"] = table["ode_positions"].astype(str)
best = table.pivot_table("mean IoU", "positions", "ode_tol", aggfunc="max")
fig, ax = plt.subplots(layout="constrained")
ax = best.plot.barh(ax=ax, xlabel="mean IoU")
