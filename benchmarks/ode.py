"""Cost of a solve at each position of the U: against torchdiffeq, and against bare f.

    python -m benchmarks.ode [--quick] [--device cpu] [--precision bfloat16] [--json FILE]

States and right-hand sides are those of a NODEs-UNet. All cases of a position take turns; medians.
The achieved error is the root mean square distance to a solution in float64 at tolerance 1e-8,
in units of the state's root mean square. torchdiffeq comes twice: as everybody calls it (dopri5, no
options), and tuned: of its adaptive methods with `step_t` at t1, channels_last or not, over the
same tolerances as ours, the fastest whose achieved error is no larger.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchdiffeq import odeint

from bloodseg._hardware import choose_device
from bloodseg.networks import POSITIONS
from bloodseg.networks._blocks import ConvODEFunction
from bloodseg.networks._unet import compute_depth
from bloodseg.ode import choose_method, solve
from bloodseg.ode._arithmetic import as_column
from bloodseg.ode.methods import TABLEAUS

from ._tables import print_heading, print_row
from ._timing import interleaved, machine, seconds_of, write_json

TOLERANCES = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 1e-5)
METHODS_TOLERANCES = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10)
ADAPTIVE = tuple(name for name, method in TABLEAUS.items() if method.adaptive)
TORCHDIFFEQ = ("bosh3", "dopri5", "adaptive_heun")
TOLERANCE = 1e-3
PAPER = (7.35, 3.73, 1.94, 1.03, 0.61, 1.06, 1.95, 3.72, 7.35)  # Table 1, seconds; U-Net 0.15


@dataclass
class Problem:
    """A state and a right-hand side as at a position, and the solution."""

    position: int
    func: ConvODEFunction
    y0: Tensor
    end: Tensor

    def error(self, y: Tensor) -> float:
        """Return the distance to the solution in units of the state's size."""
        return float(size(y.double() - self.end) / size(self.end))


def size(y: Tensor) -> Tensor:
    return y.square().mean().sqrt()


def make_problem(position: int, arguments: argparse.Namespace, device: torch.device) -> Problem:
    depth = compute_depth(position)
    channels, side = arguments.width * 2**depth, arguments.side // 2**depth
    torch.manual_seed(position)
    func = ConvODEFunction(channels)
    layers = func.first, func.second
    for layer in layers:  # as after training: time and biases matter
        nn.init.normal_(layer.time, std=0.01)
        nn.init.normal_(layer.bias, std=0.01)
    func.to(device).to(memory_format=torch.channels_last).requires_grad_(False)
    y0 = torch.randn(arguments.batch, channels, side, side).relu().to(device)
    y0 = y0.contiguous(memory_format=torch.channels_last)
    for _ in range(4):  # until the block moves its state as far as a trained one does
        moved = size(solve(func, y0[:1], rtol=1e-4, atol=1e-4).y - y0[:1]) / size(y0[:1])
        factor = float(arguments.change / moved) ** 0.5
        for layer in layers:
            layer.gain *= factor
    exact = copy.deepcopy(func).double()
    ends = [
        solve(exact, sample, rtol=1e-8, atol=1e-8, method="dopri8").y
        for sample in y0.double().split(1)
    ]
    return Problem(position, func, y0, torch.cat(ends))


def ours(problem: Problem, **settings: Any) -> Callable[[], Any]:
    settings = {"rtol": TOLERANCE, "atol": TOLERANCE} | settings
    return lambda: solve(problem.func, problem.y0, **settings)


def theirs(
    problem: Problem,
    method: str,
    tol: float,
    *,
    dtype: torch.dtype | None = None,
    channels_last: bool = True,
    stop_at_end: bool = True,
    n_steps: int | None = None,
) -> Callable[[], Tensor]:
    """Return torchdiffeq's solve of the same f, its weights prepared once, as ours are."""
    weights, evaluate = problem.func.prepare(dtype, 0.0)
    y0 = problem.y0 if channels_last else problem.y0.contiguous()
    ends = torch.tensor([0.0, 1.0], device=y0.device)
    options: dict[str, Any] = {}
    if n_steps is not None:
        options["step_size"] = 1 / n_steps
    elif stop_at_end:
        options["step_t"] = ends[1:]

    def func(t: Tensor, y: Tensor) -> Tensor:
        return evaluate(as_column(t.to(y.dtype).expand(len(y)), y), y, *weights).to(y.dtype)

    return lambda: odeint(func, y0, ends, rtol=tol, atol=tol, method=method, options=options)[-1]


def tuned(problem: Problem, error: float) -> tuple[Any, str]:
    """Return torchdiffeq at its best for an achieved error, and what that is."""
    best, name, least = None, "none reaches it", float("inf")
    for method in TORCHDIFFEQ:
        loosest = (
            tol for tol in TOLERANCES if problem.error(theirs(problem, method, tol)()) <= error
        )
        tol = next(loosest, None)  # tighter ones only cost more
        for layout in ("channels_last", "contiguous") if tol is not None else ():
            call = theirs(problem, method, tol, channels_last=layout == "channels_last")
            call()
            elapsed = seconds_of(call, problem.y0.device)
            if elapsed < least:
                best, name, least = call, f"{method} {tol:g} {layout}", elapsed
    return best, name


