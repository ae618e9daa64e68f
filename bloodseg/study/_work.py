"""What ODE-blocks do: a block that does nothing is the cheapest of all."""

from __future__ import annotations

from typing import Any

from ..metrics import mean_iou


def work_of_blocks(segmenter: Any, images: Any, masks: Any) -> dict[int, dict[str, float]]:
    """Return how far each ODE-block moves its state, and the mean IoU without it.

    Parameters
    ----------
    segmenter : BloodCellSegmenter
        Fitted.
    images, masks : images and label maps
        As for its ``score``.

    Returns
    -------
    dict of int to dict
        For each position ``relative_change``, RMS(h(1) - h(0)) / RMS(h(0)) averaged over the
        images, and ``mean_iou_without``, the score with the identity in the block's place.
    """
    work = {}
    for position, block in getattr(segmenter.network_, "ode_blocks", {}).items():
        moved: list[float] = []

        def measure(module: Any, inputs: Any, output: Any, moved: list[float] = moved) -> None:
            before = inputs[0].float()
            moved.append(((output - before).square().mean() / before.square().mean()).sqrt().item())

        handle = block.register_forward_hook(measure)
        try:
            segmenter.predict(images)
        finally:
            handle.remove()
        handle = block.register_forward_hook(lambda module, inputs, output: inputs[0].float())
        try:
            without = mean_iou(masks, segmenter.predict(images))
        finally:
            handle.remove()
        work[position] = {
            "relative_change": sum(moved) / len(moved),
            "mean_iou_without": without,
        }
    return work
