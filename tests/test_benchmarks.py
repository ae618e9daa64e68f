"""The benchmarks run; what they measure is for them to say."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bloodseg.ode import choose_method

ROOT = Path(__file__).parents[1]


def run(module, tmp_path, *options):
    file = tmp_path / "results.json"
    command = [sys.executable, "-m", f"benchmarks.{module}", "--quick", "--json", file, *options]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert output.returncode == 0, output.stderr
    return json.loads(file.read_text())


@pytest.fixture(scope="module")
def solves(tmp_path_factory):
    return run("ode", tmp_path_factory.mktemp("ode"), "--positions", "1", "5")


def test_the_solver_against_torchdiffeq(solves):
    for row in solves["rows"]:
        assert row["error"] < 1e-2
        assert row["evaluations"] >= 4
        assert row["over bare f"] > 0
        assert row["tuned over ours"] > 0
        assert sum(row["shares"].values()) == pytest.approx(1, abs=0.2)
    backends = {(row["method"], row["backend"]) for row in solves["sweep"]}
    assert ("tsit5", "bloodseg") in backends
    assert ("dopri5", "torchdiffeq") in backends


def test_auto_takes_a_method_of_few_evaluations(solves):
    for tol in {row["tol"] for row in solves["methods"]}:
        cost = {row["method"]: row["evaluations"] for row in solves["methods"] if row["tol"] == tol}
        assert cost[choose_method(tol)] <= 1.5 * min(cost.values())


def test_the_plots(solves, tmp_path):
    file = tmp_path / "ode.json"
    rows = [row | {"position": position} for row in solves["rows"] for position in (2, 9)]
    file.write_text(json.dumps(solves | {"rows": rows}))
    command = [sys.executable, "-m", "benchmarks.plots", file, "-o", tmp_path / "plots"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    names = sorted(path.name for path in (tmp_path / "plots").iterdir())
    assert names == ["cost-against-error.png", "cost-of-positions.png"]


def test_whole_networks(tmp_path):
    found = run("network", tmp_path)
    assert found["prediction"]["evaluations"].keys() == {"4", "5", "6"}
    assert found["training"]["torchdiffeq over ours"] > 0
    for block in found["gradients"].values():
        assert block["relative error"] < 1e-4