def bare(problem: Problem, dtype: torch.dtype | None) -> dict[str, Callable[[], Any]]:
    """Return evaluations of f for the whole batch, at once and sample by sample."""
    weights, evaluate = problem.func.prepare(dtype, 0.0)
    y = problem.y0.to(dtype)
    t = problem.y0.new_zeros(len(y), 1, 1, 1)
    samples = y.split(1)
    return {
        "batched": lambda: evaluate(t, y, *weights),
        "single": lambda: [evaluate(t[:1], sample, *weights) for sample in samples],
    }


def measure(problem: Problem, precision: str | None, repeats: int) -> dict[str, Any]:
    device = problem.y0.device
    dtype = getattr(torch, precision) if precision else None
    solution = ours(problem, precision=precision)()
    error, evaluations = problem.error(solution.y), float(solution.n_evaluations.mean())
    in_float32 = problem.error(ours(problem)().y)
    best, what = tuned(problem, max(in_float32, error))
    calls = {
        "ours": ours(problem, precision=precision, compile=False),
        "ours, compiled": ours(problem, precision=precision, compile=True),
        "torchdiffeq, no options": theirs(
            problem, "dopri5", TOLERANCE, channels_last=False, stop_at_end=False
        ),
        **{f"bare f, {name}": call for name, call in bare(problem, dtype).items()},
    }
    if best is not None:
        calls["torchdiffeq, tuned"] = best
    if dtype is not None:
        same = max(1, round(evaluations / 4))
        calls["torchdiffeq, f lowered"] = theirs(problem, "bosh3", TOLERANCE, dtype=dtype)
        calls["torchdiffeq, rk4 lowered"] = theirs(problem, "rk4", 1, dtype=dtype, n_steps=same)
    seconds = interleaved(calls, device, repeats)
    fastest = min(seconds["ours"], seconds["ours, compiled"])
    floor = min(seconds["bare f, batched"], seconds["bare f, single"]) * evaluations
    row: dict[str, Any] = {"position": problem.position, "precision": precision or "float32"}
    row |= {"error": error, "evaluations": evaluations, "method": solution.method, "tuned": what}
    row |= {f"{name}, s": value for name, value in seconds.items()}
    row["shares"] = where_time_goes(problem, precision)
    row["over bare f"] = seconds["ours"] / floor
    row["over bare f, compiled"] = seconds["ours, compiled"] / floor
    for name in ("no options", "tuned", "f lowered", "rk4 lowered"):
        if f"torchdiffeq, {name}" in seconds:
            row[f"{name} over ours"] = seconds[f"torchdiffeq, {name}"] / fastest
            row[f"{name} over ours, eager"] = seconds[f"torchdiffeq, {name}"] / seconds["ours"]
    return row


PARTS = {
    "f": ("convolution", "silu", "silu_", "aten::add", "aten::mul"),
    "stage sums": ("addmv", "aten::mv", "bmm"),
    "norms": ("norm",),
    "copies and casts": ("copy_",),
}


def where_time_goes(problem: Problem, precision: str | None) -> dict[str, float]:
    """Return the shares of a solve's time by a profile of torch's operations; the rest is Python.

    f's activation and time enter by the same additions as single-slope stage sums do; they count
    as f's.
    """
    call = ours(problem, precision=precision, compile=False)
    call()
    with torch.profiler.profile() as profile:
        wall = 1e6 * seconds_of(call, problem.y0.device)
    shares = dict.fromkeys((*PARTS, "other operations"), 0.0)
    for event in profile.key_averages():
        name = event.key.lower()
        part = next((p for p, marks in PARTS.items() if name.endswith(marks)), None)
        shares[part or "other operations"] += event.self_cpu_time_total / wall
    return shares | {"Python": max(0.0, 1 - sum(shares.values()))}


def sweep(problem: Problem, tolerances: tuple[float, ...]) -> list[dict[str, Any]]:
    """Cost against achieved error for every adaptive method of both solvers."""
    rows = []
    for tol in tolerances:
        for method in ADAPTIVE:
            for backend in ("bloodseg", "torchdiffeq"):
                if backend == "torchdiffeq" and method in ("kutta3", "tsit5"):
                    continue
                name = "adaptive_heun" if method == "heun" else method
                call: Any = ours(problem, rtol=tol, atol=tol, method=method)
                if backend == "torchdiffeq":
                    call = theirs(problem, name, tol)
                try:
                    end = call()
                except (AssertionError, FloatingPointError):  # torchdiffeq gives up so
                    continue
                elapsed = seconds_of(call, problem.y0.device)
                row = {"position": problem.position, "tol": tol, "method": method}
                row |= {"backend": backend, "seconds": elapsed}
                row["error"] = problem.error(end if backend == "torchdiffeq" else end.y)
                if backend == "bloodseg":
                    row["evaluations"] = float(end.n_evaluations.mean())
                rows.append(row)
    return rows


