"""Networks by name."""

from __future__ import annotations

from typing import Any

from ._unet import NODEsUNet, ResNetUNet, UNet

NETWORKS: dict[str, type[UNet]] = {
    "nodes-unet": NODEsUNet,
    "unet": UNet,
    "resnet-unet": ResNetUNet,
}
"""The networks of the paper by the names that `make_network` takes."""


def make_network(name: str = "nodes-unet", **parameters: Any) -> UNet:
    """Return a freshly initialised network of the family.

    Parameters
    ----------
    name : {"nodes-unet", "unet", "resnet-unet"}
        Which network (paper, Tables 1 and 2).
    **parameters
        As the class takes them: `NODEsUNet`, `UNet`, `ResNetUNet`.

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
