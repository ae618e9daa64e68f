"""Adaptive solution of neural ordinary differential equations, one error control a sample.

The room knows tensors and nothing of images. Everything above it goes through the names below,
so the solver beneath (today torchdiffeq) can change without them.
"""

from ._block import ODEBlock
from ._methods import METHODS, choose_method
from ._solve import GRADIENTS, ODESolution, SolverError, solve

__all__ = [
    "GRADIENTS",
    "METHODS",
    "ODEBlock",
    "ODESolution",
    "SolverError",
    "choose_method",
    "solve",
]
