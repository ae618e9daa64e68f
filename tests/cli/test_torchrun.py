"""`torchrun -m bloodseg train`: one model, whatever the number of processes."""

import os
import subprocess
import sys

import pytest

from bloodseg import BloodCellSegmenter
from bloodseg.cli import main
from bloodseg.datasets import save_annotated

pytest.importorskip("accelerate")

OPTIONS = ["--network", "unet", "--width", "2", "--max-epochs", "2", "--crop-size", "32", "-q"]


@pytest.fixture
def data(smears, tmp_path):
    save_annotated(smears, tmp_path / "data", "masks")
    return tmp_path / "data"


def test_two_processes_train_one_model(data, tmp_path):
    model = tmp_path / "cells.safetensors"
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = ["-m", "bloodseg", "train", str(data), "-o", str(model), *OPTIONS]
    ran = subprocess.run(
        [sys.executable, *start, *command],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("Model:") == 1
    assert len(BloodCellSegmenter.load(model).history_) == 2
    assert len((tmp_path / "cells.history.csv").read_text().splitlines()) == 3


def test_one_process_may_use_accelerate_too(data, tmp_path, capsys):
    model = str(tmp_path / "cells.safetensors")
    assert main(["train", str(data), "-o", model, "--accelerator", *OPTIONS]) == 0
    assert "Model:" in capsys.readouterr().out


def test_counters_train_in_one_process(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    table = tmp_path / "counts.csv"
    table.write_text("image,white,red\n")
    options = ["--counts", str(table), "-q"]
    assert main(["train", str(data), "-o", str(tmp_path / "m.safetensors"), *options]) == 2
    assert "--counts trains in one process. Start it without torchrun." in capsys.readouterr().err
