"""Search over the solver's tolerance, the ODE-blocks' positions and the contrast enhancement.

Runs in under a minute on two cores: the sizes are far too small for good scores, but the calls
are those of a real search.
"""

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

for rank, score, parameters in sorted(
    zip(
        search.cv_results_["rank_test_score"],
        search.cv_results_["mean_test_score"],
        search.cv_results_["params"],
        strict=True,
    ),
    key=lambda row: row[0],
):
    print(f"{rank:>2}. mean IoU {score:.3f}  {parameters}")
print("best:", search.best_params_)
