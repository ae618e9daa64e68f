"""Annotated images in any format: trained on, scored and converted."""

import json

import numpy as np
import pytest
from PIL import Image

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


@pytest.fixture
def odd_texts(tmp_path):
    """A folder of LabelMe's with a label text that nobody knows, and a platelet."""
    texts = {"Blast cell": 1, "rbc": 10, "PLT": 20}
    shapes = [
        {"label": text, "shape_type": "rectangle", "points": [[x, 1], [x + 4, 5]]}
        for text, x in texts.items()
    ]
    (tmp_path / "odd").mkdir()
    Image.fromarray(np.full((12, 30, 3), 200, np.uint8)).save(tmp_path / "odd/a.png")
    (tmp_path / "odd/a.json").write_text(json.dumps({"imagePath": "a.png", "shapes": shapes}))
    return tmp_path / "odd"


def test_unknown_texts_are_named_and_what_to_type(odd_texts, model_path, tmp_path, capsys):
    known = (
        "must say what 'Blast cell' is; the files hold the labels 'Blast cell', 'PLT', 'rbc'. Say "
        "so by `bloodseg convert IN OUT --to masks --class-names 'Blast cell=white'`, and go on "
        "with OUT."
    )
    model = ["-m", str(model_path), "-q"]
    for command in (
        ["convert", str(odd_texts), str(tmp_path / "new"), "--to", "masks"],
        ["evaluate", str(odd_texts), *model],
        ["train", str(odd_texts), "-o", str(tmp_path / "m.safetensors"), "-q"],
    ):
        assert main(command) == 2
        assert known in capsys.readouterr().err


def test_convert_takes_classes_and_what_texts_stand_for(odd_texts, tmp_path):
    convert = ["convert", str(odd_texts), str(tmp_path / "new"), "--to", "masks"]
    assert main([*convert, "--class-names", "blast-cell=white, none=background"]) == 0
    assert np.unique(Image.open(tmp_path / "new/masks/a.png")).tolist() == [0, 1, 2]
    names = "background,white,red,platelet,blast cell"
    assert main([*convert, "--classes", names, "--overwrite"]) == 0
    assert np.unique(Image.open(tmp_path / "new/masks/a.png")).tolist() == [0, 2, 3, 4]


def test_convert_says_that_boxes_become_rectangles(tmp_path, capsys):
    coco = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "categories": [{"id": 1, "name": "RBC"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [2, 2, 8, 8]}],
    }
    source = tmp_path / "boxes"
    source.mkdir()
    picture = np.full((12, 30, 3), 200, np.uint8)
    picture[3:9, 3:9] = 90
    Image.fromarray(picture).save(source / "a.png")
    (source / "a.json").write_text(json.dumps(coco))
    for format in ("labelme", "geojson"):
        assert main(["convert", str(source), str(tmp_path / format), "--to", format]) == 0
        assert "boxes holds boxes alone, which are rectangles in" in capsys.readouterr().err
    assert main(["convert", str(source), str(tmp_path / "again"), "--to", "coco"]) == 0
    assert capsys.readouterr().err == ""
    assert load_annotated(tmp_path / "again").boxes[0].tolist() == [[2, 2, 10, 10]]


def test_convert_says_that_what_is_not_known_becomes_background(smears, tmp_path, capsys):
    masks = [mask.copy() for mask in smears.masks]
    masks[2][:5] = 255
    save_annotated({**smears, "masks": masks, "instances": None}, tmp_path / "in", "masks")
    for form, said in (("coco", True), ("masks", False)):
        assert main(["convert", str(tmp_path / "in"), str(tmp_path / form), "--to", form]) == 0
        err = capsys.readouterr().err
        assert ("are background in" in err and "1 of 6 label maps have some" in err) == said


def test_convert_does_not_write_among_what_it_reads(outlined, capsys):
    before = sorted(outlined.iterdir())
    same = outlined / ".." / outlined.name
    assert main(["convert", str(outlined), str(same), "--to", "coco", "--overwrite"]) == 2
    assert "OUT must be another folder than IN; got" in capsys.readouterr().err
    assert sorted(outlined.iterdir()) == before


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
