"""The loop around the images of a command: what one of them fails with costs no other."""

from __future__ import annotations

import argparse
import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

from .._files import is_disk_full
from .._progress import track
from ..datasets import Slide, list_images, list_passed_over
from ..estimators import BloodCellSegmenter
from ..ode import SolverError
from ..prediction import Segmented
from ._output import CommandError, about, complain, first_line, reported, write_results
from ._signals import held_off

# What an input may be to blame for. All else is a defect of this package.
INPUT_ERRORS = (
    OSError,
    ValueError,
    ImportError,  # of the package that reads its format
    MemoryError,
    SolverError,
    FloatingPointError,
    torch.OutOfMemoryError,
)

_N_LISTED = 20  # files left out of a folder
_KEPT_EVERY = 20.0  # seconds: what a kill can cost
_KEPT_SHARE = 20  # times what keeping has last taken, at least, passes before it is done again

_Input = TypeVar("_Input")
_Result = TypeVar("_Result")
Files = Mapping[Path, Callable[[Path], object]]  # what is to be written, and what writes it


class Outcome(NamedTuple):
    """What a command has come to: the files to write, and what says it in print."""

    files: Files
    show: Callable[[], object] = lambda: None


class Batch:
    """The inputs of a command, and what has become of them.

    Attributes
    ----------
    failed : dict of str to str
        Why inputs came to nothing, by their names.
    n_skipped : int
        Inputs that are done already.
    n_doubted : int
        Images whose results are in doubt.
    stems : dict of Path to str
        What the files of each image found are called without their endings: its own name, or its
        path from the folder that was searched with all that lies in it.
    places : dict of Path to Path
        Where the files of results have been written, by where they should have been.
    """

    def __init__(self, arguments: argparse.Namespace):
        self.failed: dict[str, str] = {}
        self.n_skipped = 0
        self.n_doubted = 0
        self.stems: dict[Path, str] = {}
        self.places: dict[Path, Path] = {}
        self._recursive = vars(arguments).get("recursive", False)
        self._quiet = arguments.quiet
        self._strict = arguments.strict

    def find(self, inputs: Sequence[Path]) -> list[Path]:
        """Return the images of files and folders, each once.

        Raises
        ------
        CommandError
            If there is none.
        """
        self.stems, failed = find_images(inputs, recursive=self._recursive)
        images = list(self.stems)
        self.failed |= failed
        if not images:
            has_more = any("subfolders are not searched" in why for why in failed.values())
            hint = " Pass --recursive to search subfolders." if has_more else ""
            raise CommandError(f"none of the inputs is an image.{hint}")
        no_text = [image for image in images if not _is_text(image)]
        if no_text:
            complain(
                f"names that are no text, such as {no_text[0]} (of {len(no_text)}), are shown "
                "and written escaped."
            )
        return images

    def run(
        self,
        inputs: Sequence[_Input],
        work: Callable[[_Input], _Result],
        *,
        doing: str,
        name: Callable[[_Input], str] = str,
    ) -> Iterator[_Result]:
        """Do the work on each input, and yield what comes of it.

        ``work`` is all that is done for one input, so that whatever it raises is the failure of
        that input alone, which is named. Only a `CommandError` and Ctrl-C end the command, and a
        full disk, on which the next ones would be worked on in vain.
        """
        for each in track(inputs, label=doing, unit="image", shown=not self._quiet):
            try:
                with about(name(each)):
                    result = work(each)
            except CommandError:
                raise
            except Exception as error:
                if is_disk_full(error):
                    raise CommandError(
                        f"{first_line(error)}. What was written before is kept; make room, and run "
                        "the rest again."
                    ) from error
                self.fail(name(each), error)
            else:
                yield result

    def collect(
        self,
        inputs: Sequence[_Input],
        work: Callable[[_Input], _Result],
        *,
        doing: str,
        none: str,
        sum_up: Callable[[list[_Result]], Outcome],
        name: Callable[[_Input], str] = str,
    ) -> list[_Result]:
        """Do the work on each input, as `run`, and return all that comes of it.

        ``sum_up`` returns what there is so far. Its files are written now and then, so that a kill,
        which no process hears of, costs the work of seconds and not of hours. In the end they are
        written and shown, also on Ctrl-C, of which another one waits for it.

        Raises
        ------
        CommandError
            If nothing comes of any: ``none`` is what it says. If files cannot be written.
        """
        results: list[_Result] = []
        kept = _NowAndThen(lambda: self._keep(sum_up(results).files))
        try:
            for result in self.run(inputs, work, doing=doing, name=name):
                results.append(result)
                kept.look()
        finally:
            if results:
                with held_off():
                    outcome = sum_up(results)
                    try:
                        self.write(outcome.files)
                    finally:  # what is printed may be all there is
                        outcome.show()
        if not results:
            raise CommandError(none)
        return results

    def write(self, files: Files) -> None:
        """Write results; where one cannot be, `places` says what it is instead."""
        for path, write in files.items():
            self.places[path] = write_results(path, write)

    def _keep(self, files: Files) -> None:
        """Write what there is so far. Where that fails there is nothing lost yet: work goes on."""
        try:
            for path, write in files.items():
                with reported(path):
                    write(path)
        except CommandError as error:
            complain(f"{error}. The work goes on, and it is tried again.")

    def fail(self, name: str, error: Exception) -> None:
        """Report an input that came to nothing."""
        self.failed[name] = explain(error)
        complain(f"{name} skipped: {self.failed[name]}")

    def judge(self, found: Segmented) -> None:
        """Count an image whose results are in doubt."""
        self.n_doubted += bool(found.doubts())

    @property
    def exit_code(self) -> int:
        """1 where not all is as asked for, or a strict user would not trust a result."""
        elsewhere = any(path != place for path, place in self.places.items())
        in_doubt = self._strict and self.n_doubted
        return int(bool(self.failed or self.n_skipped or elsewhere or in_doubt))


