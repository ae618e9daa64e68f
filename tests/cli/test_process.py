"""The command as a process of its own: exit codes, pipes, Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from shell import TINY

from bloodseg import BloodCellSegmenter

PATIENCE = 600  # seconds: on a busy machine, imports alone may take a minute


# `models` is the command that answers without torch, which takes seconds to import.


def test_process_ends_with_the_exit_code_and_without_a_traceback():
    done = subprocess.run(
        [sys.executable, "-m", "bloodseg", "models", "other"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("bloodseg: error: There is no model file at other. Published models: ")


@pytest.mark.parametrize("arguments", [["--help"], ["count", "--help"], ["count"]])
def test_help_does_without_heavy_packages(arguments):
    code = f"import sys; from bloodseg.cli import main; main({arguments}); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE
    )
    loaded = set(done.stdout.split())
    assert "bloodseg.cli" in loaded
    assert not {"torch", "sklearn", "pandas", "cv2"} & loaded


def test_a_closed_pipe_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "bloodseg", "models"],
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
        )
    assert done.stderr == ""
    assert done.returncode == 0


def test_a_stdout_that_is_closed_or_full_gives_no_traceback():
    command = f"{sys.executable} -m bloodseg models"
    for to, code, said in (
        (">&-", 0, ""),
        (">/dev/full", 2, "bloodseg: error: what is printed cannot be written: No space left on"),
    ):
        done = subprocess.run(
            f"{command} {to}", shell=True, capture_output=True, text=True, timeout=PATIENCE
        )
        assert (done.returncode, done.stderr.count("\n")) == (code, bool(said))
        assert done.stderr.startswith(said)


def test_ctrl_c_on_a_training_process_leaves_a_model(data, tmp_path):
    path, checkpoints = tmp_path / "m.safetensors", tmp_path / "checkpoints"
    command = [sys.executable, "-m", "bloodseg", "train", str(data), "-o", str(path), *TINY]
    command += ["--max-epochs", "100000", "--checkpoint-dir", str(checkpoints)]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs, and what they start, ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        while not list(checkpoints.glob("*.pt")) and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    finally:
        process.kill()
    assert process.returncode == 1
    assert "warning: Training was interrupted after" in err
    assert "Traceback" not in err
    assert len(BloodCellSegmenter.load(path).history_) >= 1
