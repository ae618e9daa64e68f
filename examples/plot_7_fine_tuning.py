"""
Fine-tune the published weights
===============================

``fit`` on what ``from_pretrained`` returns starts from the published weights. Eight labelled fields
of your own smears are a good beginning; here two, drawn ones, of a kind that training has not seen.

Look at the outlines of the published weights first: where they are right, a few fields gain nothing
(:doc:`what they gave </pretrained>`).
"""

import matplotlib.pyplot as plt

from bloodseg import BloodCellSegmenter
from bloodseg.datasets import make_smears
from bloodseg.plotting import SegmentationDisplay

smears = make_smears(4, 128, random_state=5, white_cells=(1, 1))
mine, unseen = slice(0, 2), slice(2, None)

published = BloodCellSegmenter.from_pretrained()
before = published.score(smears.images[unseen], smears.masks[unseen])

# %%
# The learning rate is low, batch normalisation keeps the statistics of the published weights, and
# all images are trained on: so ``from_pretrained`` sets it.
segmenter = BloodCellSegmenter.from_pretrained(max_epochs=5, random_state=0)
segmenter.fit(smears.images[mine], smears.masks[mine])
after = segmenter.score(smears.images[unseen], smears.masks[unseen])
print(f"mean IoU on smears not trained on: {before:.3f} before, {after:.3f} after")

# %%
fig, axes = plt.subplots(1, 2, figsize=(12, 5.5))
for model, title, ax in zip((published, segmenter), ("before", "after"), axes, strict=True):
    SegmentationDisplay.from_estimator(
        model, smears.images[2], smears.masks[2], kind="difference", ax=ax
    )
    ax.set_title(title)
