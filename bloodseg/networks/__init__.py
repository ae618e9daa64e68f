"""The U-Net family: plain, residual and neural-ODE stages in one frame, and their kin."""

from ._adaptation import adapt_statistics as adapt_statistics  # `as`: for other rooms, not public
from ._counting import CountingNetwork
from ._counting import unet_of as unet_of
from ._dlinknet import DLinkNet
from ._draws import DrawnFrom as DrawnFrom
from ._draws import seed_dropout as seed_dropout
from ._draws import seed_globally as seed_globally
from ._factory import NETWORKS, make_network
from ._fcn import FCN
from ._feedback import FeedbackUNet
from ._input import image_tensor as image_tensor
from ._new import Start as Start
from ._new import classes_of as classes_of
from ._new import new_counting_network as new_counting_network
from ._new import new_network as new_network
from ._optimistic import OptimisticPass as OptimisticPass
from ._prediction import copy_with_shared_weights as copy_with_shared_weights
from ._prediction import for_prediction
from ._prediction import prepare_for_prediction as prepare_for_prediction
from ._tolerances import resolve_tolerances
from ._unet import POSITIONS, NODEsUNet, ResNetUNet, UNet, make_plain_body
from ._unet import STRIDE as STRIDE
from ._unet import check_positions as check_positions

__all__ = [
    "FCN",
    "NETWORKS",
    "POSITIONS",
    "CountingNetwork",
    "DLinkNet",
    "FeedbackUNet",
    "NODEsUNet",
    "ResNetUNet",
    "UNet",
    "for_prediction",
    "make_network",
    "make_plain_body",
    "resolve_tolerances",
]
