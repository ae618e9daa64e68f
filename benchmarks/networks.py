"""Time of a training step and of a prediction for each network, as ratios to the plain U-Net's.

    python -m benchmarks.networks [--quick] [--repeats 9] [--device cpu] [--json FILE]

The cases are interleaved, so that a machine whose speed drifts slows all of them; medians.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time

import torch
from torch.nn import functional

from bloodseg._hardware import choose_device, choose_precision
from bloodseg.networks import make_network

# Width, side of the crops, tolerance: from what two cores train in minutes to the paper's.
CASES = ((16, 128, 1e-2), (32, 128, 1e-3), (32, 256, 1e-3))
NETWORKS = ("unet", "resnet-unet", "nodes-unet")


def make_case(name, width, crop, tolerance, device, precision, batch_size):
    torch.manual_seed(0)
    extra = {"ode_tol": tolerance} if name == "nodes-unet" else {}
    network = make_network(name, width=width, precision=precision, **extra).to(device)
    network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    images = torch.rand(batch_size, 3, crop, crop, device=device)
    masks = torch.randint(0, 3, (batch_size, crop, crop), device=device)

    def train():
        network.train()
        optimizer.zero_grad()
        functional.cross_entropy(network(images), masks).backward()
        optimizer.step()

    def predict():
        network.eval()
        with torch.inference_mode():
            network(images)

    return network, train, predict


def seconds(function, device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def measure(width, crop, tolerance, *, device, precision, batch_size, repeats):
    settings = (width, crop, tolerance, device, precision, batch_size)
    cases = {name: make_case(name, *settings) for name in NETWORKS}
    times = {(name, what): [] for name in NETWORKS for what in ("train", "predict")}
    for repeat in range(repeats + 1):  # the first warms up
        for name, (_, train, predict) in cases.items():
            for what, function in (("train", train), ("predict", predict)):
                elapsed = seconds(function, device)
                if repeat:
                    times[name, what].append(elapsed)
    blocks = cases["nodes-unet"][0].ode_blocks
    row = {"width": width, "crop": crop, "tolerance": tolerance, "batch_size": batch_size}
    row |= {f"evaluations_{p}": float(b.n_evaluations.mean()) for p, b in blocks.items()}
    for (name, what), values in times.items():
        base = statistics.median(times["unet", what])
        row[f"{name} {what} s"] = statistics.median(values)
        row[f"{name} {what} ratio"] = statistics.median(values) / base
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the smallest case, three repeats")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", help="write the rows there, too")
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    precision = choose_precision(device)
    machine = platform.processor() if device.type == "cpu" else torch.cuda.get_device_name(device)
    print(f"{machine or platform.machine()}, {torch.get_num_threads()} threads, {precision}")
    rows = []
    for case in CASES[:1] if arguments.quick else CASES:
        row = measure(
            *case,
            device=device,
            precision=precision,
            batch_size=arguments.batch_size,
            repeats=3 if arguments.quick else arguments.repeats,
        )
        rows.append(row)
        print(f"\nwidth {case[0]}, crop {case[1]}, tolerance {case[2]:g}")
        for name in NETWORKS:
            print(
                f"  {name:12} train {row[f'{name} train s']:7.3f} s "
                f"({row[f'{name} train ratio']:4.2f} x), predict "
                f"{row[f'{name} predict s']:7.3f} s ({row[f'{name} predict ratio']:4.2f} x)",
                flush=True,
            )
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump({"machine": machine, "precision": precision, "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
