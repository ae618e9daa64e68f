"""Tables in CSV: texts safe in spreadsheets and on terminals, numbers that stay numbers."""

import csv

import pandas as pd
import pytest

from bloodseg.cli._tables import from_cell, to_cell, write_csv


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("a.png", "a.png"),
        ("für 血.png", "für 血.png"),
        ("a\nb\x1b[2J.png", r"a\nb\x1b[2J.png"),
        ("a\udcff.png", r"a\udcff.png"),
        (r"a\n.png", r"a\\n.png"),
        ("=1+1.png", "./=1+1.png"),
        ("@a.png", "./@a.png"),
        ("-5", "./-5"),
        ("+a.png", "./+a.png"),
        ("\uff1d1+1.png", "./\uff1d1+1.png"),
        ("\uff0da.png", "./\uff0da.png"),
        (-5, -5),
        (-0.5, -0.5),
        (None, ""),
        (float("nan"), ""),
    ],
)
def test_cells(value, cell):
    assert to_cell(value) == cell
    if isinstance(value, str):
        assert from_cell(cell).removeprefix("./") == value


def test_a_table_of_any_names_is_text_that_pandas_reads(tmp_path):
    names = ["a\udcff.png", "=cmd.png", "ü\r\n.png"]
    write_csv(tmp_path / "t.csv", [{"image": name, "red": -1.5, "white": 3} for name in names])
    table = pd.read_csv(tmp_path / "t.csv")
    assert [from_cell(name).removeprefix("./") for name in table["image"]] == names
    assert table["red"].tolist() == [-1.5] * 3
    assert len((tmp_path / "t.csv").read_bytes().splitlines()) == 4


def test_columns_may_differ(tmp_path):
    write_csv(tmp_path / "t.csv", [{"a": 1}, {"b": 2}], columns=["c"])
    with (tmp_path / "t.csv").open(newline="") as lines:
        assert list(csv.reader(lines)) == [["c", "a", "b"], ["", "1", ""], ["", "", "2"]]
