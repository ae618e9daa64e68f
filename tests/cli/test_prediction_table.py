"""``predictions.csv``: no map without its row, none taken for another image's."""

import csv
import os
import threading

import pytest

from bloodseg.cli._output import CommandError
from bloodseg.cli._prediction_table import TABLE, PredictionTable

MAP, VALUES = {"mask": b"a map"}, {"share_red": 0.5}


def rows_of(folder):
    with (folder / TABLE).open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def add(table, image, pictures=MAP, **values):
    return table.add(image, pictures, {**VALUES, **values})


def test_a_row_comes_with_its_map(tmp_path):
    table = PredictionTable(tmp_path)
    image = tmp_path / "in/a.png"
    assert table.find(image) is None
    mask = add(table, image)
    assert mask.read_bytes() == b"a map"
    assert rows_of(tmp_path) == [{"image": str(image), "mask": "a_mask.png", "share_red": "0.5"}]
    assert PredictionTable(tmp_path).find(image) == mask


def test_where_the_map_is_all_is_there(tmp_path, monkeypatch):
    named, replace = [], os.replace

    def note(unfinished, path):
        named.append(path.name)
        replace(unfinished, path)

    monkeypatch.setattr(os, "replace", note)
    add(PredictionTable(tmp_path), tmp_path / "in/a.png", {**MAP, "overlay": b"a picture"})
    assert named == [TABLE, "a_overlay.png", "a_mask.png"]


def test_a_map_that_cannot_be_written_has_no_row(tmp_path):
    table = PredictionTable(tmp_path)
    with pytest.raises(TypeError):
        add(table, tmp_path / "in/b.png", {"mask": "no bytes"})
    assert not (tmp_path / TABLE).exists()
    add(table, tmp_path / "in/a.png")
    assert len(rows_of(tmp_path)) == 1


def test_a_kill_between_row_and_map_leaves_an_image_to_be_done(tmp_path):
    image = tmp_path / "in/a.png"
    add(PredictionTable(tmp_path), image).unlink()
    table = PredictionTable(tmp_path)
    assert table.find(image) is None
    assert add(table, tmp_path / "other/a.png").name == "a-2_mask.png"
    assert add(table, image).name == "a_mask.png"
    assert [row["mask"] for row in rows_of(tmp_path)] == ["a_mask.png", "a-2_mask.png"]


def test_a_row_broken_off_is_left_out(tmp_path):
    table = PredictionTable(tmp_path)
    for name in "ab":
        add(table, tmp_path / f"in/{name}.png")
    text = (tmp_path / TABLE).read_text()
    (tmp_path / TABLE).write_text(text[:-9])  # in the middle of the last map's name
    for name in "ab":  # but for its map, the row of a is whole
        (tmp_path / f"{name}_mask.png").unlink()
    table = PredictionTable(tmp_path)
    add(table, tmp_path / "in/c.png")
    assert [row["mask"] for row in rows_of(tmp_path)] == ["a_mask.png", "c_mask.png"]


def test_a_map_without_a_row_is_nobodys_and_stays(tmp_path):
    (tmp_path / "a_mask.png").write_bytes(b"mine")
    image = tmp_path / "in/a.png"
    assert PredictionTable(tmp_path).find(image) is None
    assert add(PredictionTable(tmp_path), image).name == "a-2_mask.png"
    assert (tmp_path / "a_mask.png").read_bytes() == b"mine"
    table = PredictionTable(tmp_path, overwrite=True)
    assert add(table, tmp_path / "other/a.png").name == "a_mask.png"


def test_two_writers_lose_no_row(tmp_path):
    """Each table stands for a process: they share nothing but the files."""

    def write(folder):
        table = PredictionTable(tmp_path)
        for number in range(20):
            add(table, tmp_path / folder / f"{number}.png")

    threads = [threading.Thread(target=write, args=[folder]) for folder in "xyz"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    masks = [row["mask"] for row in rows_of(tmp_path)]
    assert sorted(masks) == sorted(file.name for file in tmp_path.glob("*_mask.png"))
    assert len(set(masks)) == 60


def test_what_another_process_has_done_meanwhile_is_kept(tmp_path):
    one, other = PredictionTable(tmp_path), PredictionTable(tmp_path)
    image = tmp_path / "in/a.png"
    assert add(one, image, {"mask": b"first"}) is not None
    assert other.find(image) is not None
    assert add(other, image, {"mask": b"second"}) is None
    assert (tmp_path / "a_mask.png").read_bytes() == b"first"


def test_a_new_map_takes_the_row_of_the_old_one(tmp_path):
    for name in "ab":
        add(PredictionTable(tmp_path), tmp_path / f"in/{name}.png")
    table = PredictionTable(tmp_path, overwrite=True)
    add(table, tmp_path / "in/a.png", share_red=0.75, evaluations_5=7)
    add(table, tmp_path / "in/c.png", share_red=0.25)
    assert [(row["share_red"], row["evaluations_5"]) for row in rows_of(tmp_path)] == [
        *(("0.75", "7"), ("0.5", ""), ("0.25", "")),
    ]


@pytest.mark.parametrize("name", ["=a.png", "-a.png", "a\nb.png", "a\\b.png", "a\udcff.png"])
def test_names_that_are_escaped_are_found_again(tmp_path, name):
    image = tmp_path / "in" / name
    mask = add(PredictionTable(tmp_path), image)
    assert PredictionTable(tmp_path).find(image) == mask
    assert add(PredictionTable(tmp_path), image) is None


@pytest.mark.parametrize("text", ["shopping\nmilk\n", "image,mask\na,b,c\n", "image\na\n"])
def test_a_table_of_another_kind_is_left_alone(tmp_path, text):
    (tmp_path / TABLE).write_text(text)
    with pytest.raises(CommandError, match="is no table of this command"):
        PredictionTable(tmp_path)
    assert (tmp_path / TABLE).read_text() == text
    add(PredictionTable(tmp_path, overwrite=True), tmp_path / "in/a.png")
    assert len(rows_of(tmp_path)) == 1


def test_rows_that_say_nothing_of_this_folder_are_kept(tmp_path):
    (tmp_path / TABLE).write_text(
        "image,mask,note\nx,../mine_mask.png,1\nb,,2\nc\\x00,c_mask.png,3\n"
    )
    table = PredictionTable(tmp_path)
    add(table, tmp_path / "in/a.png")
    assert [row["note"] for row in rows_of(tmp_path)] == ["1", "2", "3", ""]
