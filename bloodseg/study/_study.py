"""Run a study: its jobs side by side, and what is done kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from numbers import Integral
from typing import Any

import joblib
import pandas as pd
from sklearn.utils import Bunch

from .._images import check_images, check_masks
from .._progress import Progress
from ..estimators import BloodCellSegmenter, of_the_result
from ..model_selection import check_tolerances
from ..ode import warn_caller
from ._plans import PREDICT_TOLERANCES, TRAIN_TOLERANCES, Job, plan
from ._protocol import paper_crops
from ._run import BUSY, DONE, run_job
from ._store import Store, merge_results

_PROTOCOLS = ("folder", "paper")
PAPER_CROP = 256
BATCH_SIZE = 4  # on every machine, so that rows of several can be compared
_SET_BY_STUDY = (
    "accelerator",
    "checkpoint_dir",
    "classes",
    "network",
    "ode_positions",
    "predict_ode_tol",
    "random_state",
    "verbose",
    "warm_start",
)

# Studies that have no use for ode_tol, and what they do instead.
_TRAINED_AT = {
    "positions": "whose networks are trained at 0.001 as the paper's are",
    "tolerance": "which trains at train_tolerances",
}


def run_study(
    study: str,
    train: Any,
    test: Any = None,
    *,
    output: Any,
    dataset: str = "data",
    networks: Sequence[str] | None = None,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    train_tolerances: Sequence[float] = TRAIN_TOLERANCES,
    predict_tolerances: Sequence[float] = PREDICT_TOLERANCES,
    protocol: str = "folder",
    results: Any = None,
    n_jobs: int | None = None,
    verbose: int = 0,
    **parameters: Any,
) -> pd.DataFrame:
    """Run one of the paper's experiments over seeds, on any images.

    Every network and seed is a job, with the same split, augmentation and steps for all networks
    of a seed. Finished jobs are kept in the output folder: a study that was killed goes on where
    it was, and several processes, or machines with a common file system, may share the work.

    Parameters
    ----------
    study : {"positions", "networks", "tolerance"}
        The paper's Table 1 (one ODE-block at each of nine positions), its Table 2 (U-Net, ResNet,
        NODEs-UNet), or one NODEs-UNet a training tolerance that predicts at several.
    train, test : Bunch with ``images``, ``masks``, ``groups`` and ``names``
        As `bloodseg.datasets.load_folder` returns them; groups and names may be missing. ``test``
        may be None where ``protocol`` is "paper".
    output : path
        Folder for results.csv, checkpoints, models and a file for each job.
    dataset : str, default="data"
        Name of the data in the results.
    networks : sequence of str, optional
        Some of the study's networks, by the estimator's names ("unet") or those of the tables
        ("U-Net"); by default all of "positions" (with "odeunet1" to "odeunet9") and "tolerance",
        of "networks" the paper's: "unet", "resnet-unet", "nodes-unet" and
        "nodes-unet-paper-tolerances". It also knows what the paper builds on ("fcn",
        "feedback-unet", "d-linknet") and controls: U-Nets and ResNets as wide as makes them as
        large as NODEs-UNet, "unet-as-many-weights", or as slow, "unet-as-much-time".
    seeds : sequence of int, default=(0, 1, 2, 3, 4)
        One ``random_state`` a training. Fewer than five come to no verdict.
    train_tolerances, predict_tolerances : sequences of float
        Tolerances of the study "tolerance".
    protocol : {"folder", "paper"}, default="folder"
        "folder" trains on ``train`` and tests on ``test``. "paper" cuts crops of 256 pixels from
        the images of ``train``, splits by image or group, and augments tenfold, see
        `paper_protocol`; a fifth of the images is kept for testing.
    results : path, optional
        A CSV file that the rows are put into, too, in place of those of the same run.
    n_jobs : int, optional
        Jobs at a time, through joblib: None is 1 unless in a `joblib.parallel_config` context,
        whose backend (processes by default, dask, ...) is used.
    verbose : int, default=0
        1 shows how many jobs are done and about how long the rest takes: a bar in a terminal or a
        notebook, lines in a log.
    **parameters
        Parameters of `bloodseg.BloodCellSegmenter` for all networks, such as ``width`` or
        ``max_epochs``; ``ode_tol`` is for the NODEs-UNet of "networks". ``batch_size`` is 4 where
        it is not given, whatever the machine. ``classes`` are those of the paper.

    Returns
    -------
    DataFrame
        The rows of all that the output folder holds, as `load_results` describes them. Its
        ``attrs["failures"]`` says of each training that came to no result why.

    Raises
    ------
    ValueError
        If an argument is not as described, or the folder holds the same study of other data or
        parameters.

    Examples
    --------
    >>> import tempfile
    >>> from bloodseg.datasets import make_smears
    >>> from bloodseg.study import run_study
    >>> smears = make_smears(4, image_size=64, random_state=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     table = run_study(
    ...         "networks", smears, smears, output=folder, networks=["unet"], seeds=[0],
    ...         width=4, max_epochs=1, crop_size=32,
    ...     )
    >>> table[["network", "seed", "evaluations", "parameters"]]
      network  seed  evaluations  parameters
    0   U-Net     0          0.0      122103
    """
    _check(study, seeds, protocol, parameters)
    parameters = {"batch_size": BATCH_SIZE, **parameters}
    train, test, parameters = _prepare(train, test, protocol, parameters)
    jobs = plan(
        study,
        dataset,
        seeds,
        parameters,
        networks=networks,
        train_tolerances=check_tolerances(train_tolerances, "train_tolerances"),
        predict_tolerances=check_tolerances(predict_tolerances, "predict_tolerances"),
    )
    store = Store(output).make()
    hashes = joblib.hash(train), joblib.hash(test)
    identities = {job.name: _identify(job, protocol, *hashes) for job in jobs}
    store.check(jobs, identities)
    store.keep_examples(dataset, test)
    alone = joblib.effective_n_jobs(n_jobs) == 1
    run = partial(run_job, train=train, test=test, store=store, verbose=verbose * alone)
    try:
        failures = _run_all(jobs, identities, run, store, n_jobs, verbose)
    finally:  # also on Ctrl-C: what is done is done
        table = store.update_results()
        if results is not None:
            merge_results(results, table)
    for name, reason in failures.items():
        warn_caller(f"{name} came to no result: {reason}")
    table.attrs["failures"] = failures
    return table


def _run_all(
    jobs: Sequence[Job],
    identities: Mapping[str, dict[str, Any]],
    run: Callable[..., tuple[Job, str]],
    store: Store,
    n_jobs: int | None,
    verbose: int,
) -> dict[str, str]:
    """Run the jobs that are not done, and return which failed and why."""
    waiting = [job for job in jobs if not store.is_done(job)]
    failures: dict[str, str] = {}
    done = len(jobs) - len(waiting)
    with Progress(len(jobs), label="study", unit="job", done=done, shown=bool(verbose)) as progress:
        # First what no other process is at; then the rest is waited for, in case they give up.
        for wait in (False, True):
            calls = [joblib.delayed(run)(job, identities[job.name], wait) for job in waiting]
            waiting = []
            if not calls:
                break
            for job, outcome in joblib.Parallel(n_jobs, return_as="generator_unordered")(calls):
                if outcome == BUSY:
                    waiting.append(job)
                    continue
                if outcome != DONE:
                    failures[job.name] = outcome
                store.update_results()
                progress.advance()
    return failures


def _identify(job: Job, protocol: str, train: str, test: str) -> dict[str, Any]:
    """Return what tells a job from others, and a short name for its training.

    ``train`` and ``test`` are hashes of the data.
    """
    segmenter = BloodCellSegmenter(**job.parameters, random_state=job.seed)
    parameters = of_the_result(segmenter.get_params(deep=False))
    training = joblib.hash((parameters, protocol, train))
    # As JSON holds them, to be compared with what a record says.
    parameters = json.loads(json.dumps(parameters, default=repr))
    return {
        "parameters": parameters,
        "protocol": protocol,
        "data": [train, test],
        "training": training,
    }


def _prepare(
    train: Any, test: Any, protocol: str, parameters: dict[str, Any]
) -> tuple[Bunch, Bunch, dict[str, Any]]:
    """Return what to train and test on, and the estimator's parameters for it."""
    train = _check_data(train, "train")
    if protocol == "folder":
        return train, _check_data(test, "test"), parameters
    if test is not None:
        raise ValueError("test must be None where protocol is 'paper', which keeps its own.")
    parameters = {"crop_size": PAPER_CROP, "augment": False, **parameters}
    crops = paper_crops(
        train.images, train.masks, groups=train.groups, crop_size=parameters["crop_size"]
    )
    train, test = (_check_data(part, "train") for part in crops)
    return train, test, parameters


def _check_data(data: Any, name: str) -> Bunch:
    """Return images and label maps as lists, with groups and names."""
    if not all(hasattr(data, part) for part in ("images", "masks")):
        raise ValueError(
            f"{name} must have images and masks, as a Bunch of bloodseg.datasets.load_folder has; "
            f"got {type(data).__name__}."
        )
    images = check_images(data.images, name=f"{name}.images")
    masks = check_masks(data.masks, images=images, partial=True, name=f"{name}.masks")
    names = getattr(data, "names", range(len(images)))
    if len(names) != len(images):
        raise ValueError(
            f"{name}.names must hold one name for each of {len(images)} images; got {len(names)}."
        )
    return Bunch(
        images=images,
        masks=masks,
        groups=getattr(data, "groups", None),
        names=[str(each) for each in names],
    )


def _check(study: str, seeds: Sequence[int], protocol: str, parameters: Mapping[str, Any]) -> None:
    integers = all(isinstance(seed, Integral) and seed >= 0 for seed in seeds)
    if not (len(seeds) and integers and len(set(seeds)) == len(seeds)):
        raise ValueError(
            f"seeds must be whole numbers of at least 0, none of them twice; got {seeds!r}."
        )
    if protocol not in _PROTOCOLS:
        raise ValueError(f"protocol must be one of {', '.join(_PROTOCOLS)}; got {protocol!r}.")
    known = BloodCellSegmenter().get_params().keys() - set(_SET_BY_STUDY)
    for name in parameters:
        if name not in known:
            reason = "the study sets it" if name in _SET_BY_STUDY else "there is no such parameter"
            raise ValueError(
                f"parameters must be among those of BloodCellSegmenter; {name!r} is not: {reason}."
            )
    if "ode_tol" in parameters and study in _TRAINED_AT:
        raise ValueError(
            "ode_tol is for the NODEs-UNet of the study 'networks'; got it for "
            f"{study!r}, {_TRAINED_AT[study]}. Leave it out."
        )
