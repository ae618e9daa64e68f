"""Euler's method, order 1, fixed steps."""

from ._tableau import make_tableau

EULER = make_tableau("euler", 1, [[]], [1], source="Euler, Institutiones calculi integralis, 1768")