class _NowAndThen:
    """Calls a function at most so often that it takes a small share of the time."""

    def __init__(self, function: Callable[[], object]):
        self._function = function
        self._next = time.monotonic() + _KEPT_EVERY

    def look(self) -> None:
        """Call it if its time has come."""
        started = time.monotonic()
        if started < self._next:
            return
        self._function()
        ended = time.monotonic()
        self._next = ended + max(_KEPT_EVERY, _KEPT_SHARE * (ended - started))


def find_images(
    inputs: Sequence[Path], *, recursive: bool = False
) -> tuple[dict[Path, str], dict[str, str]]:
    """Return the images of files and folders, each once, and why other inputs hold none.

    Each image comes with its name without ending, in a folder searched with its subfolders the
    path from there. What is passed over in folders is listed on stderr.
    """
    found: dict[str, tuple[Path, str]] = {}
    failed: dict[str, str] = {}
    for path in inputs:
        try:
            for image in list_images(path, recursive=recursive):
                inside = image.relative_to(path) if image != path else Path(image.name)
                stem = inside.with_name(inside.stem).as_posix()
                found.setdefault(os.path.realpath(image), (image, stem))
            others = list_passed_over(path, recursive=recursive)
        except Exception as error:
            failed[str(path)] = explain(error)
            complain(f"{path} skipped: {failed[str(path)]}")
        else:
            _list_passed_over(path, others)
    return dict(found.values()), failed


def _is_text(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _list_passed_over(folder: Path, others: Sequence[tuple[Path, str]]) -> None:
    if others:
        named = ", ".join(
            f"{entry.relative_to(folder)} ({why})" for entry, why in others[:_N_LISTED]
        )
        more = f" and {len(others) - _N_LISTED} more" if len(others) > _N_LISTED else ""
        complain(f"left out of {folder}: {named}{more}.")


def explain(error: Exception) -> str:
    """Return in one line why an input failed."""
    if isinstance(error, INPUT_ERRORS):
        return first_line(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"{type(error).__name__}: {first_line(error)} ({Path(place.filename).name}, line "
        f"{place.lineno}). That is a defect of bloodseg, not of the image: please report this line."
    )


def segment_one(segmenter: BloodCellSegmenter, image: Path | Slide) -> Segmented:
    """Return what the network says of one image."""
    (found,) = segmenter.segment([image])
    return found


def list_evaluations(found: Segmented) -> dict[str, Any]:
    """Return the evaluations of f at each position, as columns of a table."""
    return {f"evaluations_{position}": count for position, count in found.evaluations.items()}
