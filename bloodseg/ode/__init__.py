"""Adaptive solution of neural ordinary differential equations, one error control a sample.

The room knows tensors and nothing of images. Lowest first: the methods' tableaus, the control of
the step size, the arithmetic of the stages, the search for the steps, the gradient through them,
`solve`, and `ODEBlock`, the layer.
"""

from ._block import ODEBlock
from ._precision import PRECISIONS, tolerance_floor
from ._solution import ODESolution, SolverError, SolverWarning, Status, one_warning_each
from ._solve import BACKENDS, GRADIENTS, pays_to_compile, solve
from .methods import METHODS, choose_method

__all__ = [
    "BACKENDS",
    "GRADIENTS",
    "METHODS",
    "PRECISIONS",
    "ODEBlock",
    "ODESolution",
    "SolverError",
    "SolverWarning",
    "Status",
    "choose_method",
    "one_warning_each",
    "pays_to_compile",
    "solve",
    "tolerance_floor",
]