def methods_table(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """What each method needs at each tolerance, in float64: the table behind "auto"."""
    problems = []
    for change in (0.6,) if arguments.quick else (0.3, 0.6):
        settings = argparse.Namespace(width=8, side=64, batch=2, change=change)
        for position in (1, 3, 5):
            problem = make_problem(position, settings, torch.device("cpu"))
            exact = copy.deepcopy(problem.func).double()
            y0 = problem.y0.double()
            end = solve(exact, y0, rtol=1e-12, atol=1e-12, method="dopri8").y
            problems.append(Problem(position, exact, y0, end))
    rows = []
    for tol in METHODS_TOLERANCES[:: 3 if arguments.quick else 1]:
        for method in ADAPTIVE:
            if method == "heun" and tol < 1e-5:  # hundreds of steps
                continue
            ends = [ours(each, rtol=tol, atol=tol, method=method)() for each in problems]
            evaluations = statistics.mean(end.n_evaluations.mean() for end in ends)
            error = max(each.error(end.y) for each, end in zip(problems, ends, strict=True))
            rows.append({"tol": tol, "method": method, "evaluations": evaluations, "error": error})
    return rows


def print_methods(rows: list[dict[str, Any]]) -> None:
    methods = list(dict.fromkeys(row["method"] for row in rows))
    print("\nevaluations of f at each tolerance, in brackets the largest achieved error")
    print_heading(["tolerance", *methods, '"auto" takes'])
    for tol in dict.fromkeys(row["tol"] for row in rows):
        cells = {
            row["method"]: f"{row['evaluations']:.1f} ({row['error']:.1e})"
            for row in rows
            if row["tol"] == tol
        }
        shown = (cells.get(method, "") for method in methods)
        print_row([f"{tol:g}", *shown, choose_method(tol)])


def print_rows(rows: list[dict[str, Any]]) -> None:
    columns = {
        "position": "{:d}",
        "evaluations": "{:.1f}",
        "error": "{:.1e}",
        "ours, s": "{:.3f}",
        "ours, compiled, s": "{:.3f}",
        "over bare f": "{:.2f}",
        "over bare f, compiled": "{:.2f}",
        "tuned over ours": "{:.2f}",
        "tuned over ours, eager": "{:.2f}",
        "no options over ours": "{:.2f}",
        "f lowered over ours": "{:.2f}",
        "rk4 lowered over ours": "{:.2f}",
        "tuned": "{}",
    }
    shown = {name: form for name, form in columns.items() if any(name in row for row in rows)}
    print_heading(shown)
    for row in rows:
        print_row(form.format(row[name]) if name in row else "" for name, form in shown.items())
    for row in rows:
        shares = ", ".join(f"{name} {value:.0%}" for name, value in row["shares"].items())
        print(f"where the time goes at position {row['position']}: {shares}")
    seconds = [min(row["ours, s"], row["ours, compiled, s"]) for row in rows]
    print(f"slowest position over fastest: {max(seconds) / min(seconds):.2f} (paper: 12)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small and narrow, 3 repeats")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", nargs="*", default=["float32"], help="of f, any number")
    parser.add_argument("--positions", type=int, nargs="*", default=POSITIONS)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--change", type=float, default=0.3, help="share by which f moves a state")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--no-sweep", action="store_true", help="leave out cost against error")
    parser.add_argument("--json", help="write the rows there, too")
    arguments = parser.parse_args()
    tolerances = TOLERANCES
    if arguments.quick:
        arguments.repeats = 3
        arguments.side, arguments.width, tolerances = 64, 8, TOLERANCES[1:5]
    device = choose_device(arguments.device)
    print(machine(device), flush=True)
    torch.set_grad_enabled(False)
    rows, swept = [], []
    for precision in arguments.precision:
        print(f"\nf in {precision}, states of {arguments.batch} samples, tolerance {TOLERANCE:g}")
        lowered = None if precision == "float32" else precision
        of_precision = []
        for position in arguments.positions:
            problem = make_problem(position, arguments, device)
            of_precision.append(measure(problem, lowered, arguments.repeats))
        print_rows(of_precision)
        rows += of_precision
    if not arguments.no_sweep:
        for position in sorted({1, 2, 3, 4, 5} & set(arguments.positions)):  # 6 to 9 are alike
            swept += sweep(make_problem(position, arguments, device), tolerances)
    methods = methods_table(arguments)
    print_methods(methods)
    results = {"rows": rows, "sweep": swept, "methods": methods, "paper": PAPER}
    write_json(arguments.json, machine=machine(device), **results)


if __name__ == "__main__":
    main()
