"""The examples of docs/solver.md run, and give what the page says."""

import re
from pathlib import Path

import numpy as np
import pytest
from ode_problems import double

from bloodseg.ode import solve

PAGE = Path(__file__).parents[2] / "docs/solver.md"


def test_the_method_of_ones_own():
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    names = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert names["solution"].method == "ssprk3"
    assert names["solution"].y.item() == pytest.approx(np.exp(-1), abs=1e-4)


def test_the_numbers_of_fixed_steps():
    steep, y0, rk4 = lambda t, y: -10 * y, double([[1.0]]), {"method": "rk4"}
    assert solve(steep, y0, 0, 2.5, **rk4, n_steps=1).y.item() == pytest.approx(14e3, rel=0.01)
    assert abs(solve(steep, y0, 0, 10, **rk4, n_steps=100).y.item()) < 1e-6
