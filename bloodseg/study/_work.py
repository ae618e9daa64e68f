"""What ODE-blocks do: a block that does nothing is the cheapest of all."""

from __future__ import annotations

from typing import Any

from ..metrics import mean_iou


def work_of_blocks(segmenter: Any, images: Any, masks: Any) -> dict[int, dict[str, float]]:
    """Return how far each ODE-block moves its state, and the mean IoU without it.

    Parameters
    ----------
    segmenter : BloodCellSegmenter
        Fitted; left as it is.
    images, masks : images and label maps
        As for its ``score``.

    Returns
    -------
    dict of int to dict
        For each position ``relative_change``, RMS(h(1) - h(0)) / RMS(h(0)) averaged over the
        images, and ``mean_iou_without``, the score with the identity in the block's place.
    """
    predictor = segmenter._make_predictor()  # its network is a copy, which hooks may be put on
    work = {}
    for position, block in getattr(predictor.network.network, "ode_blocks", {}).items():
        moved: list[float] = []

        def measure(module: Any, inputs: Any, output: Any, moved: list[float] = moved) -> None:
            before = inputs[0].float()
            moved.append(((output - before).square().mean() / before.square().mean()).sqrt().item())

        with block.register_forward_hook(measure):
            _predict(predictor, images)
        with block.register_forward_hook(lambda module, inputs, output: inputs[0].float()):
            without = mean_iou(masks, _predict(predictor, images))
        work[position] = {
            "relative_change": sum(moved) / len(moved),
            "mean_iou_without": without,
        }
    return work


def _predict(predictor: Any, images: Any) -> list[Any]:
    return [segmented.class_map for segmented in predictor.segmented(images)]
