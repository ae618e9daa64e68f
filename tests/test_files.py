"""Files that are written whole or not at all."""

import errno
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from bloodseg import _files
from bloodseg._files import check_place, expanded, is_disk_full, written_whole

WRITER = """
import sys, time
from pathlib import Path
from bloodseg._files import written_whole
with written_whole(Path(sys.argv[1]), folder=sys.argv[2] == "folder") as unfinished:
    print(unfinished, flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def _nothing_swept(monkeypatch):
    monkeypatch.setattr(_files, "_swept", set())


def start_writer(path, kind="file"):
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), kind], stdout=subprocess.PIPE, text=True
    )
    return writer, writer.stdout.readline().strip()


def test_threads_write_one_path(tmp_path):
    def write(number):
        with written_whole(tmp_path / "a") as unfinished:
            unfinished.write_text(str(number) * 100_000)
        text = (tmp_path / "a").read_text()
        return len(text) == 100_000 and len(set(text)) == 1

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(write, [1, 2, 3, 4, 5, 6, 7, 8] * 10))
    assert os.listdir(tmp_path) == ["a"]


WITHOUT_LOCKS = """
import sys
from pathlib import Path
sys.modules["fcntl"] = None  # as on Windows
import bloodseg
from bloodseg._files import written_whole
with written_whole(Path("a")) as unfinished:
    unfinished.write_text("x")
with written_whole(Path("b"), folder=True) as unfinished:
    (unfinished / "c").touch()
"""


def test_systems_without_locks_write_files_all_the_same(tmp_path):
    (tmp_path / ".bloodseg-0.tmp").touch()  # perhaps of a writer that lives
    subprocess.run([sys.executable, "-c", WITHOUT_LOCKS], cwd=tmp_path, check=True)
    assert sorted(os.listdir(tmp_path)) == [".bloodseg-0.tmp", "a", "b"]
    assert (tmp_path / "a").read_text() == "x"
    assert os.listdir(tmp_path / "b") == ["c"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG])
def test_where_there_is_no_room_the_error_names_the_file(tmp_path, number):
    named = re.escape(f"[Errno {number}] {os.strerror(number)}: {str(tmp_path / 'a')!r}")
    with pytest.raises(OSError, match=named) as caught, written_whole(tmp_path / "a"):
        raise OSError(number, os.strerror(number))  # as `write` raises it
    assert is_disk_full(caught.value) == (number == errno.ENOSPC)
    assert not is_disk_full(OSError(number, os.strerror(number)))  # of another file
    assert os.listdir(tmp_path) == []


def test_other_errors_are_not_blamed_on_the_file(tmp_path):
    with pytest.raises(OSError, match=r"Input/output error$"), written_whole(tmp_path / "a"):
        raise OSError(errno.EIO, os.strerror(errno.EIO))  # of what was read meanwhile


@pytest.mark.parametrize("name", ["n" * 255, "血" * 85, os.fsdecode(b"a\xff"), "~x"])
def test_names_as_long_and_odd_as_files_may_have(tmp_path, name):
    with written_whole(tmp_path / name) as unfinished:
        unfinished.write_text("x")
    assert os.listdir(tmp_path) == [name]


def test_a_file_is_made_as_any_other(tmp_path):
    (tmp_path / "plain").touch()
    with written_whole(tmp_path / "whole") as unfinished:
        unfinished.write_text("x")
    modes = [(tmp_path / name).stat().st_mode for name in ("plain", "whole")]
    assert modes[0] == modes[1]


@pytest.mark.parametrize("folder", [False, True])
def test_nothing_is_left_of_what_broke_off(tmp_path, folder):
    def write_half():
        with written_whole(tmp_path / "a", folder=folder) as new:
            (new / "part" if folder else new).write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="full"):
        write_half()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_leftovers_are_removed_but_never_what_is_being_written(tmp_path, kind):
    killed, dead = start_writer(tmp_path / "a", kind)
    living, held = start_writer(tmp_path / "b", kind)
    try:
        killed.kill()
        killed.communicate()
        mine = tmp_path / ".bloodseg-settings"
        mine.touch()
        with written_whole(tmp_path / "c") as unfinished:
            unfinished.touch()
        assert not os.path.exists(dead)
        assert os.path.exists(held)
        assert mine.exists()
    finally:
        living.kill()
        living.communicate()


def test_links_among_leftovers_are_not_followed(tmp_path):
    (tmp_path / "precious").write_text("x")
    (tmp_path / ".bloodseg-0.tmp").symlink_to(tmp_path / "precious")
    os.mkfifo(tmp_path / ".bloodseg-1.tmp")
    with written_whole(tmp_path / "a") as unfinished:
        unfinished.touch()
    assert (tmp_path / "precious").read_text() == "x"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("pipe", "is a pipe or a device, which a file would take the place of."),
        ("link", "is a pipe or a device"),
        ("folder", "is a folder."),
        ("none/a", "which is no folder."),
        ("n" * 256, "cannot be a path (File name too long)."),
        ("a\0b", "cannot be a path (it holds a null byte)."),
    ],
)
def test_places_where_no_file_can_be(tmp_path, name, why):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=re.escape(why)):
        check_place(tmp_path / name, "The table")
    with pytest.raises(OSError, match=re.escape(why)), written_whole(tmp_path / name):
        pass
    assert sorted(os.listdir(tmp_path)) == ["folder", "link", "pipe"]


def test_a_tilde_is_the_home_folder_unless_a_file_has_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/of-mine")
    assert str(expanded("~/a.png")) == "/home/of-mine/a.png"
    assert str(expanded("~no-such-user/a.png")) == "~no-such-user/a.png"
    for name in ("~x.png", "~"):
        (tmp_path / name).touch()
        assert str(expanded(name)) == name
