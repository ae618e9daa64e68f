"""The explicit midpoint method, order 2, fixed steps."""

from fractions import Fraction as F

from ._tableau import make_tableau

MIDPOINT = make_tableau("midpoint", 2, [[], [F(1, 2)]], [0, 1], source="Runge, Math. Ann. 46, 1895")
