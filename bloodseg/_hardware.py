"""Which device and precision "auto" stands for: decided from fixed facts, never a stopwatch."""

from __future__ import annotations

import logging
import platform
from functools import lru_cache
from pathlib import Path

import torch

logger = logging.getLogger("bloodseg")

PRECISIONS = ("auto", "float32", "bfloat16")

# The processor's own list of what its AMX tiles can do. Some virtual machines show the AMX flags
# but hide this list: oneDNN then falls back to slower bfloat16 kernels than its float32 ones.
_TILE_INFORMATION_LEAF = 0x1D


def choose_device(device: str | torch.device = "auto") -> torch.device:
    """Return the device that a name stands for; ``"auto"`` is CUDA where there is one.

    Raises
    ------
    ValueError
        If torch knows no such device or cannot reach it.
    """
    if device == "auto":
        chosen = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        logger.info("device='auto': %s", chosen)
        return chosen
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).item()  # "meta" would take the numbers and give none back
    except Exception as error:  # each backend fails in a way of its own
        said = str(error).splitlines() or [type(error).__name__]
        raise ValueError(
            f"device must be 'auto' or a device that torch reaches on this machine, such as "
            f"'cpu' or 'cuda:0'; got {device!r} ({said[0]})."
        ) from error
    return chosen


def choose_precision(device: torch.device, precision: str = "auto") -> str:
    """Return the precision of the convolutions; ``"auto"`` is bfloat16 where it is faster.

    That is on CUDA from compute capability 8.0 on, and on CPUs that multiply bfloat16 in hardware:
    in AMX tiles or in AVX-512.

    Raises
    ------
    ValueError
        If there is no such precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}; got {precision!r}.")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        fast = device.type == "cpu" and cpu_has_fast_bfloat16()
    chosen = "bfloat16" if fast else "float32"
    logger.info("precision='auto' on %s: %s", device, chosen)
    return chosen


@lru_cache(maxsize=1)
def cpu_has_fast_bfloat16(cpuinfo: str = "/proc/cpuinfo") -> bool:
    """Return whether this CPU multiplies bfloat16 in AMX tiles or in AVX-512 (Linux only)."""
    fields = _read_cpuinfo(cpuinfo)
    flags = fields.get("flags", "").split()
    if "amx_bf16" in flags:
        return int(fields.get("cpuid level", "0")) >= _TILE_INFORMATION_LEAF
    return "avx512_bf16" in flags


def name_processor(device: torch.device, cpuinfo: str = "/proc/cpuinfo") -> str:
    """Return what computes, by its maker's name: "NVIDIA H100 80GB HBM3", "AMD EPYC 9454"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = _read_cpuinfo(cpuinfo).get("model name", "").strip()
    return name or platform.processor() or platform.machine()


def _read_cpuinfo(cpuinfo: str) -> dict[str, str]:
    """Return what the system says of the first core; nothing where it says nothing."""
    try:
        lines = Path(cpuinfo).read_text().split("\n\n")[0].splitlines()
    except OSError:
        return {}
    return {name.strip(): value for name, _, value in (line.partition(":") for line in lines)}
