"""How far work has come: bars for who watches, lines in a log."""

import io
import sys
import types

import pytest

from bloodseg import _progress
from bloodseg._progress import Progress, open_bar, track, write_line


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """A stderr that someone watches."""
    stream = Terminal()
    # Not sys.stderr itself, which pytest puts back between a fixture and its test.
    seen = types.SimpleNamespace(stderr=stream, modules=sys.modules)
    monkeypatch.setattr(_progress, "sys", seen)
    return stream


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands until a test moves it: ``clock[0] += seconds``."""
    now = [1000.0]
    monkeypatch.setattr(_progress.time, "monotonic", lambda: now[0])
    return now


def work(clock, n, seconds, **options):
    given = {"label": "counting", "unit": "image", "shown": True, **options}
    for _ in track(range(n), **given):
        clock[0] += seconds


def test_a_terminal_has_a_bar(terminal):
    items = list(track("abc", label="counting", unit="image", shown=True))
    assert items == ["a", "b", "c"]
    shown = terminal.getvalue()
    assert "counting: 100%" in shown
    assert "3/3" in shown


def test_a_bar_goes_on_where_the_work_stood(terminal):
    with Progress(4, label="study", unit="job", done=3) as progress:
        progress.advance()
    shown = terminal.getvalue()
    assert "study:  75%" in shown
    assert "study: 100%" in shown


def test_nothing_is_shown_where_nothing_shall_be(terminal, clock):
    work(clock, 3, 60, shown=False)
    assert terminal.getvalue() == ""


def test_a_log_has_a_line_every_half_minute_and_one_at_the_end(clock, capsys):
    work(clock, 10, 12)
    assert capsys.readouterr().err.splitlines() == [
        "counting: 3 of 10 images (30%) in 00:36, about 01:24 left",
        "counting: 6 of 10 images (60%) in 01:12, about 00:48 left",
        "counting: 9 of 10 images (90%) in 01:48, about 00:12 left",
        "counting: 10 of 10 images (100%) in 02:00",
    ]


def test_work_of_seconds_leaves_no_line_in_a_log(clock, capsys):
    work(clock, 10, 2.9)
    assert capsys.readouterr().err == ""


def test_work_of_days_has_a_hundred_lines(clock, capsys):
    work(clock, 2000, 40)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 100
    assert lines[0] == "counting: 20 of 2000 images (1%) in 13:20, about 22:00:00 left"


def test_what_was_done_before_tells_nothing_of_the_time_that_is_left(clock, capsys):
    with Progress(100, label="study", unit="job", done=90) as progress:
        clock[0] += 60
        progress.advance()
    assert capsys.readouterr().err == "study: 91 of 100 jobs (91%) in 01:00, about 09:00 left\n"


def test_a_log_that_cannot_be_written_ends_no_work(clock, monkeypatch):
    class Full(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Full())
    work(clock, 3, 60)


def test_a_program_without_stderr_prints_nothing_elsewhere(clock, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", None)  # as of pythonw
    work(clock, 3, 60)
    write_line("epoch 1")
    assert capsys.readouterr().out == ""


@pytest.fixture
def notebook(monkeypatch):
    """What Jupyter's kernel shows of itself, with or without ipywidgets."""
    shell = types.SimpleNamespace(config={"IPKernelApp": {}})
    ipython = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    return shell


def test_a_notebook_has_its_own_bar(notebook, monkeypatch):
    made = types.SimpleNamespace(tqdm=lambda **options: options)
    monkeypatch.setitem(sys.modules, "tqdm.notebook", made)
    monkeypatch.setattr(_progress, "find_spec", lambda name: name == "ipywidgets")
    bar = open_bar(3, label="counting", unit="image", done=1)
    assert (bar["total"], bar["initial"], bar["desc"], bar["unit"]) == (3, 1, "counting", "image")


@pytest.mark.filterwarnings("error")
def test_a_notebook_without_widgets_has_a_bar_of_text(notebook, monkeypatch, capsys):
    monkeypatch.setattr(_progress, "find_spec", lambda name: None)
    assert list(track("ab", label="counting", unit="image", shown=True)) == ["a", "b"]
    assert "counting: 100%" in capsys.readouterr().err


def test_a_console_of_ipython_is_no_notebook(notebook):
    notebook.config = {"TerminalIPythonApp": {}}
    assert open_bar(3, label="counting", unit="image") is None
