"""The Runge-Kutta methods on offer and which one a tolerance asks for."""

from __future__ import annotations

# Not torchdiffeq's fehlberg2: its error estimate is 512 times too small.
ADAPTIVE_METHODS = ("bosh3", "dopri5", "dopri8", "adaptive_heun")
FIXED_STEP_METHODS = ("euler", "midpoint", "rk4")
METHODS = (*ADAPTIVE_METHODS, *FIXED_STEP_METHODS)

# A fixed-step method has no error control, so a tolerance means nothing to it: it takes this
# many equal steps.
N_FIXED_STEPS = 4

# Loosest tolerance at which the higher order pays for its extra stages.
_AUTO = ((1e-4, "bosh3"), (1e-9, "dopri5"), (0.0, "dopri8"))


def choose_method(tol: float, method: str = "auto") -> str:
    """Return the method that ``"auto"`` stands for at a tolerance, or ``method`` itself.

    Parameters
    ----------
    tol : float
        Error tolerance of the solve, positive.
    method : str
        ``"auto"`` or the name of a method.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If there is no method of that name.

    Examples
    --------
    >>> from bloodseg.ode import choose_method
    >>> choose_method(1e-3), choose_method(1e-6), choose_method(1e-3, "rk4")
    ('bosh3', 'dopri5', 'rk4')
    """
    if method == "auto":
        return next(name for loosest, name in _AUTO if tol >= loosest)
    if method not in METHODS:
        raise ValueError(f"method must be 'auto' or one of {', '.join(METHODS)}; got {method!r}.")
    return method
