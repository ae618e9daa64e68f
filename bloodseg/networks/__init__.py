"""The U-Net family: plain, residual and neural-ODE stages in one frame."""

from ._factory import NETWORKS, make_network
from ._prediction import for_prediction
from ._tolerances import resolve_tolerances
from ._unet import POSITIONS, NODEsUNet, ResNetUNet, UNet, check_positions

__all__ = [
    "NETWORKS",
    "POSITIONS",
    "NODEsUNet",
    "ResNetUNet",
    "UNet",
    "check_positions",
    "for_prediction",
    "make_network",
    "resolve_tolerances",
]
