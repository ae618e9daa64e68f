"""Scores of class maps and of cells against labels."""

from ._cells import CellMatch, average_precision, cell_report, match_cells
from ._cells import report_of_overlaps as report_of_overlaps
from ._overlaps import overlaps as overlaps
from ._paired import FoundCells as FoundCells
from ._paired import compare_predictions
from ._paired import paired_table as paired_table
from ._pixels import as_masks_know as as_masks_know
from ._pixels import (
    class_pixel_accuracy,
    confusion_matrix,
    dice_per_class,
    iou_per_class,
    mean_dice,
    mean_iou,
    pixel_accuracy,
    scores_from_confusion,
    segmentation_report,
)
from ._pixels import know_platelets as know_platelets
from ._pixels import scores_of_each as scores_of_each  # `as`: for other rooms, not public
from ._scorers import mean_dice_scorer, mean_iou_scorer, pixel_accuracy_scorer
from ._scorers import score_as_masks_know as score_as_masks_know

__all__ = [
    "CellMatch",
    "average_precision",
    "cell_report",
    "class_pixel_accuracy",
    "compare_predictions",
    "confusion_matrix",
    "dice_per_class",
    "iou_per_class",
    "match_cells",
    "mean_dice",
    "mean_dice_scorer",
    "mean_iou",
    "mean_iou_scorer",
    "pixel_accuracy",
    "pixel_accuracy_scorer",
    "scores_from_confusion",
    "segmentation_report",
]
