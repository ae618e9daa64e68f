"""Dormand and Prince's pair of orders 5(4)."""

from fractions import Fraction as F

from ._tableau import Number, make_tableau

_LAST: list[Number] = [F(35, 384), 0, F(500, 1113), F(125, 192), F(-2187, 6784), F(11, 84)]
# The third divided difference of the slopes at 0, 3/10, 8/9 and 1.
_THIRD_DIFFERENCE = [F(-15, 4), F(0), F(3000, 371), F(0), F(-3645, 212), F(0), F(90, 7)]

DOPRI5 = make_tableau(
    "dopri5",
    5,
    [
        [],
        [F(1, 5)],
        [F(3, 40), F(9, 40)],
        [F(44, 45), F(-56, 15), F(32, 9)],
        [F(19372, 6561), F(-25360, 2187), F(64448, 6561), F(-212, 729)],
        [F(9017, 3168), F(-355, 33), F(46732, 5247), F(49, 176), F(-5103, 18656)],
        _LAST,
    ],
    [*_LAST, 0],
    [
        F(5179, 57600),
        0,
        F(7571, 16695),
        F(393, 640),
        F(-92097, 339200),
        F(187, 2100),
        F(1, 40),
    ],
    4,
    guard=[weight / 14000 for weight in _THIRD_DIFFERENCE],
    whole_interval_tol=1e-5,
    source="Dormand and Prince, J. Comput. Appl. Math. 6 (1), 1980",
)
