"""Peak memory of a training step against depth: residual blocks, and ODE-blocks of as many steps.

    python -m benchmarks.memory --json memory.json

The paper says that ODE-blocks need approximately constant memory. A step of Euler's method is a
residual block that shares its weights with the others, so a U-Net with d residual blocks at
positions 4, 5 and 6 stands beside a NODEs-UNet whose blocks there take d Euler steps: as many
convolutions. Each row is the growth of a fresh process's peak over two training steps: weights'
gradients and activations, without the weights themselves and the optimiser's state.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from bloodseg.networks import NODEsUNet, UNet, make_plain_body
from bloodseg.networks._blocks import ResidualBlock

from ._tables import print_heading, print_row
from ._timing import peak_of_process, run_apart, write_json

DEPTHS = (1, 2, 4, 8, 16)
POSITIONS = (4, 5, 6)
KINDS = ("residual", "checkpoint", "direct", "adjoint")  # the last three: gradients of ODE-blocks


def make_deep_network(kind: str, depth: int, width: int) -> UNet:
    """Return a U-Net with so many residual blocks or Euler steps at each of three positions."""
    if kind != "residual":
        return NODEsUNet(
            width=width,
            ode_positions=POSITIONS,
            ode_method="euler",
            ode_n_steps=depth,
            ode_gradient=kind,
        )

    def body(position: int, channels: int) -> nn.Module:
        if position not in POSITIONS:
            return make_plain_body(position, channels)
        return nn.Sequential(*(ResidualBlock(channels) for _ in range(depth)))

    return UNet(width=width, body=body)


def memory_of(kind: str, depth: int, width: int, side: int) -> int:
    """Return the bytes that two training steps of four crops add to this process's peak."""
    torch.manual_seed(0)
    network = make_deep_network(kind, depth, width)
    crops, labels = torch.rand(4, 3, side, side), torch.randint(3, (4, side, side))
    before = peak_of_process()
    for _ in range(2):
        network.zero_grad()
        functional.cross_entropy(network(crops), labels).backward()
    return peak_of_process() - before


def main(given: list[str] | None = None) -> None:
    """Print a table, and write it as JSON where it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two depths, small")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--side", type=int, default=256, help="pixels of a crop")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--of", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args(given)
    if arguments.of:
        kind, depth = arguments.of
        print(memory_of(kind, int(depth), arguments.width, arguments.side))
        return
    depths = (1, 16) if arguments.quick else DEPTHS
    width, side = (4, 64) if arguments.quick else (arguments.width, arguments.side)
    sizes = ("--width", width, "--side", side)
    rows = []
    print_heading(["blocks or steps", *(f"{kind}, MB" for kind in KINDS)])
    for depth in depths:
        found = {kind: run_apart("memory", *sizes, "--of", kind, depth) for kind in KINDS}
        rows.append({"depth": depth, **found})
        print_row([depth, *(f"{found[kind] / 1e6:.0f}" for kind in KINDS)])
    write_json(arguments.json, rows=rows)


if __name__ == "__main__":
    main()
