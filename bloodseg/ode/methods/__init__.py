"""The Runge-Kutta methods on offer, one file each, and which one a tolerance asks for."""

from __future__ import annotations

from ._tableau import Tableau
from .bosh3 import BOSH3
from .dopri5 import DOPRI5
from .dopri8 import DOPRI8
from .euler import EULER
from .heun import HEUN
from .midpoint import MIDPOINT
from .rk4 import RK4
from .tsit5 import TSIT5

TABLEAUS = {
    method.name: method for method in (HEUN, BOSH3, DOPRI5, TSIT5, DOPRI8, EULER, MIDPOINT, RK4)
}
METHODS = tuple(TABLEAUS)

# Down to which tolerance each method is the one that needs the fewest evaluations of a
# convolutional right-hand side: `python -m benchmarks.ode` makes this table.
_AUTO = ((1e-3, "bosh3"), (3e-5, "tsit5"), (0.0, "dopri8"))

# What torchdiffeq has not, and what comes closest there.
_LACKING = {"tsit5": "dopri5"}


def choose_method(tol: float, method: str = "auto", *, backend: str = "bloodseg") -> str:
    """Return the method that ``"auto"`` stands for at a tolerance, or ``method`` itself.

    Parameters
    ----------
    tol : float
        Error tolerance of the solve, positive.
    method : str
        ``"auto"`` or the name of a method.
    backend : {"bloodseg", "torchdiffeq"}
        Whose solver; torchdiffeq has no ``"tsit5"``, and the adjoint gradient needs torchdiffeq.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If there is no method of that name, or the backend lacks it.

    Examples
    --------
    >>> from bloodseg.ode import choose_method
    >>> choose_method(1e-3), choose_method(1e-6), choose_method(1e-3, "rk4")
    ('bosh3', 'dopri8', 'rk4')
    """
    lacking = _LACKING if backend == "torchdiffeq" else {}
    if method == "auto":
        chosen = next(name for loosest, name in _AUTO if tol >= loosest)
        return lacking.get(chosen, chosen)
    if method in lacking:
        raise ValueError(
            f"torchdiffeq, the backend that was asked for or that the adjoint gradient needs, has "
            f"no {method!r}; take {lacking[method]!r}."
        )
    if method not in TABLEAUS:
        raise ValueError(f"method must be 'auto' or one of {', '.join(METHODS)}; got {method!r}.")
    return method


__all__ = ["METHODS", "TABLEAUS", "Tableau", "choose_method"]
