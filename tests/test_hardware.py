"""Which device and precision "auto" stands for, on made-up machines."""

import re

import pytest
import torch

from bloodseg import _hardware
from bloodseg._hardware import (
    choose_device,
    choose_precision,
    cpu_has_fast_bfloat16,
    name_processor,
)

CPUINFO = """processor\t: 0
vendor_id\t: GenuineIntel
cpuid level\t: {level}
flags\t\t: fpu vme {flags} sse4_2
power management:

processor\t: 1
cpuid level\t: 99
flags\t\t: amx_bf16
"""


@pytest.fixture(autouse=True)
def forget():
    cpu_has_fast_bfloat16.cache_clear()
    yield
    cpu_has_fast_bfloat16.cache_clear()


@pytest.mark.parametrize(
    ("level", "flags", "fast"),
    [
        (32, "amx_bf16 amx_tile", True),
        (29, "amx_tile amx_bf16", True),
        (28, "amx_bf16 amx_tile", False),  # shown by a virtual machine that hides the tiles
        (13, "amx_bf16", False),
        (13, "avx512f avx512_bf16", True),
        (28, "avx512_bf16 amx_bf16", False),
        (32, "avx512f", False),
        (32, "amx_bf16x", False),
    ],
)
def test_bfloat16_in_hardware(tmp_path, level, flags, fast):
    path = tmp_path / "cpuinfo"
    path.write_text(CPUINFO.format(level=level, flags=flags))
    assert cpu_has_fast_bfloat16(str(path)) is fast


@pytest.mark.parametrize(
    "text", ["", "\n\n", "processor: 0\nFeatures: fp asimd bf16\n", "flags: amx_bf16", "nothing"]
)
def test_other_processors(tmp_path, text):
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    assert cpu_has_fast_bfloat16(str(path)) is False


def test_the_name_of_what_computes(tmp_path, monkeypatch):
    name = "AMD EPYC 9454 48-Core Processor"
    path = tmp_path / "cpuinfo"
    path.write_text(f"processor\t: 0\nmodel name\t: {name}\n\nprocessor\t: 1\n")
    cpu = torch.device("cpu")
    assert name_processor(cpu, str(path)) == name
    monkeypatch.setattr(_hardware.platform, "processor", lambda: "arm")
    assert name_processor(cpu, str(tmp_path / "none")) == "arm"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    assert name_processor(torch.device("cuda:1")) == "GPU 1"


def test_other_systems(tmp_path):
    assert cpu_has_fast_bfloat16(str(tmp_path / "none")) is False


@pytest.mark.parametrize(("fast", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_precision_of_the_cpu(monkeypatch, fast, expected):
    monkeypatch.setattr(_hardware, "cpu_has_fast_bfloat16", lambda: fast)
    assert choose_precision(torch.device("cpu")) == expected
    assert choose_precision(torch.device("meta")) == "float32"


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((7, 5), "float32"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16"), ((12, 0), "bfloat16")],
)
def test_precision_of_cuda(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose_precision(torch.device("cuda")) == expected


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_precision_that_is_asked_for(precision, device):
    assert choose_precision(torch.device(device), precision) == precision


@pytest.mark.parametrize(("available", "expected"), [(True, "cuda"), (False, "cpu")])
def test_auto_device(monkeypatch, available, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert choose_device() == torch.device(expected)


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")])
def test_a_device_that_is_asked_for(device):
    assert choose_device(device) == torch.device("cpu")


@pytest.mark.parametrize("device", ["abacus", "cuda:63", "cpu:x", ""])
def test_devices_that_are_refused(device):
    text = (
        "device must be 'auto' or a device that torch reaches on this machine, such as 'cpu' or "
        f"'cuda:0'; got {device!r} ("
    )
    with pytest.raises(ValueError, match=re.escape(text)):
        choose_device(device)


def test_what_auto_became_is_logged(caplog):
    with caplog.at_level("INFO", logger="bloodseg"):
        choose_precision(choose_device("auto"), "auto")
    assert "device='auto': " in caplog.text
    assert "precision='auto' on " in caplog.text
