"""How a network's kernels get to the device, and what is lost on the way.

The ruler is the arithmetic: the time of a NODEs-UNet over that of the U-Net of its width in the
same precision, over the ratio of their multiplications. At 1, nothing is lost around convolutions.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from bloodseg.networks import OptimisticPass
from bloodseg.networks._optimistic import _Graph

from ._timing import interleaved, seconds_of

_SHOWN = 12  # kinds of kernels


def count_multiplications(network: nn.Module, images: Tensor) -> int:
    """Return the multiplications of all convolutions that images make a network do."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(images)
    counts = counter.get_flop_counts()["Global"]
    return sum(n for operation, n in counts.items() if "conv" in str(operation)) // 2


@torch.inference_mode()
def compare_launches(
    nodes: Any, unet: nn.Module, images: Tensor, repeats: int, *, compiled: bool
) -> dict[str, Any]:
    """Return the seconds of a batch each way, the ruler, and how much of a graph's time is kernels.

    Parameters
    ----------
    nodes, unet : networks
        Prepared for prediction, of one width and precision.
    images : Tensor of shape (n, 3, H, W)
    repeats : int
        How often each way takes its turn.
    compiled : bool
        Whether to show sums that are compiled by torch, too.
    """
    device = images.device
    ways = {"waiting": (False, False), "no waiting": (True, False)}
    if images.is_cuda:
        ways["graph"] = (True, True)
    passes = {name: OptimisticPass(nodes, *way) for name, way in ways.items()}
    if compiled:
        twin = copy.deepcopy(nodes)
        twin.decide_compilation(True, 1, 1)
        passes |= {f"{name}, compiled sums": OptimisticPass(twin, *ways[name]) for name in ways}
    calls: dict[str, Callable[[], Any]] = {"unet": lambda: unet(images)}
    if images.is_cuda:
        calls["unet, graph"] = partial(_Graph(unet, images, None).replay, images)
    calls |= {name: (lambda each=each: each(images)) for name, each in passes.items()}
    first = {name: seconds_of(call, device) for name, call in calls.items()}
    for call in calls.values():  # the second pass of a size is captured
        call()
    seconds = interleaved(calls, device, repeats)
    ratio = count_multiplications(nodes, images) / count_multiplications(unet, images)
    (_, counts), refused = passes["waiting"](images), passes["no waiting"]._n_refused
    found: dict[str, Any] = {
        "ms": {name: 1e3 * value for name, value in seconds.items()},
        "ms of the first call": {name: 1e3 * value for name, value in first.items()},
        "multiplications over the U-Net's": ratio,
        "evaluations": {position: float(each.mean()) for position, each in counts.items()},
        "share of refused samples": refused / max(passes["no waiting"]._n_seen, 1),
        "pixels that differ from waiting": _compare(passes, images),
    }
    for base in [name for name in calls if name.startswith("unet")]:
        found[f"ruler, against {base}"] = {
            name: seconds[name] / seconds[base] / ratio for name in passes
        }
    if images.is_cuda:
        graphs = [name for name in calls if "graph" in name]
        found["kernels, us"] = {name: list_kernels(calls[name], device) for name in graphs}
    return found


def _compare(passes: dict[str, OptimisticPass], images: Tensor) -> dict[str, float]:
    maps = {name: each(images)[0].argmax(1) for name, each in passes.items()}
    return {name: float((maps["waiting"] != each).double().mean()) for name, each in maps.items()}


def list_kernels(call: Callable[[], Any], device: torch.device) -> dict[str, float]:
    """Return the microseconds of the kernels of a call, by kind, and of all: what time is left over
    in "by the clock" the device had nothing to do."""
    call()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        call()
        torch.cuda.synchronize(device)
    times: dict[str, float] = defaultdict(float)
    numbers: dict[str, int] = defaultdict(int)
    for event in profiled.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            times[event.name] += event.device_time_total
            numbers[event.name] += 1
    longest = sorted(times, key=times.get, reverse=True)[:_SHOWN]  # type: ignore[arg-type]
    found = {f"{numbers[name]} x {name[:90]}": times[name] for name in longest}
    found[f"all {sum(numbers.values())}"] = sum(times.values())
    return found | {"by the clock": 1e6 * min(seconds_of(call, device) for _ in range(5))}
