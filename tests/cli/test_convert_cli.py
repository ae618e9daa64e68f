"""Annotated images in any format: trained on, scored and converted."""

import pytest

from bloodseg.cli import main
from bloodseg.datasets import load_annotated, save_annotated


@pytest.fixture
def outlined(smears, tmp_path):
    save_annotated(smears, tmp_path / "outlined", "labelme")
    return tmp_path / "outlined"


def test_convert_writes_what_can_be_converted_back(outlined, smears, tmp_path, capsys):
    steps = ["geojson", "coco", "masks"]
    source = outlined
    for format in steps:
        target = tmp_path / format
        assert main(["convert", str(source), str(target), "--to", format]) == 0
        source = target
    assert f"6 images, from coco to masks: {source}" in capsys.readouterr().out
    data = load_annotated(source)
    assert all((a == b).all() for a, b in zip(data.masks, smears.masks, strict=True))
    assert main(["convert", str(outlined), str(source), "--to", "masks"]) == 2
    assert "masks holds files. Choose another folder, or pass --overwr" in capsys.readouterr().err
    assert main(["convert", str(outlined), str(source), "--to", "masks", "--overwrite"]) == 0
    assert main(["convert", str(tmp_path / "none"), str(tmp_path / "new"), "--to", "coco"]) == 2
    assert "path must be a folder of annotated images" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_train_and_evaluate_take_outlines(outlined, model_path, tmp_path, capsys):
    model = tmp_path / "new.safetensors"
    options = ["--width", "2", "--max-epochs", "1", "--crop-size", "32", "-q"]
    assert main(["train", str(outlined), "-o", str(model), *options]) == 0
    assert main(["evaluate", str(outlined), "-m", str(model_path), "-q"]) == 0
    of_outlines = capsys.readouterr().out
    assert main(["convert", str(outlined), str(tmp_path / "maps"), "--to", "masks"]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "maps"), "-m", str(model_path), "-q"]) == 0

    def scores(text):
        return [line for line in text.splitlines() if line.startswith("mean IoU  ")]

    assert scores(of_outlines) == scores(capsys.readouterr().out) != []
    (tmp_path / "empty").mkdir()
    assert main(["evaluate", str(tmp_path / "empty"), "-m", str(model_path), "-q"]) == 2
    assert "path must hold annotated images" in capsys.readouterr().err
