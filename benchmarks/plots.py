"""Draw what `python -m benchmarks.ode --json FILE` measured.

python -m benchmarks.plots FILE -o docs/plots
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt

COLOURS = {
    "heun": "C0",
    "kutta3": "C5",
    "bosh3": "C1",
    "dopri5": "C2",
    "tsit5": "C3",
    "dopri8": "C4",
}


def cost_against_error(rows: list[dict[str, Any]], file: Path) -> None:
    positions = sorted({row["position"] for row in rows})
    figure, axes = plt.subplots(
        1, len(positions), figsize=(2 + 3.4 * len(positions), 4), sharex=True, squeeze=False
    )
    for axis, position in zip(axes[0], positions, strict=True):
        for method, colour in COLOURS.items():
            for backend, style in (("bloodseg", "o-"), ("torchdiffeq", "x:")):
                points = [
                    (row["error"], 1e3 * row["seconds"])
                    for row in rows
                    if (row["position"], row["method"], row["backend"])
                    == (position, method, backend)
                ]
                if points:
                    label = f"{method}, {backend}"
                    axis.plot(*zip(*points, strict=True), style, color=colour, label=label, ms=4)
        axis.set(xscale="log", yscale="log", title=f"position {position}", xlabel="achieved error")
        axis.invert_xaxis()
        axis.grid(alpha=0.3, which="both")
    axes[0, 0].set_ylabel("milliseconds a batch")
    axes[0, -1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    _save(figure, file)


def cost_of_positions(
    rows: list[dict[str, Any]], paper: list[float], unet: float, file: Path
) -> None:
    figure, (ours, theirs) = plt.subplots(1, 2, figsize=(10, 4))
    precisions = list(dict.fromkeys(row["precision"] for row in rows))
    for i, precision in enumerate(precisions):
        chosen = [row for row in rows if row["precision"] == precision]
        seconds = [min(row["ours, s"], row["ours, compiled, s"]) for row in chosen]
        width = 0.8 / len(precisions)
        at = [row["position"] + (i - (len(precisions) - 1) / 2) * width for row in chosen]
        ours.bar(at, [1e3 * s for s in seconds], width, label=f"f in {precision}")
    ours.set(title="a solve here", ylabel="milliseconds a batch", xlabel="position")
    ours.legend()
    theirs.bar(range(1, 10), paper, color="C7")
    theirs.axhline(unet, color="k", ls=":", label="U-Net")
    theirs.set(title="a whole network in the paper (Table 1)", ylabel="s for 20 images")
    theirs.set_xlabel("position of the ODE-block")
    theirs.legend()
    for axis in (ours, theirs):
        axis.set_xticks(range(1, 10))
        axis.grid(alpha=0.3, axis="y")
    _save(figure, file)


def _save(figure: Any, file: Path) -> None:
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/plots"))
    arguments = parser.parse_args()
    found = json.loads(arguments.file.read_text())
    arguments.output.mkdir(parents=True, exist_ok=True)
    cost_of_positions(
        found["rows"], found["paper"], 0.15, arguments.output / "cost-of-positions.png"
    )
    if found["sweep"]:
        cost_against_error(found["sweep"], arguments.output / "cost-against-error.png")


if __name__ == "__main__":
    main()
