"""Time calls side by side or run them apart, and say on what machine."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bloodseg._hardware import cpu_has_fast_bfloat16, name_processor


def interleaved(
    calls: dict[str, Callable[[], Any]], device: torch.device, repeats: int
) -> dict[str, float]:
    """Return the median seconds of each call.

    The calls take turns, so that a machine whose speed drifts slows all of them. The first turn
    warms up.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(repeats + 1):
        for name, call in calls.items():
            elapsed = seconds_of(call, device)
            if repeat:
                seconds[name].append(elapsed)
    return {name: statistics.median(values) for name, values in seconds.items()}


def seconds_of(call: Callable[[], Any], device: torch.device) -> float:
    """Return the seconds of one call."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def run_apart(benchmark: str, *options: Any) -> Any:
    """Return what a benchmark prints last, as JSON, in a process of its own."""
    command = [sys.executable, "-m", f"benchmarks.{benchmark}", *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def peak_of_process() -> int:
    """Return the peak of resident memory in bytes. Linux; getrusage's includes the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


def machine(device: torch.device) -> str:
    """Return what the numbers were measured on, in a line."""
    software = f"torch {torch.__version__}"
    name = name_processor(device)
    if device.type == "cuda":
        return f"{name}, {software}"
    bfloat16 = "bfloat16 in hardware: " + ("yes" if cpu_has_fast_bfloat16() else "no")
    return f"{name}, {torch.get_num_threads()} threads, {bfloat16}, {software}"


def write_json(path: str | Path | None, **results: Any) -> None:
    """Write results where asked to."""
    if path is not None:
        Path(path).write_text(json.dumps(results, indent=1) + "\n")
