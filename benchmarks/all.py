"""All benchmarks of speed in one run, for when a machine is at hand for minutes.

    python -m benchmarks.all [--device cuda] [--seconds 470] [--json FILE]

Runs `benchmarks.network`, `.training`, `.slides` and `.ode`, each in a process of its own, and
writes what they found after each: a part that fails, or that the time does not suffice for, says so
in its place and costs no other.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from bloodseg._hardware import choose_device

from ._timing import machine, write_json

# What each takes beside the device, most important first.
PARTS = {
    "network": [],
    "training": ["--repeats", "3"],
    "slides": ["--sides", "4096", "--width", "32"],
    "ode": ["--no-sweep", "--repeats", "5"],
}


def run(part: str, options: list[str], seconds: float) -> dict[str, Any]:
    """Return what a benchmark found in so many seconds at most, or why it found nothing."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "results.json"
        command = [sys.executable, "-m", f"benchmarks.{part}", "--json", str(file), *options]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            return {"error": f"not done after {seconds:.0f} s"}
        if done.returncode:
            return {"error": done.stderr[-2000:]}
        return json.loads(file.read_text()) | {"seconds of the part": time.monotonic() - start}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--seconds", type=float, default=470, help="for all parts together")
    parser.add_argument("--quick", action="store_true", help="each part as its --quick has it")
    parser.add_argument("--json", default="benchmarks.json", help="where to write")
    arguments = parser.parse_args(argv)
    device = choose_device(arguments.device)
    end = time.monotonic() + arguments.seconds
    results: dict[str, Any] = {}
    for part in arguments.parts:
        options = ["--quick"] if arguments.quick else PARTS[part]
        options = [*options, "--device", str(device)]
        results[part] = run(part, options, max(end - time.monotonic(), 0.01))
        print(part, results[part].get("error", "done"), flush=True)
        write_json(arguments.json, machine=machine(device), torch=torch.__version__, **results)
    return int(any("error" in found for found in results.values()))


if __name__ == "__main__":
    sys.exit(main())
