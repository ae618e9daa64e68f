"""A neural ODE as a layer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from ._checks import (
    check_backend,
    check_compile,
    check_count,
    check_first_step,
    check_gradient,
    check_positive,
)
from ._control import Interval
from ._optimistic import Expectation, current_tape, expect
from ._precision import check_precision, fix_arithmetic, settle_precision, tolerance_floor
from ._rhs import RightHandSide
from ._solve import MAX_STEPS, find_backend, solve
from ._step import estimate_error
from .methods import Method, Tableau, check_n_steps, choose_tableau


class ODEBlock(nn.Module):
    """A layer that carries its input h(0) along ``dh/dt = func(t, h)`` to h(1) (paper, Figure 4).

    The tolerances are settings, no part of the ``state_dict``: change them at any time.

    Parameters
    ----------
    func : Module
        Right-hand side ``func(t, h)``; t has shape (n, 1, ..., 1).
    tol : float
        Tolerance in training mode, relative and absolute.
    predict_tol : float, optional
        Tolerance in evaluation mode; None takes ``tol``.
    method : str or Tableau
        Runge-Kutta method; ``"auto"`` picks by tolerance, see `bloodseg.ode.solve`.
    n_steps : int, optional
        Number of steps of a fixed-step method, which takes no notice of the tolerances and cannot
        judge its error; None is 4. Not for the other methods.
    gradient : {"checkpoint", "direct", "adjoint"}
        See `bloodseg.ode.solve`.
    precision : {"float32", "tf32", "bfloat16", "float16"}, optional
        What ``func`` computes in, as for `bloodseg.ode.solve`. None is autocast's precision where
        the block runs under autocast, else the state's. Where a tolerance is too tight for the
        precision (`tolerance_floor`), the block takes float32 and logs that once.
    first_step : float, optional
        First step to try at tolerance ``tol``, of the unit interval; at others, and if None, it is
        the solver's choice. A setting like the tolerances: `bloodseg.networks.NODEsUNet.calibrate`
        finds it.
    max_steps : int
        Steps of a sample at most; see `bloodseg.ode.solve`.
    compile : bool or "auto"
        Whether to compile the sums over the stages; see `bloodseg.ode.solve`.
    backend : {"bloodseg", "torchdiffeq"}
        Whose solver.
    name : str
        What messages call the block.

    Attributes
    ----------
    n_evaluations, n_rejected : ndarray of int
        Evaluations of ``func`` and rejected steps in the last forward pass, one number a sample.

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    Notes
    -----
    The state stays in float32 at least, and each sample has steps of its own: what comes out for
    it does not depend on the others in the batch.

    Examples
    --------
    >>> import torch
    >>> from bloodseg.ode import ODEBlock
    >>> class Decay(torch.nn.Module):
    ...     def forward(self, t, h):
    ...         return -h
    >>> block = ODEBlock(Decay(), tol=1e-5).eval()
    >>> round(float(block(torch.ones(1, 1))), 3)
    0.368
    """

    def __init__(
        self,
        func: nn.Module,
        *,
        tol: float = 1e-3,
        predict_tol: float | None = None,
        method: Method = "auto",
        n_steps: int | None = None,
        gradient: str = "checkpoint",
        precision: str | None = None,
        first_step: float | None = None,
        max_steps: int = MAX_STEPS,
        compile: bool | str = "auto",
        backend: str = "bloodseg",
        name: str = "ODEBlock",
    ):
        super().__init__()
        self.func = func
        self.tol = tol
        self.predict_tol = predict_tol
        check_gradient(gradient)  # these say what is wrong with a setting
        check_precision(precision)
        check_first_step(first_step)
        check_count(max_steps, "max_steps")
        check_compile(compile)
        check_backend(backend)
        self.method = method
        self.n_steps = n_steps
        self.gradient = gradient
        self.precision = precision
        self.first_step = first_step
        self.max_steps = max_steps
        self.compile_mode = compile  # nn.Module has a method compile
        self.backend = backend
        self.name = name
        check_n_steps(n_steps, self.tableau_at(self.tol))
        self.n_evaluations = self.n_rejected = np.zeros(0, dtype=int)

    @property
    def tol(self) -> float:
        """Tolerance in training mode."""
        return self._tol

    @tol.setter
    def tol(self, value: float) -> None:
        self._tol = _check_positive(value, "tol")

    @property
    def predict_tol(self) -> float:
        """Tolerance in evaluation mode."""
        return self._tol if self._predict_tol is None else self._predict_tol

    @predict_tol.setter
    def predict_tol(self, value: float | None) -> None:
        self._predict_tol = None if value is None else _check_positive(value, "predict_tol")

    def method_at(self, tol: float) -> str:
        """Return the name of the method that ``method`` stands for at a tolerance."""
        return self.tableau_at(tol).name

    def tableau_at(self, tol: float) -> Tableau:
        """Return the method that ``method`` stands for at a tolerance."""
        return choose_tableau(tol, self.method, backend=find_backend(self.backend, self.gradient))

    def forward(self, h: Tensor) -> Tensor:
        """Return h(1), of h's shape and, at least, float32."""
        if torch.compiler.is_compiling():  # steps that depend on h are not to be traced
            opaque: Callable[[Tensor], Tensor] = torch.compiler.disable(self._solve)
            return opaque(h)
        return self._solve(h)

    def _solve(self, h: Tensor) -> Tensor:
        tol = self._tol_now
        y0 = h if h.dtype == torch.float64 else h.float()
        precision = settle_precision(self._precision(y0), tol, self.name)
        tape = current_tape()
        if tape is not None and (expected := expect_of(self)) is not None:
            return tape.solve(self, expected, y0, precision)
        solution = solve(
            self.func,
            y0,
            rtol=tol,
            atol=tol,
            method=self.method,
            n_steps=self.n_steps,
            gradient=self.gradient,
            precision=precision,
            first_step=self._first_step_now,
            max_steps=self.max_steps,
            compile=self.compile_mode,
            backend=self.backend,
            name=self.name,
        )
        self.n_evaluations = solution.n_evaluations
        self.n_rejected = solution.n_rejected
        return solution.y

    def estimate_error(self, h: Tensor) -> Tensor:
        """Return the error of one step over the whole interval, in units of the tolerance.

        It is what the solver judges such a step by, at the tolerance of the mode that the block is
        in: where it is at most 1, the step is accepted. Gradients pass it, so that training can
        make the block's dynamics calm (Pal et al. [1]_ do so with the errors of all steps).

        Parameters
        ----------
        h : Tensor of shape (n, ...)
            Input of the block.

        Returns
        -------
        Tensor of shape (n,)
            In [0, inf), of h's dtype, at least float32.

        Raises
        ------
        ValueError
            If the block's method takes fixed steps, which cannot judge their error.

        References
        ----------
        .. [1] Pal et al., "Opening the Blackbox: Accelerating Neural Differential Equations by
           Regularizing Internal Solver Heuristics", ICML 2021.

        Examples
        --------
        >>> import torch
        >>> from bloodseg.ode import ODEBlock
        >>> class Decay(torch.nn.Module):
        ...     def forward(self, t, h):
        ...         return -h
        >>> block = ODEBlock(Decay(), tol=1e-2, method="bosh3").eval()
        >>> round(float(block.estimate_error(torch.ones(1, 1))), 2)  # guard: h^3 / 24
        2.08
        """
        tol = self._tol_now
        tableau = self.tableau_at(tol)
        if not tableau.adaptive:
            raise ValueError(
                f"{self.name}: method {tableau.name!r} takes fixed steps, which cannot judge their "
                "error. Take method='auto', or one that controls its error."
            )
        y0 = h if h.dtype == torch.float64 else h.float()
        precision = settle_precision(self._precision(y0), tol, self.name)
        with fix_arithmetic(y0.device, precision):
            rhs = RightHandSide(self.func, precision, tol)
            return estimate_error(rhs, tableau, y0, rtol=tol, atol=tol)

    @property
    def _tol_now(self) -> float:
        return self.tol if self.training else self.predict_tol

    @property
    def _first_step_now(self) -> float | None:
        return self.first_step if self._tol_now == self.tol else None

    def extra_repr(self) -> str:
        """Return the settings, for print."""
        method = self.method.name if isinstance(self.method, Tableau) else self.method
        text = f"tol={self.tol:g}, predict_tol={self.predict_tol:g}, method={method!r}"
        return text if self.n_steps is None else f"{text}, n_steps={self.n_steps}"

    def _precision(self, y0: Tensor) -> str | None:
        device = y0.device.type
        if self.precision is not None or not torch.is_autocast_enabled(device):
            return self.precision
        return str(torch.get_autocast_dtype(device)).removeprefix("torch.")


def expect_of(block: ODEBlock) -> Expectation | None:
    """Return what a block most probably does; None where that depends on its state."""
    tol = block._tol_now
    theirs = find_backend(block.backend, block.gradient) != "bloodseg"
    if theirs or tol < tolerance_floor("float32"):  # each solve warns of such a tolerance
        return None
    interval = Interval(0.0, 1.0, tol, tol, block.max_steps, block._first_step_now)
    return expect(interval, block.tableau_at(tol))


def _check_positive(value: float, name: str) -> float:
    check_positive(value, name)
    return float(value)
