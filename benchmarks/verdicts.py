"""How often the verdicts of studies are wrong, by simulation.

    python -m benchmarks.verdicts

Differences between two networks are drawn with a known truth: one part for each test image, one
for each seed, one for each of both, "as measured" of the sizes that mean IoU has on smear256
(NODEs-UNet against U-Net, trained to the end). Each verdict is counted where the truth is the
nearest for which it would be wrong, so its share there should stay below 5 %; beside it stands its
share where it is right. Verdicts of studies take five seeds; here they are counted with any number.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from bloodseg.study import compare
from bloodseg.study._statistics import FEWEST_SEEDS, decide, falls_short, is_equal

from ._tables import print_heading, print_row
from ._timing import write_json

_ROW = ("a", "b", "pixel_accuracy")
_EFFECT, _MARGIN = 0.02, 0.005  # about the paper's gain in mean IoU, and what counts as equal
_PIXELS = 100_000
_N_DRAWS = 500

# Standard deviations of the parts of a difference: of images, of seeds, of both together.
NOISE = {
    "as measured": (0.002, 0.003, 0.011),
    "seeds alone": (0.0, 0.005, 0.0),
    "images alone": (0.015, 0.0, 0.005),
}


def draw_row(difference, noise, n_seeds, n_images, rng):
    """Return the row of `compare` for two networks that differ by so much in truth."""
    of_image, of_seed, of_both = noise
    parts = (
        rng.normal(scale=of_image, size=(1, n_images)),
        rng.normal(scale=of_seed, size=(n_seeds, 1)),
        rng.normal(scale=of_both, size=(n_seeds, n_images)),
    )
    first, second = np.zeros((2, n_seeds, n_images, 3, 3))
    for matrices, share in ((first, 0.9 + difference + sum(parts)), (second, 0.9)):
        hits = np.round(_PIXELS * np.clip(share, 0, 1))
        matrices[..., 0, 0], matrices[..., 0, 1] = hits, _PIXELS - hits
    table = compare(
        {"a": first, "b": second},
        [("a", "b")],
        effects={_ROW: _EFFECT},
        margins={_ROW: _MARGIN},
        n_draws=_N_DRAWS,
        random_state=int(rng.integers(2**31)),
    )
    # As if there were seeds enough: how many that is, is the question.
    return table.assign(n_seeds=max(n_seeds, FEWEST_SEEDS)).iloc[0]


def simulate(noise, n_seeds, n_images, n_repeats, rng):
    """Return how often the interval covers the truth, and each verdict's share, wrong and right."""

    def rows(difference):
        return [draw_row(difference, noise, n_seeds, n_images, rng) for _ in range(n_repeats)]

    same, at_margin, at_effect = rows(0.0), rows(_MARGIN), rows(_EFFECT)
    found = {
        "covered": [row.low <= 0 <= row.high for row in same],
        "holds, wrongly": [decide(row) == 1 for row in same],
        "holds, rightly": [decide(row) == 1 for row in at_effect],
        "less, wrongly": [falls_short(row) for row in at_effect],
        "less, rightly": [falls_short(row) for row in same],
        "equal, wrongly": [is_equal(row) for row in at_margin],
        "equal, rightly": [is_equal(row) for row in same],
    }
    return {name: float(np.mean(values)) for name, values in found.items()}


def main() -> None:
    """Print a table, and write it as JSON where it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few repeats, three seeds")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    repeats, numbers = (20, (3,)) if arguments.quick else (400, (3, 5, 10))
    results = []
    for name, noise in NOISE.items():
        for n_seeds in numbers:
            shares = simulate(noise, n_seeds, arguments.images, repeats, rng)
            results.append({"noise": name, "seeds": n_seeds, **shares})
            if len(results) == 1:
                print_heading(results[0])
            print_row([name, n_seeds, *(f"{value:.1%}" for value in shares.values())])
    write_json(arguments.json, rows=results)


if __name__ == "__main__":
    main()
