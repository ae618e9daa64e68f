"""Adaptive solution of neural ordinary differential equations, one error control a sample.

The room knows tensors and nothing of images. Lowest first: the methods' tableaus, the control of
the step size, the arithmetic of the stages, the search for the steps, the gradient through them,
`solve`, the layer `ODEBlock`, and `FixedStepBlock`, the layer without a search.
"""

from ._block import ODEBlock
from ._block import expect_of as expect_of  # `as`: for other rooms, not public
from ._checks import BACKENDS, GRADIENTS
from ._fixed import FixedStepBlock, choose_n_steps
from ._optimistic import Tape as Tape
from ._precision import PRECISIONS, tolerance_floor
from ._solution import ODESolution, SolverError, Status
from ._solve import pays_to_compile, solve
from ._warnings import SolverWarning, one_warning_each
from ._warnings import WarningOnce as WarningOnce
from ._warnings import warn_caller as warn_caller
from .methods import METHODS, Tableau, choose_method
from .methods import check_n_steps as check_n_steps

__all__ = [
    "BACKENDS",
    "GRADIENTS",
    "METHODS",
    "PRECISIONS",
    "FixedStepBlock",
    "ODEBlock",
    "ODESolution",
    "SolverError",
    "SolverWarning",
    "Status",
    "Tableau",
    "choose_method",
    "choose_n_steps",
    "one_warning_each",
    "pays_to_compile",
    "solve",
    "tolerance_floor",
]
