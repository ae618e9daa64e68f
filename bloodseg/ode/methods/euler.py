"""Euler's method, order 1, fixed steps."""

from ._tableau import tableau

EULER = tableau("euler", 1, [[]], [1], source="Euler, Institutiones calculi integralis, 1768")
