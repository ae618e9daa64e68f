"""The folder of a study: one file a finished job, and the table made of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock

from .._files import write_json, written_whole
from ..metrics import scores_from_confusion
from ._plans import Job

KEYS = ["study", "dataset", "network", "seed", "train_tol", "predict_tol"]
SCORES = ["pixel_accuracy", "mean_iou", "cpa_background", "cpa_white", "cpa_red"]
COLUMNS = [*KEYS, *SCORES, "seconds", "evaluations", "parameters"]
RESULTS = "results.csv"

# What names a job's data and training: a record with other values is another study's.
_IDENTITY = ("parameters", "protocol", "data")


class Store:
    """What the jobs of studies leave in a folder, which several processes may share.

    Parameters
    ----------
    folder : path
        Made where it is missing.
    """

    def __init__(self, folder: Any):
        self.folder = Path(folder).expanduser()
        self.checkpoints = self.folder / "checkpoints"
        self.models = self.folder / "models"
        self._jobs = self.folder / "jobs"
        self._locks = self.folder / "locks"
        for path in (self.models, self._jobs, self._locks):
            path.mkdir(parents=True, exist_ok=True)

    def model(self, name: str) -> Path:
        """Return the model file of a job."""
        return self.models / f"{name}.safetensors"

    def lock(self, name: str) -> FileLock:
        """Return a lock that the system releases when its holder dies."""
        return FileLock(self._locks / f"{name}.lock")

    def read(self, job: Job) -> dict[str, Any] | None:
        """Return the record of a job, if it is finished."""
        file = self._jobs / f"{job.name}.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None

    def write(self, job: Job, record: Mapping[str, Any]) -> None:
        """Write the record of a job: from now on it is finished."""
        write_json(self._jobs / f"{job.name}.json", record)

    def is_done(self, job: Job, identity: Mapping[str, Any]) -> bool:
        """Return whether a job is finished, with all the tolerances that it asks for.

        Raises
        ------
        ValueError
            If the folder holds a job of this name with other data or parameters.
        """
        record = self.read(job)
        if record is None:
            return False
        for name in _IDENTITY:
            if record[name] != identity[name]:
                raise ValueError(
                    f"output must be a folder without {job.name} of other {name}; {self.folder} "
                    f"holds it with {_difference(record[name], identity[name])}. Choose another "
                    "folder, or another name of the dataset."
                )
        return set(job.tolerances) <= set(self.tolerances(job))

    def tolerances(self, job: Job) -> list[float]:
        """Return the tolerances given to a job that is finished; none for one that is not."""
        record = self.read(job) or {"predictions": []}
        given = [prediction["tolerance"] for prediction in record["predictions"]]
        return [tolerance for tolerance in given if tolerance is not None]

    def records(self) -> list[dict[str, Any]]:
        """Return all records, sorted by name."""
        return [json.loads(file.read_text("utf-8")) for file in sorted(self._jobs.glob("*.json"))]

    def update_results(self) -> pd.DataFrame:
        """Write results.csv anew from all records, and return it."""
        with self.lock("results"):
            table = results_table(self.records())
            write_table(self.folder / RESULTS, table)
        return table


def _difference(held: Any, wanted: Any) -> str:
    if not isinstance(held, Mapping):
        return f"{held}, not {wanted}"
    names = [name for name in wanted if held.get(name) != wanted[name]]
    return ", ".join(f"{name}={held.get(name)!r}, not {wanted[name]!r}" for name in names)


def results_table(records: list[dict[str, Any]]) -> pd.DataFrame:
    """Return one row for each study, data set, network, seed and pair of tolerances."""
    rows = [
        {
            **{name: record[name] for name in KEYS[:5]},
            "predict_tol": prediction["predict_tol"],
            **scores_from_confusion(np.sum(prediction["confusion"], axis=0)),
            "seconds": prediction["seconds"],
            "evaluations": float(np.mean(prediction["evaluations"])),
            "parameters": record["n_parameters"],
        }
        for record in records
        for prediction in record["predictions"]
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def load_results(path: Any) -> pd.DataFrame:
    """Load a table of results.

    Parameters
    ----------
    path : path
        A results.csv, or the output folder of a study that holds one.

    Returns
    -------
    DataFrame
        One row a training and prediction: study, dataset, network, seed, train_tol and
        predict_tol (str, for "paper" is one; empty without ODE-blocks), pixel_accuracy, mean_iou,
        cpa_background, cpa_white and cpa_red (in [0, 1], over all test images), seconds (for the
        test set), evaluations (of f for an image, over all blocks), parameters (weights of the
        network; 4 bytes each).

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no table of results.
    """
    file = Path(path).expanduser()
    file = file / RESULTS if file.is_dir() else file
    texts = dict.fromkeys(["study", "dataset", "network", "train_tol", "predict_tol"], str)
    try:
        empty = {name: [""] for name in COLUMNS if name not in texts}
        numbers = dict.fromkeys([*SCORES, "seconds", "evaluations"], float)
        types = {**texts, **numbers}
        table = pd.read_csv(file, dtype=types, keep_default_na=False, na_values=empty)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
        raise ValueError(f"{file} cannot be read as a table of results: {error}") from error
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise ValueError(
            f"{file} must have the columns {', '.join(COLUMNS)}; {', '.join(missing)} missing."
        )
    return table[COLUMNS]


def merge_results(path: Any, table: pd.DataFrame) -> None:
    """Put rows into a file of results, in place of those of the same run, and keep all others."""
    file = Path(path).expanduser()
    file.parent.mkdir(parents=True, exist_ok=True)
    tables = [load_results(file), table] if file.exists() else [table]
    merged = pd.concat(tables, ignore_index=True).drop_duplicates(KEYS, keep="last")
    write_table(file, merged)


def write_table(file: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, whole or not at all."""
    with written_whole(file) as unfinished:
        table.to_csv(unfinished, index=False, lineterminator="\n", float_format="%.6g")
