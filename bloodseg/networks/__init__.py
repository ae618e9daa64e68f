"""The U-Net family: plain, residual and neural-ODE stages in one frame."""

from ._counting import CountingNetwork, unet_of
from ._factory import NETWORKS, make_network
from ._input import image_tensor
from ._prediction import for_prediction
from ._tolerances import resolve_tolerances
from ._unet import POSITIONS, STRIDE, NODEsUNet, ResNetUNet, UNet, check_positions

__all__ = [
    "NETWORKS",
    "POSITIONS",
    "STRIDE",
    "CountingNetwork",
    "NODEsUNet",
    "ResNetUNet",
    "UNet",
    "check_positions",
    "for_prediction",
    "image_tensor",
    "make_network",
    "resolve_tolerances",
    "unet_of",
]
