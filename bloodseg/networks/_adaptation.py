"""A network whose normalisation leans towards images of another laboratory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ._prediction import copy_with_shared_weights


def adapt_statistics(network: Any, images: Tensor, share: float) -> Any:
    """Return a copy whose statistics of batch normalisation lean towards those of images.

    Light, stain and camera of a laboratory shift what the layers see away from the means and
    variances of training. Each layer's are moved a share of the way to those of the images, first
    layer first, so that each sees what the ones before it now give [1]_. Weights stay.

    Parameters
    ----------
    network : network of the family
        In evaluation mode, not prepared for prediction; left as it is.
    images : Tensor of shape (n, 3, H, W)
        In [0, 1], sides multiples of the network's stride.
    share : float
        In [0, 1]; 0 changes nothing, 1 forgets the statistics of training.

    References
    ----------
    .. [1] Schneider et al., "Improving robustness against common corruptions by covariate shift
       adaptation", NeurIPS 2020, equation (2).
    """
    # Bodies of a user's own may normalise in their right-hand sides.
    adapted = copy_with_shared_weights(network, functions_too=True)

    def move(norm: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        hooks.pop(norm).remove()  # once, where a network or a solver comes by time and again
        (x,) = inputs
        variance, mean = torch.var_mean(x.float(), dim=(0, 2, 3), correction=0)
        for ours, theirs in ((norm.running_mean, mean), (norm.running_var, variance)):
            ours.lerp_(theirs, share)  # type: ignore[union-attr]

    norms = [each for each in adapted.modules() if isinstance(each, nn.BatchNorm2d)]
    hooks = {norm: norm.register_forward_pre_hook(move) for norm in norms}
    with torch.no_grad():
        adapted(images)
    for unused in hooks.values():
        unused.remove()
    return adapted
