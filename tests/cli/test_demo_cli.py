"""``bloodseg demo``."""

from __future__ import annotations

import json
import re

from PIL import Image

from bloodseg.cli import main
from bloodseg.datasets import load_annotated
from bloodseg.models import list_models


def test_demo_draws_trains_and_shows(tmp_path, capsys):
    command = ["demo", "--quick", "-q", "-o", str(tmp_path / "demo")]
    assert main(command) == 0
    files = {"overview.png", "metrics.csv", "metrics.json", "model.safetensors"}
    assert {file.name for file in (tmp_path / "demo").iterdir()} == {*files, "smears"}
    train, test = (load_annotated(tmp_path / "demo/smears" / part) for part in ("train", "test"))
    assert len(train.images) == 4
    assert test.instances is not None
    drawn = {image.tobytes() for image in (*train.images, *test.images)}
    assert len(drawn) == 8  # no smear of the test is one of the training
    out = capsys.readouterr().out
    assert "overview.png" in out
    at_once, trained = out.split("Trained here: ")
    assert at_once.startswith(f"The published weights, {list_models()[0]}, on 4 smears not trained")
    for text in (at_once, trained):
        assert re.search(r"^panoptic quality \(PQ\) ", text, re.MULTILINE)
    scores = json.loads((tmp_path / "demo/metrics.json").read_text())
    assert scores["published"]["model"] == list_models()[0]
    assert scores["published"]["scores"]["mean_iou"] > 0.9 > scores["scores"]["mean_iou"]
    assert {row["class"] for row in scores["published"]["cells"]} >= {"white", "red"}
    with Image.open(tmp_path / "demo/overview.png") as sheet:
        assert sheet.width > 5 * 64
        assert sheet.height > 4 * 64
    assert main(command) == 2
    assert "overview.png exists" in capsys.readouterr().err
    for file in files:
        (tmp_path / "demo" / file).unlink()
    assert main(command) == 2
    assert f"{tmp_path / 'demo/smears'} holds files." in capsys.readouterr().err
