"""The classic Runge-Kutta method, order 4, fixed steps."""

from fractions import Fraction as F

from ._tableau import make_tableau

RK4 = make_tableau(
    "rk4",
    4,
    [[], [F(1, 2)], [0, F(1, 2)], [0, 0, 1]],
    [F(1, 6), F(1, 3), F(1, 3), F(1, 6)],
    source="Kutta, Z. Math. Phys. 46, 1901",
)
