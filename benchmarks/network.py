"""Whole networks: predictions, training steps, memory and gradients, against what they replace.

    python -m benchmarks.network [--models DIR --data DIR] [--quick] [--precision bfloat16]
    python -m benchmarks.network --device cuda --parts launches [--compiled]  # a minute

DIR of --models is the output folder of `bloodseg study networks`; --data is a folder of images/ and
masks/ that its networks were not trained on. Without them, networks are fresh and images drawn:
times then say nothing of trained weights.
Times take turns and are medians; memory is the growth of a fresh process's peak.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchdiffeq import odeint, odeint_adjoint

from bloodseg import BloodCellSegmenter
from bloodseg._hardware import choose_device, choose_precision
from bloodseg.datasets import load_folder, make_smears
from bloodseg.metrics import mean_iou
from bloodseg.networks import NODEsUNet, _winograd, for_prediction, make_network
from bloodseg.ode import _replay as replaying
from bloodseg.ode import solve
from bloodseg.ode._arithmetic import as_column
from bloodseg.study import work_of_blocks

from ._launches import compare_launches
from ._timing import interleaved, machine, peak_of_process, run_apart, write_json

TOLERANCE, EXACT = 1e-3, 1e-6

PARTS = ("prediction", "launches", "training", "gradients")
BATCHES = {"cpu": (8,), "cuda": (1, 8, 64)}  # of launches


class EverybodysBlock(nn.Module):
    """An ODE-block as it is usually written: torchdiffeq's dopri5, no options."""

    def __init__(self, func: nn.Module, integrate: Any):
        super().__init__()
        self.func, self.integrate = func, integrate

    def forward(self, h: Tensor) -> Tensor:
        ends = torch.tensor([0.0, 1.0], device=h.device)
        return self.integrate(
            self._Batched(self.func), h, ends, rtol=TOLERANCE, atol=TOLERANCE, method="dopri5"
        )[-1]

    class _Batched(nn.Module):
        def __init__(self, func: nn.Module):
            super().__init__()
            self.func = func

        def forward(self, t: Tensor, h: Tensor) -> Tensor:
            return self.func(as_column(t.to(h.dtype).expand(len(h)), h), h)


def on_torchdiffeq(network: NODEsUNet, integrate: Any = odeint) -> NODEsUNet:
    """Return the same network in float32 with torchdiffeq in its ODE-blocks."""
    twin = copy.deepcopy(network)
    twin.precision = "float32"
    for position, block in twin.ode_blocks.items():
        twin.stages[position - 1][1] = EverybodysBlock(block.func, integrate)
    return twin


def in_precision(network: nn.Module, precision: str) -> nn.Module:
    twin = copy.deepcopy(network)
    twin.precision = precision
    return twin


class Networks:
    """The trained networks, or fresh ones, and images for them."""

    def __init__(self, arguments: argparse.Namespace, device: torch.device):
        self.device = device
        self.segmenters = {}
        if arguments.models is not None:
            for name, label in (("nodes-unet", "nodes-unet"), ("unet", "u-net")):
                files = f"models/networks-*-{label}-{arguments.seed}.safetensors"
                self.segmenters[name] = BloodCellSegmenter.load(next(arguments.models.glob(files)))
            networks = {name: seg.network_ for name, seg in self.segmenters.items()}
        else:
            torch.manual_seed(0)
            networks = {
                name: make_network(name, width=arguments.width) for name in ("nodes-unet", "unet")
            }
        self.nodes, self.unet = (
            network.to(device).to(memory_format=torch.channels_last)
            for network in (networks["nodes-unet"], networks["unet"])
        )
        self.nodes.set_tolerances(TOLERANCE)
        self.data = load_folder(arguments.data) if arguments.data is not None else None
        chosen = self._pictures(arguments)
        stacked = np.stack(chosen).astype(np.float32) / 255
        self.images = torch.from_numpy(stacked).movedim(-1, 1).to(device)
        torch.manual_seed(0)
        self.masks = torch.randint(0, 3, (len(chosen), *self.images.shape[-2:]), device=device)

    def _pictures(self, arguments: argparse.Namespace) -> list[np.ndarray]:
        side = arguments.side
        if self.data is None:
            return list(make_smears(arguments.batch, image_size=side, random_state=0).images)
        large = [im for im in self.data.images if min(im.shape[:2]) >= side]
        pictures = [im[:side, :side] for im in large[: arguments.batch]]
        preprocessor = self.segmenters["nodes-unet"].preprocessor_ if self.segmenters else None
        return pictures if preprocessor is None else list(preprocessor.transform(pictures))


