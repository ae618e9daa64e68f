"""``bloodseg train``: the model, its history, and what ends a training."""

from __future__ import annotations

import shutil
import signal
import tempfile

import pytest
import torch
from shell import TINY, raiser, rows_of

from bloodseg import BloodCellSegmenter
from bloodseg.cli import main
from bloodseg.cli._train import HistoryFile, ended_early
from bloodseg.training import _callbacks


def test_train_writes_model_and_history_and_prints_the_best_epoch(data, tmp_path, capsys):
    path = tmp_path / "m.safetensors"
    options = ["--ode-tol", "4=1e-2,5=1e-3,6=1e-2", "--clip-limit", "3", "--augment", "no"]
    assert main(["train", str(data), "-o", str(path), *TINY, *options]) == 0
    segmenter = BloodCellSegmenter.load(path)
    assert segmenter.ode_tol_ == {4: 1e-2, 5: 1e-3, 6: 1e-2}
    assert segmenter.preprocessor_.clip_limit == 3
    assert segmenter.augment is False
    (row,) = rows_of(tmp_path / "m.history.csv")
    assert row["epoch"] == "1"
    assert float(row["valid_loss"]) == segmenter.history_[0]["valid_loss"]
    captured = capsys.readouterr()
    assert captured.out.startswith("Epoch 1 of 1 kept: validation loss ")
    assert f"Model: {path}" in captured.out
    assert captured.err == ""
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.history.csv", "m.safetensors"]


def test_train_says_how_far_it_is_and_passes_on_groups(data, tmp_path, capsys, monkeypatch):
    folder = shutil.copytree(data, tmp_path / "data")
    (folder / "groups.csv").write_text("image,group\na,1\nb,1\nc,2\nd,2\n")
    given = {}
    fit = BloodCellSegmenter.fit

    def spy(self, images, masks, *, groups=None):
        given["groups"] = list(groups)
        return fit(self, images, masks, groups=groups)

    monkeypatch.setattr(BloodCellSegmenter, "fit", spy)
    path = tmp_path / "m.safetensors"
    assert main(["train", str(folder), "-o", str(path), *TINY[:-1], "--ode-positions", ""]) == 0
    assert given["groups"] == ["1", "1", "2", "2"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("training: epoch 1 of 1: train_loss ")
    assert BloodCellSegmenter.load(path).ode_positions == ()


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("missing/m.safetensors", "there is no folder {0}/missing to write into. Make it first."),
        ("", "{0} is a folder; name a file."),
        ("old.safetensors", "old.safetensors exists. Choose another name, or pass --overwrite."),
        ("kept.safetensors", "kept.history.csv exists. Choose another name"),
        ("m.csv", "MODEL must not be a .csv file"),
    ],
)
def test_train_checks_its_outputs_before_it_reads_data(output, message, tmp_path, capsys):
    for name in ("old.safetensors", "kept.history.csv"):
        (tmp_path / name).touch()
    assert main(["train", "no-such-folder", "-o", f"{tmp_path}/{output}"]) == 2
    assert message.format(tmp_path) in capsys.readouterr().err


def test_train_reports_bad_data_and_bad_values(data, broken, tmp_path, capsys):
    output = ["-o", str(tmp_path / "m.safetensors")]
    assert main(["train", "no-such-folder", *output]) == 2
    assert "error: path must be a folder of annotated images" in capsys.readouterr().err
    assert main(["train", str(broken), *output]) == 2
    assert "c.png has no label map" in capsys.readouterr().err
    assert main(["train", str(data), *output, "--width", "0"]) == 2
    assert "bloodseg: error: The 'width' parameter" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert main(["train", str(data), *output, "--checkpoint-dir", str(tmp_path / "file")]) == 2
    assert "file is a file, where a folder is wanted" in capsys.readouterr().err
    assert not (tmp_path / "m.safetensors").exists()


def test_train_overwrites_when_told_to(data, model, tmp_path):
    path = tmp_path / "m.safetensors"
    path.touch()
    pretrained = ["--pretrained", str(model), "--overwrite"]
    assert main(["train", str(data), "-o", str(path), *TINY, *pretrained]) == 0
    assert BloodCellSegmenter.load(path).width == 4


def test_training_goes_on_with_the_parameters_of_a_model(data, model, tmp_path):
    path = tmp_path / "m.safetensors"
    command = ["train", str(data), "-o", str(path), "-q", "--pretrained", str(model)]
    assert main([*command, "--learning-rate", "1e-5"]) == 0
    loaded = BloodCellSegmenter.load(path)
    assert (loaded.width, loaded.max_epochs, loaded.crop_size) == (4, 1, 32)
    assert loaded.learning_rate == 1e-5


