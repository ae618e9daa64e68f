"""The folder of a study: one file a finished job, and the table made of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from filelock import FileLock
from sklearn.utils import Bunch

from .._files import expanded, write_json, written_whole
from ..metrics import scores_from_confusion
from ._plans import Job, find_set_apart, make_file_name

KEYS = ["study", "dataset", "network", "seed", "train_tol", "predict_tol"]
SCORES = ["pixel_accuracy", "mean_iou", "cpa_background", "cpa_white", "cpa_red"]
_ADDED = {"epochs": np.nan, "machine": "", "commit": ""}  # tables of earlier versions lack them
COLUMNS = [*KEYS, *SCORES, "seconds", "evaluations", "parameters", *_ADDED]
RESULTS = "results.csv"
_N_EXAMPLES = 4  # as in the paper's Figures 7 and 8
# What a record, and each prediction of it, must have.
_OF_A_RECORD = "name study dataset network seed train_tol n_parameters best_epoch valid_mean_iou"
_OF_A_RECORD += " train_seconds history images predictions work parameters protocol data"
_OF_A_PREDICTION = "tolerance predict_tol seconds evaluations changed confusion"


class Examples(NamedTuple):
    """A few test images for figures."""

    images: list[np.ndarray]
    masks: list[np.ndarray]
    names: list[str]


class Store:
    """What the jobs of studies leave in a folder, which several processes may share.

    Parameters
    ----------
    folder : path
        The folder; `make` makes it.
    """

    def __init__(self, folder: Any):
        self.folder = expanded(folder)
        self.checkpoints = self.folder / "checkpoints"
        self.models = self.folder / "models"
        self._jobs = self.folder / "jobs"
        self._locks = self.folder / "locks"

    def make(self) -> Store:
        """Make the folders that are missing."""
        for path in (self.models, self._jobs, self._locks):
            path.mkdir(parents=True, exist_ok=True)
        return self

    def model(self, name: str) -> Path:
        """Return the model file of a job."""
        return self.models / f"{name}.safetensors"

    def lock(self, name: str) -> FileLock:
        """Return a lock that the system releases when its holder dies."""
        return FileLock(self._locks / f"{name}.lock")

    def read(self, job: Job) -> dict[str, Any] | None:
        """Return the record of a job, if it is finished."""
        file = self._jobs / f"{job.name}.json"
        return _read_record(file) if file.exists() else None

    def write(self, job: Job, record: Mapping[str, Any]) -> None:
        """Write the record of a job: from now on it is finished."""
        write_json(self._jobs / f"{job.name}.json", record)

    def check(self, jobs: Sequence[Job], identities: Mapping[str, Mapping[str, Any]]) -> None:
        """Check that what the folder holds of these jobs' study is of the same data and settings.

        Raises
        ------
        ValueError
            If it is not: the networks of a study must have the same, to be compared.
        """
        for record in self.records():
            for job in jobs:
                # By the names of files: "A b" and "a-b" are one there.
                alike = make_file_name(job.dataset) == make_file_name(record["dataset"])
                if job.study != record["study"] or not alike:
                    continue
                apart = (*find_set_apart(job.network, record["network"]), "random_state")
                apart = () if job.name == record["name"] else apart
                difference = _describe_difference(record, identities[job.name], apart)
                if difference:
                    raise ValueError(
                        f"output must be a folder without another study of this name; "
                        f"{self.folder} holds {record['name']} with {difference}. Choose another "
                        "folder, or another name of the dataset."
                    )

    def is_done(self, job: Job) -> bool:
        """Return whether a job is finished, with all the tolerances that it asks for."""
        return self.read(job) is not None and set(job.tolerances) <= set(self.tolerances(job))

    def tolerances(self, job: Job) -> list[float]:
        """Return the tolerances given to a job that is finished; none for one that is not."""
        record = self.read(job) or {"predictions": []}
        given = [prediction["tolerance"] for prediction in record["predictions"]]
        return [tolerance for tolerance in given if tolerance is not None]

    def records(self) -> list[dict[str, Any]]:
        """Return all records, sorted by name."""
        return [_read_record(file) for file in sorted(self._jobs.glob("*.json"))]

    def keep_examples(self, dataset: str, test: Bunch) -> None:
        """Keep a few test images for the figures, drawn at random but the same ones each time."""
        rng = np.random.default_rng(0)
        chosen = np.sort(rng.permutation(len(test.images))[:_N_EXAMPLES])
        arrays: dict[str, Any] = {"names": np.array([str(test.names[i]) for i in chosen])}
        for number, index in enumerate(chosen):
            arrays[f"image_{number}"] = test.images[index]
            arrays[f"mask_{number}"] = test.masks[index]
        with written_whole(self._examples(dataset)) as unfinished, unfinished.open("wb") as file:
            np.savez_compressed(file, **arrays)

    def examples(self, dataset: str) -> Examples | None:
        """Return the test images kept for the figures, if there are any."""
        file = self._examples(dataset)
        if not file.exists():
            return None
        with np.load(file, allow_pickle=False) as arrays:
            names = arrays["names"].tolist()
            images, masks = (
                [arrays[f"{kind}_{number}"] for number in range(len(names))]
                for kind in ("image", "mask")
            )
        return Examples(images, masks, names)

    def _examples(self, dataset: str) -> Path:
        return self.folder / f"examples-{make_file_name(dataset)}.npz"

    def update_results(self) -> pd.DataFrame:
        """Write results.csv anew from all records, and return it."""
        with self.lock("results"):
            table = make_results_table(self.records())
            write_table(self.folder / RESULTS, table)
        return table


def _read_record(file: Path) -> dict[str, Any]:
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        lacking = set(_OF_A_RECORD.split()) - record.keys()
        for prediction in record.get("predictions", ()):
            lacking |= set(_OF_A_PREDICTION.split()) - prediction.keys()
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{file} cannot be read as the record of a job ({error}). "
            "Delete it to run the job anew."
        ) from error
    if lacking:
        raise ValueError(
            f"{file} lacks {', '.join(sorted(lacking))}, as a record of another version of "
            "bloodseg may. Delete it to run the job anew."
        )
    return record


def _describe_difference(
    held: Mapping[str, Any], wanted: Mapping[str, Any], apart: Sequence[str]
) -> str:
    """Return in words where two trainings differ, but for parameters that set them apart."""
    if held["data"] != wanted["data"]:
        return "other images, label maps, names or groups"
    pairs = {"protocol": (held["protocol"], wanted["protocol"])}
    for name, value in wanted["parameters"].items():
        if name not in apart:
            pairs[name] = (held["parameters"].get(name), value)
    return ", ".join(f"{name}={a!r}, not {b!r}" for name, (a, b) in pairs.items() if a != b)


def make_results_table(records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return one row for each study, data set, network, seed and pair of tolerances."""
    rows = [
        {
            **{name: record[name] for name in KEYS[:5]},
            "predict_tol": prediction["predict_tol"],
            **scores_from_confusion(np.sum(prediction["confusion"], axis=0)),
            "seconds": prediction["seconds"],
            "evaluations": float(np.mean(prediction["evaluations"])),
            "parameters": record["n_parameters"],
            "epochs": len(record["history"]),
            "machine": record.get("machine", ""),
            "commit": record.get("commit", ""),
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
        test set; NaN where it was not measured on a quiet machine), evaluations (of f for an
        image, over all blocks), parameters (weights of the network; 4 bytes each), epochs (of
        training; NaN in a table of an earlier version), machine (what it was trained on) and
        commit (of the package; both empty where unknown).

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no table of results.
    """
    file = expanded(path)
    file = file / RESULTS if file.is_dir() else file
    texts = dict.fromkeys([name for name in KEYS if name != "seed"] + ["machine", "commit"], str)
    try:
        empty = {name: [""] for name in COLUMNS if name not in texts}
        numbers = dict.fromkeys([*SCORES, "seconds", "evaluations"], float)
        types = {**texts, **numbers}
        table = pd.read_csv(file, dtype=types, keep_default_na=False, na_values=empty)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
        raise ValueError(f"{file} cannot be read as a table of results: {error}") from error
    table = table.assign(**{k: v for k, v in _ADDED.items() if k not in table.columns})
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise ValueError(
            f"{file} must have the columns {', '.join(COLUMNS)}; {', '.join(missing)} missing."
        )
    return table[COLUMNS]


def merge_results(path: Any, table: pd.DataFrame) -> None:
    """Put rows into a file of results, in place of those of the same run, and keep all others."""
    file = expanded(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_name(f".{file.name}.lock")):  # other studies may write there, too
        tables = [load_results(file), table] if file.exists() else [table]
        merged = pd.concat(tables, ignore_index=True).drop_duplicates(KEYS, keep="last")
        write_table(file, merged)


def write_table(file: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, whole or not at all."""
    with written_whole(file) as unfinished:
        table.to_csv(unfinished, index=False, lineterminator="\n", float_format="%.6g")