def predictions(given: Networks, precision: str, repeats: int) -> dict[str, Any]:
    nodes, unet = given.nodes.eval(), given.unet.eval()
    cases = {
        "unet float32": in_precision(unet, "float32"),
        "unet float32 folded": for_prediction(in_precision(unet, "float32")),
        f"unet {precision} folded": for_prediction(in_precision(unet, precision)),
        f"nodes-unet {precision}": for_prediction(in_precision(nodes, precision)),
        "nodes-unet float32": for_prediction(in_precision(nodes, "float32")),
        "nodes-unet float32 without Winograd": without_winograd(nodes, given.images),
        "nodes-unet torchdiffeq": on_torchdiffeq(nodes),
    }
    exact = for_prediction(in_precision(nodes, "float32"))
    exact.set_tolerances(EXACT)

    with torch.inference_mode():
        calls = {
            name: (lambda network=network: network(given.images)) for name, network in cases.items()
        }
        seconds = interleaved(calls, given.device, repeats)
        maps = {name: network(given.images).argmax(1) for name, network in cases.items()}
        exact_map = exact(given.images).argmax(1)
    ours = f"nodes-unet {precision}"
    blocks = cases[ours].ode_blocks
    lowered_unet = f"unet {precision} folded"
    return {
        "seconds": seconds,
        "over plain float32 U-Net": seconds[ours] / seconds["unet float32"],
        f"over {precision} U-Net": seconds[ours] / seconds[lowered_unet],
        "torchdiffeq over ours": seconds["nodes-unet torchdiffeq"] / seconds[ours],
        "float32 without Winograd over with it": seconds["nodes-unet float32 without Winograd"]
        / seconds["nodes-unet float32"],
        "evaluations": {p: float(b.n_evaluations.mean()) for p, b in blocks.items()},
        "pixels that differ from float32 at 1e-6": share(maps[ours], exact_map),
        f"the U-Net's own in {precision}": share(maps[lowered_unet], maps["unet float32"]),
    }


def without_winograd(nodes: NODEsUNet, images: Tensor) -> NODEsUNet:
    network = for_prediction(in_precision(nodes, "float32"))
    with patch.object(_winograd, "pays_for", return_value=False), torch.inference_mode():
        network(images)  # which prepares the weights
    return network


def launches(
    given: Networks, precision: str, repeats: int, batches: Sequence[int], compiled: bool
) -> dict[str, Any]:
    nodes, unet = (
        for_prediction(in_precision(network.eval(), precision))
        for network in (given.nodes, given.unet)
    )
    found = {}
    for batch in batches:
        images = given.images[torch.arange(batch) % len(given.images)]
        found[f"{batch} images"] = compare_launches(nodes, unet, images, repeats, compiled=compiled)
    return found


def share(one: Tensor, other: Tensor) -> float:
    return float((one != other).double().mean())


def training_cases(given: Networks, precision: str) -> dict[str, nn.Module]:
    return {
        "unet float32": in_precision(given.unet, "float32"),
        f"unet {precision}": in_precision(given.unet, precision),
        f"nodes-unet {precision}": in_precision(given.nodes, precision),
        "nodes-unet float32": in_precision(given.nodes, "float32"),
        "torchdiffeq": on_torchdiffeq(given.nodes),
        "torchdiffeq adjoint": on_torchdiffeq(given.nodes, odeint_adjoint),
    }


def step_of(network: nn.Module, given: Networks) -> Any:
    network = network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.0)  # the weights stay as trained

    def step() -> None:
        optimizer.zero_grad()
        functional.cross_entropy(network(given.images), given.masks).backward()
        optimizer.step()

    return step


def training(given: Networks, precision: str, repeats: int) -> dict[str, Any]:
    cases = training_cases(given, precision)
    steps = {name: step_of(network, given) for name, network in cases.items()}
    seconds = interleaved(steps, given.device, repeats)
    ours = seconds[f"nodes-unet {precision}"]
    return {
        "seconds": seconds,
        "torchdiffeq over ours": seconds["torchdiffeq"] / ours,
        "torchdiffeq adjoint over ours": seconds["torchdiffeq adjoint"] / ours,
        "over plain float32 U-Net": ours / seconds["unet float32"],
    }


def peak_memory(precision: str) -> dict[str, int]:
    """Return the bytes that two training steps add to the peak of a process of their own."""
    names = ("unet float32", f"nodes-unet {precision}", "nodes-unet float32", "torchdiffeq",
             "torchdiffeq adjoint")  # fmt: skip
    return {name: run_apart("network", *sys.argv[1:], "--memory-of", name) for name in names}


def memory_of(name: str, given: Networks, precision: str) -> int:
    step = step_of(training_cases(given, precision)[name], given)
    if given.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(), step()
        return torch.cuda.max_memory_allocated() - before
    before = peak_of_process()
    step(), step()
    return peak_of_process() - before


def gradients(given: Networks, precision: str) -> dict[int, dict[str, float]]:
    """Compare the gradients of each block: checkpoint with float64, lowered with float32."""
    found = {}
    for position, block in given.nodes.ode_blocks.items():
        y0 = state_before(given, block)
        direction = torch.randn_like(y0)
        single = gradient_of(block.func, y0, direction, None)
        double = exact_gradient_of(block.func, y0, direction)
        lowered = gradient_of(block.func, y0, direction, precision)
        found[position] = {
            "relative error": float((single - double).norm() / double.norm()),
            f"cosine of {precision}": float(functional.cosine_similarity(lowered, single, dim=0)),
        }
    return found


