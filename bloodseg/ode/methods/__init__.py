"""The Runge-Kutta methods on offer, one file each, and which one a tolerance asks for."""

from __future__ import annotations

from typing import Any

from .._checks import check_backend, check_count, check_positive
from ._tableau import Tableau
from .bosh3 import BOSH3
from .dopri5 import DOPRI5
from .dopri8 import DOPRI8
from .euler import EULER
from .heun import HEUN
from .kutta3 import KUTTA3
from .midpoint import MIDPOINT
from .rk4 import RK4
from .tsit5 import TSIT5

TABLEAUS = {
    method.name: method
    for method in (HEUN, KUTTA3, BOSH3, DOPRI5, TSIT5, DOPRI8, EULER, MIDPOINT, RK4)
}
METHODS = tuple(TABLEAUS)
_FIXED = tuple(name for name, method in TABLEAUS.items() if not method.adaptive)

Method = str | Tableau  # "auto", a name, or a method of the user's own

N_FIXED_STEPS = 4
"""Equal steps of a fixed-step method where the user says nothing."""

# Down to which tolerance each method is the one that needs the fewest evaluations of a
# convolutional right-hand side: `python -m benchmarks.ode` makes this table.
_AUTO = ((1e-3, "kutta3"), (3e-5, "tsit5"), (0.0, "dopri8"))

# What torchdiffeq has not, and what comes closest there.
_LACKING = {"kutta3": "bosh3", "tsit5": "dopri5"}


def choose_method(tol: float, method: str = "auto", *, backend: str = "bloodseg") -> str:
    """Return the method that ``"auto"`` stands for at a tolerance, or ``method`` itself.

    Parameters
    ----------
    tol : float
        Error tolerance of the solve, positive and finite.
    method : str
        ``"auto"`` or the name of a method.
    backend : {"bloodseg", "torchdiffeq"}
        Whose solver; torchdiffeq has no ``"kutta3"`` and no ``"tsit5"``, and the adjoint gradient
        needs torchdiffeq.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If the tolerance is out of its range, there is no such backend or no method of that name, or
        the backend lacks it.

    Examples
    --------
    >>> from bloodseg.ode import choose_method
    >>> choose_method(1e-3), choose_method(1e-6), choose_method(1e-3, "rk4")
    ('kutta3', 'dopri8', 'rk4')
    """
    check_positive(tol, "tol")
    check_backend(backend)
    return choose_tableau(tol, method, backend=backend).name


def choose_tableau(tol: float, method: Method = "auto", *, backend: str = "bloodseg") -> Tableau:
    """Return the tableau of the method that `choose_method` names; a tableau as it is."""
    theirs = backend == "torchdiffeq"
    if isinstance(method, Tableau):
        if theirs:
            raise ValueError(
                "torchdiffeq, the backend that was asked for or that the adjoint gradient needs, "
                f"takes methods by name only; got the Tableau {method.name!r}."
            )
        return method
    _check_name(method)
    lacking = _LACKING if theirs else {}
    if method == "auto":
        chosen = next(name for loosest, name in _AUTO if tol >= loosest)
        return TABLEAUS[lacking.get(chosen, chosen)]
    if method in lacking:
        raise ValueError(
            f"torchdiffeq, the backend that was asked for or that the adjoint gradient needs, has "
            f"no {method!r}; take {lacking[method]!r}."
        )
    return TABLEAUS[method]


def check_n_steps(n_steps: int | None, method: Method, *, name: str = "n_steps") -> int | None:
    """Return how many equal steps a method takes; None where it chooses its steps itself.

    Parameters
    ----------
    n_steps : int, optional
        What the user asked for; None is `N_FIXED_STEPS` for a fixed-step method.
    method : str or Tableau
        ``"auto"``, the name of a method, or a tableau.
    name : str
        What the error messages call the argument.

    Returns
    -------
    int or None

    Raises
    ------
    ValueError
        If it is no whole number of at least 1, or is given for a method that chooses its steps by
        the tolerance.

    Examples
    --------
    >>> from bloodseg.ode import check_n_steps
    >>> check_n_steps(10, "rk4"), check_n_steps(None, "rk4"), check_n_steps(None, "auto")
    (10, 4, None)
    """
    if n_steps is not None:
        check_count(n_steps, name)
    if not isinstance(method, Tableau):
        _check_name(method)
    tableau = method if isinstance(method, Tableau) else TABLEAUS.get(method)
    if tableau is not None and not tableau.adaptive:
        return N_FIXED_STEPS if n_steps is None else int(n_steps)
    if n_steps is not None:
        label = repr(method if tableau is None else tableau.name)
        raise ValueError(
            f"{name}={n_steps} is for fixed-step methods ({', '.join(_FIXED)}); {label} takes as "
            f"many steps as its tolerance asks for. Leave {name} at None, or name one of those "
            "methods."
        )
    return None


def _check_name(method: Any) -> None:
    if not isinstance(method, str) or method not in ("auto", *TABLEAUS):
        raise ValueError(
            f"method must be 'auto', one of {', '.join(METHODS)}, or a Tableau; got {method!r}."
        )


__all__ = [
    "METHODS",
    "N_FIXED_STEPS",
    "TABLEAUS",
    "Method",
    "Tableau",
    "check_n_steps",
    "choose_method",
    "choose_tableau",
]
