"""One job: train, save the model, predict the test images."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import Timeout
from sklearn.utils import Bunch

from .._hardware import choose_device, name_processor
from .._version import __version__
from ..estimators import BloodCellSegmenter
from ..metrics import confusion_matrix
from ..model_selection import predict_at, share_that_differs
from ..ode import SolverError
from ._plans import Job, format_tolerance
from ._protocol import split_and_augment
from ._store import Store
from ._work import work_of_blocks

_N_PREDICTIONS = 3  # whose median time is taken
_POLL_SECONDS = 2.0

DONE, BUSY = "done", "busy"

# Of a training or of its predictions: the study goes on with the others.
_FAILURES = (SolverError, FloatingPointError, MemoryError, torch.OutOfMemoryError)


class JobFailed(Exception):
    """A training that broke down; the study goes on without it."""


def run_job(
    job: Job,
    identity: dict[str, Any],
    wait: bool,
    *,
    train: Bunch,
    test: Bunch,
    store: Store,
    verbose: int = 0,
) -> tuple[Job, str]:
    """Run a job unless it is done, and return it with `DONE`, `BUSY` or why it failed.

    Jobs of one training share its checkpoint, so the lock is the training's. Where another process
    holds it, the job is `BUSY`, or with ``wait`` waited for.
    """
    lock = store.lock(identity["training"])
    try:
        with lock.acquire(timeout=-1 if wait else 0, poll_interval=_POLL_SECONDS):
            if not store.is_done(job):
                asked = {*job.tolerances, *store.tolerances(job)}
                job = replace(job, tolerances=tuple(sorted(asked)))
                segmenter = _fit(job, train, identity["protocol"], store, verbose)
                segmenter.save(store.model(job.name))
                store.write(job, {**_make_record(job, segmenter, test), **identity})
    except Timeout:
        return job, BUSY
    except (*_FAILURES, JobFailed) as failure:
        return job, str(failure)
    return job, DONE


def _fit(job: Job, train: Bunch, protocol: str, store: Store, verbose: int) -> Any:
    segmenter = BloodCellSegmenter(
        **job.parameters,
        random_state=job.seed,
        checkpoint_dir=store.checkpoints,
        verbose=verbose,
    )
    more: dict[str, Any] = {}
    if protocol == "paper":
        train, valid = split_and_augment(train, seed=job.seed)
        more = {"X_val": valid.images, "y_val": valid.masks}
    segmenter.fit(train.images, train.masks, groups=train.groups, **more)
    # fit keeps what there is when a training ends early; a study wants all epochs or none.
    if segmenter.end_reason_ == "interrupted":
        raise KeyboardInterrupt
    if segmenter.end_reason_ == "broke down":
        raise JobFailed(segmenter.end_message_)
    return segmenter


def _make_record(job: Job, segmenter: Any, test: Bunch) -> dict[str, Any]:
    best = segmenter.history_[segmenter.best_epoch_ - 1]
    return {
        "name": job.name,
        "study": job.study,
        "dataset": job.dataset,
        "network": job.network,
        "seed": job.seed,
        "train_tol": job.train_tol,
        "n_parameters": sum(weight.numel() for weight in segmenter.network_.parameters()),
        "best_epoch": segmenter.best_epoch_,
        "valid_mean_iou": best.get("valid_mean_iou"),
        "train_seconds": sum(row["seconds"] for row in segmenter.history_),
        "history": segmenter.history_,
        "precision": segmenter.precision_,
        "version": __version__,
        "commit": _find_commit(),
        "machine": name_processor(choose_device(segmenter.device)),
        "images": list(test.names),
        "predictions": _predict_at_each(job, segmenter, test),
        "work": work_of_blocks(segmenter, test.images, test.masks),
    }


@lru_cache(maxsize=1)
def _find_commit(package: Path = Path(__file__).parents[1]) -> str:
    """Return the commit that last changed the package, or "" where no checkout holds it."""
    command = ["git", "-C", str(package), "log", "-1", "--format=%h", "--", "."]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except OSError:  # no git
        return ""


def _predict_at_each(job: Job, segmenter: Any, test: Bunch) -> list[dict[str, Any]]:
    """Return what each tolerance of prediction comes to, from the tightest to the loosest."""
    segmenter.predict(test.images[:1])  # what is done once is not any tolerance's cost
    tolerances: list[float | None] = [*job.tolerances] or [None]
    found, tightest = [], None
    for tolerance in tolerances:
        maps, seconds, evaluations = predict_at(
            segmenter, test.images, tolerance, n_repeats=_N_PREDICTIONS
        )
        tightest = maps if tightest is None else tightest
        pairs = zip(test.masks, maps, strict=True)
        found.append(
            {
                "tolerance": tolerance,
                "predict_tol": job.train_tol if tolerance is None else format_tolerance(tolerance),
                "seconds": seconds,
                "evaluations": evaluations.tolist(),
                "changed": share_that_differs(tightest, maps),
                "confusion": np.array(
                    [confusion_matrix([mask], [predicted]) for mask, predicted in pairs]
                ).tolist(),
            }
        )
    return found