def test_a_published_model_is_fine_tuned_with_care(data, tmp_path, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(BloodCellSegmenter, "fit", lambda self, *_, **__: seen.append(self))
    with pytest.raises(AttributeError):  # of a fit that did nothing
        main(["train", str(data), "-o", str(tmp_path / "m"), "-q", "--pretrained", "smears-5"])
    expected = BloodCellSegmenter.from_pretrained("smears-5").get_params()
    found = seen[0].get_params()
    (history,) = found.pop("callbacks")  # the shell's own: the table beside the model
    assert isinstance(history, HistoryFile)
    assert expected.pop("callbacks") is None
    assert {name: str(value) for name, value in found.items()} == {
        name: str(value) for name, value in expected.items()
    }
    missing = ["train", str(data), "-o", str(tmp_path / "m"), "--pretrained", "smears-0"]
    assert main(missing) == 2
    assert "--pretrained: There is no model file at smears-0" in capsys.readouterr().err


def _interrupt_in_epoch(monkeypatch, epoch):
    original = _callbacks.EpochNumber.on_epoch_begin

    def interrupt(self, net, **kwargs):
        if len(net.history) == epoch:
            raise KeyboardInterrupt
        original(self, net, **kwargs)

    monkeypatch.setattr(_callbacks.EpochNumber, "on_epoch_begin", interrupt)


def test_ctrl_c_in_training_saves_the_best_weights(data, tmp_path, capsys, monkeypatch):
    _interrupt_in_epoch(monkeypatch, 2)
    path = tmp_path / "m.safetensors"
    assert main(["train", str(data), "-o", str(path), *TINY, "--max-epochs", "9"]) == 1
    captured = capsys.readouterr()
    assert captured.err == (
        "bloodseg: warning: Training was interrupted after 1 of 9 epochs; the model keeps the "
        "weights of epoch 1.\n"
    )
    assert "Epoch 1 of 1 kept" in captured.out
    assert len(BloodCellSegmenter.load(path).history_) == 1
    assert len(rows_of(tmp_path / "m.history.csv")) == 1


def test_ctrl_c_again_in_no_time_saves_them_all_the_same(data, tmp_path, monkeypatch):
    def twice(self, net, **kwargs):
        if len(net.history) == 2:
            signal.raise_signal(signal.SIGINT)
        begin(self, net, **kwargs)

    def interrupted(original):
        def run(self, *args, **kwargs):
            signal.raise_signal(signal.SIGINT)
            return original(self, *args, **kwargs)

        return run

    begin = _callbacks.EpochNumber.on_epoch_begin
    monkeypatch.setattr(_callbacks.EpochNumber, "on_epoch_begin", twice)
    restore, save = _callbacks.BestWeights.restore, BloodCellSegmenter.save
    monkeypatch.setattr(_callbacks.BestWeights, "restore", interrupted(restore))
    monkeypatch.setattr(BloodCellSegmenter, "save", interrupted(save))
    path = tmp_path / "m.safetensors"
    assert main(["train", str(data), "-o", str(path), *TINY, "--max-epochs", "9"]) == 130
    assert len(BloodCellSegmenter.load(path).history_) == 1
    assert len(rows_of(tmp_path / "m.history.csv")) == 1


def test_ctrl_c_in_the_first_epoch_saves_nothing(data, tmp_path, capsys, monkeypatch):
    _interrupt_in_epoch(monkeypatch, 1)
    path = tmp_path / "m.safetensors"
    assert main(["train", str(data), "-o", str(path), *TINY]) == 130
    err = capsys.readouterr().err
    assert "bloodseg: training was stopped: no model was written.\n" in err
    assert err.endswith("bloodseg: stopped by Ctrl-C or SIGTERM.\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (ValueError("network is a function,\nwhich JSON can't hold."), "network is a function, "),
    ],
)
def test_a_model_that_cannot_be_saved_is_reported(error, said, data, tmp_path, capsys, monkeypatch):
    def fit(self, images, masks, *, groups=None):
        self.history_ = [{}]

    monkeypatch.setattr(BloodCellSegmenter, "fit", fit)
    monkeypatch.setattr(BloodCellSegmenter, "save", raiser(error))
    path = tmp_path / "m.safetensors"
    assert main(["train", str(data), "-o", str(path), *TINY]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"bloodseg: error: {path} cannot be written: {said}")
    assert err.count("\n") == 1


def test_a_history_that_cannot_be_written_is_reported(data, tmp_path, capsys, monkeypatch):
    full = OSError(28, "No space left on device")
    monkeypatch.setattr("bloodseg.cli._train.write_csv", raiser(full))
    path = tmp_path / "m.safetensors"
    assert main(["train", str(data), "-o", str(path), *TINY]) == 2
    out, err = capsys.readouterr()
    assert err == (
        f"bloodseg: error: {tmp_path / 'm.history.csv'} cannot be written: No space "
        "left on device\n"
    )
    assert f"Model: {path}\n" in out
    assert path.exists()


def test_a_model_whose_folder_has_gone_lies_elsewhere(data, tmp_path, capsys, monkeypatch):
    def gone(self, net, **kwargs):
        shutil.rmtree(folder, ignore_errors=True)
        begin(self, net, **kwargs)

    folder, spare = tmp_path / "models", tmp_path / "spare"
    folder.mkdir()
    spare.mkdir()
    begin = _callbacks.EpochNumber.on_epoch_begin
    monkeypatch.setattr(_callbacks.EpochNumber, "on_epoch_begin", gone)
    monkeypatch.setattr(tempfile, "tempdir", str(spare))
    assert main(["train", str(data), "-o", str(folder / "m.safetensors"), *TINY]) == 1
    (path,) = spare.glob("bloodseg-*/m.safetensors")
    assert len(BloodCellSegmenter.load(path).history_) == 1
    out, err = capsys.readouterr()
    assert f"It is {path} instead: move it to where it is safe.\n" in err
    assert f"Model: {path}\n" in out


@pytest.mark.parametrize(
    "kind", [MemoryError, torch.OutOfMemoryError, FloatingPointError, ImportError]
)
def test_what_ends_a_training_is_reported(data, tmp_path, capsys, monkeypatch, kind):
    monkeypatch.setattr(BloodCellSegmenter, "fit", raiser(kind("Lower batch_size.")))
    assert main(["train", str(data), "-o", str(tmp_path / "m.safetensors"), *TINY]) == 2
    assert capsys.readouterr().err == "bloodseg: error: Lower batch_size.\n"


@pytest.mark.parametrize(
    ("reason", "early"),
    [("epochs", False), ("patience", False), ("interrupted", True), ("broke down", True)],
)
def test_ended_early_tells_ctrl_c_from_patience(reason, early):
    segmenter = BloodCellSegmenter()
    segmenter.end_reason_ = reason
    assert ended_early(segmenter) is early