def state_before(given: Networks, block: nn.Module) -> Tensor:
    states: list[Tensor] = []
    handle = block.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0]))
    with torch.no_grad():
        in_float32 = given.nodes.eval()
        in_float32.precision = "float32"
        in_float32(given.images[:2])
    handle.remove()
    return states[0].float()


def gradient_of(func: nn.Module, y0: Tensor, direction: Tensor, precision: str | None) -> Tensor:
    y0 = y0.detach().requires_grad_()
    lowered = None if precision == "float32" else precision
    end = solve(func, y0, gradient="checkpoint", precision=lowered).y
    weights = [weight for weight in func.parameters() if weight.requires_grad]
    parts = torch.autograd.grad((end * direction).sum(), [y0, *weights])
    return torch.cat([part.flatten().double() for part in parts])


def exact_gradient_of(func: nn.Module, y0: Tensor, direction: Tensor) -> Tensor:
    """Return autograd's gradient in float64 through the steps that float32 accepted."""
    taken: list[Any] = []
    original = replaying.ReplayedGradient.apply
    # The steps are no part of the public result: take them on their way to the gradient.
    replaying.ReplayedGradient.apply = lambda *given: taken.append(given) or original(*given)
    try:
        solve(func, y0.detach().requires_grad_(), gradient="checkpoint")
    finally:
        replaying.ReplayedGradient.apply = original
    _, tableau, _, chunks, size, *_ = taken[0]
    exact = copy.deepcopy(func).double()
    weights, evaluate = exact.prepare(None, 0.0)
    y = y0.detach().double().requires_grad_()
    end = torch.cat(
        [
            replaying.replay(lambda t, h: evaluate(t, h, *weights), tableau, steps, part)
            for steps, part in zip(chunks, y.split(size), strict=True)
        ]
    )
    wanted = [y, *(weight for weight in exact.parameters() if weight.requires_grad)]
    parts = torch.autograd.grad((end * direction.double()).sum(), wanted)
    return torch.cat([part.flatten() for part in parts])


def accuracy(given: Networks, precision: str) -> dict[str, Any]:
    """Return what the trained networks are worth: times of blocks that do nothing are worthless."""
    found: dict[str, Any] = {}
    for name, segmenter in given.segmenters.items():
        for choice in dict.fromkeys(("float32", precision)):
            segmenter.set_params(precision=choice)
            maps = segmenter.predict(given.data.images)
            found[f"{name} {choice}"] = mean_iou(given.data.masks, maps)
    found["work"] = work_of_blocks(
        given.segmenters["nodes-unet"], given.data.images, given.data.masks
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seed", type=int, default=0, help="which of the trained models")
    parser.add_argument("--quick", action="store_true", help="small, three repeats, no memory")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", help="of ours; by default what the package takes")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument(
        "--compiled", action="store_true", help="launches: with sums compiled by torch, too"
    )
    parser.add_argument("--json", help="write the results there, too")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.width, arguments.side, arguments.batch, arguments.repeats = 8, 64, 2, 3
    device = choose_device(arguments.device)
    precision = arguments.precision or choose_precision(device)
    given = Networks(arguments, device)
    if arguments.memory_of:
        print(memory_of(arguments.memory_of, given, precision))
        return
    print(machine(device), precision, flush=True)
    results: dict[str, Any] = {"machine": machine(device), "precision": precision}
    if given.segmenters and given.data is not None:
        results["accuracy"] = accuracy(given, precision)
        show("mean IoU and work of the blocks", results["accuracy"])
    if "prediction" in arguments.parts:
        results["prediction"] = predictions(given, precision, arguments.repeats)
        show("prediction", results["prediction"])
    if "launches" in arguments.parts:
        batches = (arguments.batch,) if arguments.quick else BATCHES[device.type]
        results["launches"] = launches(
            given, precision, arguments.repeats, batches, arguments.compiled
        )
        show("launches", results["launches"])
    if "training" in arguments.parts:
        results["training"] = training(given, precision, max(1, arguments.repeats // 3))
        show("training step", results["training"])
        if not arguments.quick:
            results["training"]["peak bytes"] = memory = peak_memory(precision)
            results["training"]["peak over torchdiffeq's"] = (
                memory[f"nodes-unet {precision}"] / memory["torchdiffeq"]
            )
            show("memory of a training step", memory)
    if "gradients" in arguments.parts:
        results["gradients"] = gradients(given, precision)
        show("gradients of the blocks", results["gradients"])
    write_json(arguments.json, **results)


def show(title: str, found: dict[Any, Any], indent: str = "  ") -> None:
    print(f"\n{title}" if indent == "  " else f"{indent[2:]}{title}")
    for name, value in found.items():
        if isinstance(value, dict):
            show(str(name), value, indent + "  ")
        else:
            print(f"{indent}{name}: {value:.4g}", flush=True)


if __name__ == "__main__":
    main()
