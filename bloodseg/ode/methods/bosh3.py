"""Bogacki and Shampine's pair of orders 3(2)."""

from fractions import Fraction as F

from ._tableau import make_tableau

BOSH3 = make_tableau(
    "bosh3",
    3,
    [[], [F(1, 2)], [0, F(3, 4)], [F(2, 9), F(1, 3), F(4, 9)]],
    [F(2, 9), F(1, 3), F(4, 9), 0],
    [F(7, 24), F(1, 4), F(1, 3), F(1, 8)],
    2,
    # For dy/dt = z y the pair's estimate is (z^3 + z^4) / 24, nothing at z = -1; this one, of the
    # same size for small z, is z^3 / 24.
    guard=[F(1, 18), F(-3, 18), F(2, 18), 0],
    whole_interval_tol=1e-3,
    source="Bogacki and Shampine, Appl. Math. Lett. 2 (4), 1989",
)
