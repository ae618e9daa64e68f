"""Networks by name."""

from __future__ import annotations

from typing import Any

from ._dlinknet import DLinkNet
from ._fcn import FCN
from ._feedback import FeedbackUNet
from ._unet import Frame, NODEsUNet, ResNetUNet, UNet

NETWORKS: dict[str, type[Frame]] = {
    "nodes-unet": NODEsUNet,
    "unet": UNet,
    "resnet-unet": ResNetUNet,
    "fcn": FCN,
    "feedback-unet": FeedbackUNet,
    "d-linknet": DLinkNet,
}
"""The networks of the paper, and those that it builds on, by the names of `make_network`."""


def make_network(name: str = "nodes-unet", **parameters: Any) -> Frame:
    """Return a freshly initialised network of the family.

    Parameters
    ----------
    name : {"nodes-unet", "unet", "resnet-unet", "fcn", "feedback-unet", "d-linknet"}
        Which network: the paper's (Tables 1 and 2), or one that it builds on.
    **parameters
        As the class takes them: `NODEsUNet`, `UNet`, `ResNetUNet`, `FCN`, `FeedbackUNet`,
        `DLinkNet`.

    Returns
    -------
    Module

    Raises
    ------
    ValueError
        If there is no network of that name or a parameter is out of its range.

    Examples
    --------
    >>> from bloodseg.networks import make_network
    >>> make_network("unet", width=8).head
    Conv2d(8, 3, kernel_size=(1, 1), stride=(1, 1))
    """
    if name not in NETWORKS:
        raise ValueError(f"network must be one of {', '.join(NETWORKS)}; got {name!r}.")
    return NETWORKS[name](**parameters)
