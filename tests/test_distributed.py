"""Training in two processes on the CPU: one model, one history, one checkpoint.

Each process imports torch for seconds, so one launch does all: fits, and then the command.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bloodseg import BloodCellSegmenter
from bloodseg.cli import main
from bloodseg.datasets import save_annotated

pytest.importorskip("accelerate")

SCRIPT = """
import contextlib, hashlib, io, json, runpy, sys
from pathlib import Path

import torch

torch.set_num_threads(1)
from bloodseg import BloodCellSegmenter
from bloodseg.datasets import make_smears
from bloodseg.training import _callbacks as callbacks

out, runs, command = Path(sys.argv[1]), *map(json.loads, sys.argv[2:])
rank = int(__import__("os").environ["RANK"])
smears = make_smears(7, image_size=32, random_state=0)

kill = None
begin = callbacks.EpochNumber.on_epoch_begin
def on_epoch_begin(self, net, **kwargs):
    if len(net.history) == kill:
        raise OSError("the power went")
    begin(self, net, **kwargs)
callbacks.EpochNumber.on_epoch_begin = on_epoch_begin

saves = []
save = callbacks.Checkpoint.save
callbacks.Checkpoint.save = lambda self, **state: (saves.append(1), save(self, **state))

printed, fits = io.StringIO(), {}
for name, settings in runs.items():
    kill = settings.pop("kill", None)
    saves.clear()
    model = BloodCellSegmenter(
        width=2, crop_size=32, batch_size=2, ode_positions=(5,), accelerator=True, **settings
    )
    try:
        with contextlib.redirect_stdout(printed):
            model.fit(smears.images, smears.masks)
    except OSError as error:
        fits[name] = {"error": str(error)}
        continue
    digest = hashlib.sha256()
    for key, tensor in model.network_.state_dict().items():
        digest.update(key.encode() + tensor.numpy().tobytes())
    fits[name] = {
        "weights": digest.hexdigest(),
        "history": [{k: v for k, v in row.items() if k != "seconds"} for row in model.history_],
        "best_epoch": model.best_epoch_,
        "maps": hashlib.sha256(model.predict(smears.images).tobytes()).hexdigest(),
        "saves": len(saves),
    }
callbacks.EpochNumber.on_epoch_begin, callbacks.Checkpoint.save = begin, save
sys.argv[1:] = command
try:
    runpy.run_module("bloodseg", run_name="__main__")
except SystemExit as end:
    fits["command"] = end.code
fits["printed"] = printed.getvalue()
(out / f"rank{rank}.json").write_text(json.dumps(fits))
"""

OPTIONS = ["--network", "unet", "--width", "2", "--max-epochs", "2", "--crop-size", "32", "-q"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("distributed")


@pytest.fixture(scope="module")
def data(smears, folder):
    save_annotated(smears, folder / "data", "masks")
    return folder / "data"


@pytest.fixture(scope="module")
def launch(folder, data):
    """What each of two processes came to, and what both printed."""
    long = {"max_epochs": 3, "validation_fraction": 0.3, "random_state": 0}
    short = {"max_epochs": 2, "random_state": None, "verbose": 1}
    checkpoints = {name: {"checkpoint_dir": str(folder / name)} for name in ("shared", "broken")}
    runs = {
        "validated": {"validation_fraction": 0.3, **short, **checkpoints["shared"]},
        "not validated": {"validation_fraction": None, **short},
        "whole": long,
        "killed": {"kill": 3, **long, **checkpoints["broken"]},
        "resumed": {**long, **checkpoints["broken"]},
    }
    command = ["train", str(data), "-o", str(folder / "cells.safetensors"), *OPTIONS]
    script = folder / "script.py"
    script.write_text(SCRIPT)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"}
    environment |= {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, *launcher, script, folder, json.dumps(runs), json.dumps(command)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]
    return found, done.stdout


@pytest.fixture(scope="module")
def ranks(launch):
    return launch[0]


def test_fits_print_nothing(ranks):
    assert [rank["printed"] for rank in ranks] == ["", ""]


@pytest.mark.parametrize("name", ["validated", "not validated", "whole", "resumed"])
def test_two_processes_come_to_one_model(ranks, name):
    first, second = (rank[name] for rank in ranks)
    for key in ("weights", "history", "best_epoch", "maps"):
        assert first[key] == second[key], key
    assert len(first["history"]) == (3 if name in ("whole", "resumed") else 2)
    assert ("valid_loss" in first["history"][0]) == (name != "not validated")


def test_only_the_main_process_writes_checkpoints(ranks, folder):
    assert [rank["validated"]["saves"] for rank in ranks] == [2, 0]
    (checkpoint,) = (folder / "shared").iterdir()
    assert checkpoint.suffix == ".pt"


def test_a_killed_training_goes_on_to_the_same_weights(ranks):
    for rank in ranks:
        assert rank["killed"] == {"error": "the power went"}
        for key in ("weights", "history", "best_epoch", "maps"):
            assert rank["resumed"][key] == rank["whole"][key], key
    assert ranks[0]["resumed"]["saves"] == 1


def test_the_command_trains_one_model(launch, folder):
    ranks, printed = launch
    assert [rank["command"] for rank in ranks] == [0, 0]
    assert printed.count("Model:") == 1
    assert len(BloodCellSegmenter.load(folder / "cells.safetensors").history_) == 2
    assert len((folder / "cells.history.csv").read_text().splitlines()) == 3


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
