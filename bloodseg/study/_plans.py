"""What each study trains: its networks, as parameters of the estimator."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

STUDIES = ("positions", "networks", "tolerance")
"""The studies: the paper's Table 1, its Table 2, and what it says of tolerances."""

_SET_BY_NETWORK = ("network", "ode_positions", "ode_tol")
BASELINE = "U-Net"
PAPER_TOLERANCES = "NODEs-UNet (paper tolerances)"

# Networks without ODE-blocks by their names in tables: those of the paper, then those that it
# builds on, which are trained where they are asked for.
_WITHOUT_BLOCKS = {
    BASELINE: "unet",
    "ResNet": "resnet-unet",
    "FCN": "fcn",
    "Feedback U-Net": "feedback-unet",
    "D-LinkNet": "d-linknet",
}
_OF_THE_PAPER = (BASELINE, "ResNet", "NODEs-UNet", PAPER_TOLERANCES)

# Networks as wide as makes them as large, or as slow, as NODEs-UNet: the network, and its width
# over that of the study. Of time, multiply-adds count, with four evaluations of f in each block:
# 43.7 convolutions of a stage against 22.7 in a U-Net and 50.7 in a ResNet.
_CONTROLS = {
    "U-Net (as many weights)": (BASELINE, 1.21),
    "U-Net (as much time)": (BASELINE, 1.39),
    "ResNet (as many weights)": ("ResNet", 0.64),
    "ResNet (as much time)": ("ResNet", 0.93),
}

_POSITION_TOLERANCE = 1e-3  # of Table 1 (Section 3.2)
_WIDTH = 32  # of the paper, the estimator's default
TRAIN_TOLERANCES = (1e-4, 1e-3, 1e-2)
PREDICT_TOLERANCES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


@dataclass(frozen=True)
class Job:
    """One training and its predictions.

    Parameters
    ----------
    study : str
        One of `STUDIES`.
    dataset : str
        Name of the data.
    network : str
        Name in tables and figures.
    seed : int
        ``random_state`` of the estimator.
    parameters : mapping
        All others that are not the estimator's defaults, but for ``checkpoint_dir``.
    tolerances : tuple
        Tolerances to predict with; the training's where there are none.
    """

    study: str
    dataset: str
    network: str
    seed: int
    parameters: Mapping[str, Any]
    tolerances: tuple[float, ...] = ()

    @property
    def train_tol(self) -> str:
        """Tolerance of the training as tables write it: "" for a network without blocks."""
        if self.parameters["network"] != "nodes-unet":
            return ""
        return format_tolerance(self.parameters["ode_tol"])

    @property
    def name(self) -> str:
        """Name for files, of its own within a study's folder."""
        parts = (self.study, self.dataset, self.network)
        trained = (self.train_tol,) if self.study == "tolerance" else ()
        return "-".join([*map(make_file_name, parts), *trained, str(self.seed)])


def find_set_apart(*networks: str) -> tuple[str, ...]:
    """Return the parameters by which networks of one study may differ."""
    return (*_SET_BY_NETWORK, *(["width"] if _CONTROLS.keys() & set(networks) else []))


def typed_name(name: str) -> str:
    """Return what a network of the tables is called where it is typed.

    The estimator's name where it has one, and letters that no shell makes anything of.

    Examples
    --------
    >>> from bloodseg.study._plans import typed_name
    >>> typed_name("U-Net"), typed_name("ResNet (as much time)"), typed_name("ODEUNet5")
    ('unet', 'resnet-unet-as-much-time', 'odeunet5')
    """
    network, bracket, rest = name.partition(" (")
    return make_file_name(_WITHOUT_BLOCKS.get(network, network) + bracket + rest)


def find_network(study: str, name: str) -> str:
    """Return the name in tables of a network, given that or the one that is typed.

    Raises
    ------
    ValueError
        If the study has no such network.
    """
    known = {typed_name(each): each for each in network_names(study)}
    if name in known.values():
        return name
    if name not in known:
        raise ValueError(
            f"networks must be among {', '.join(known)} for the study of {study}; got {name!r}."
        )
    return known[name]


def make_file_name(text: str) -> str:
    """Return a name in the letters that every file system takes."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")


def plan(
    study: str,
    dataset: str,
    seeds: Sequence[int],
    parameters: Mapping[str, Any],
    *,
    networks: Sequence[str] | None = None,
    train_tolerances: Sequence[float] = TRAIN_TOLERANCES,
    predict_tolerances: Sequence[float] = PREDICT_TOLERANCES,
) -> list[Job]:
    """Return the jobs of a study, all networks of one seed before those of the next.

    Raises
    ------
    ValueError
        If there is no such study, no such network in it, or ``networks`` names none.
    """
    if study not in STUDIES:
        raise ValueError(f"study must be one of {', '.join(STUDIES)}; got {study!r}.")
    if networks is None:
        networks = _OF_THE_PAPER if study == "networks" else network_names(study)
    if not networks:
        raise ValueError(f"networks must name at least one; got {networks}.")
    networks = list(dict.fromkeys(find_network(study, name) for name in networks))
    default_tol = parameters.get("ode_tol", _POSITION_TOLERANCE)
    trained_at = train_tolerances if study == "tolerance" else (default_tol,)
    return [
        Job(
            study,
            dataset,
            name,
            int(seed),
            {**parameters, **_choose_parameters(study, name, tol, parameters)},
            tuple(predict_tolerances) if study == "tolerance" else (),
        )
        for seed in seeds
        for name in networks
        for tol in trained_at
    ]


def network_names(study: str) -> list[str]:
    """Return the names of a study's networks, in the order of the tables.

    Of "networks" the first four, the paper's, are trained where none are named.
    """
    if study == "positions":
        return [BASELINE, *(f"ODEUNet{position}" for position in range(1, 10))]
    if study == "networks":
        others = [name for name in _WITHOUT_BLOCKS if name not in _OF_THE_PAPER]
        return [*_OF_THE_PAPER, *others, *_CONTROLS]
    return ["NODEs-UNet"]


def _choose_parameters(
    study: str, name: str, tol: Any, parameters: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what sets a network apart.

    The baselines keep the default tolerance, which they have no use for: a training's checkpoint
    is named by all parameters, and so each of them is trained once for all studies.
    """
    if name in _CONTROLS:
        name, factor = _CONTROLS[name]
        width = max(1, round(factor * parameters.get("width", _WIDTH)))
        return {**_choose_parameters(study, name, tol, parameters), "width": width}
    if name in _WITHOUT_BLOCKS:
        network = _WITHOUT_BLOCKS[name]
        return {"network": network, "ode_positions": (4, 5, 6), "ode_tol": _POSITION_TOLERANCE}
    if study == "positions":
        position = int(name.removeprefix("ODEUNet"))
        return {
            "network": "nodes-unet",
            "ode_positions": (position,),
            "ode_tol": _POSITION_TOLERANCE,
        }
    given = "paper" if name == PAPER_TOLERANCES else tol
    return {"network": "nodes-unet", "ode_positions": (4, 5, 6), "ode_tol": given}


def format_tolerance(tolerance: Any) -> str:
    """Return a tolerance as tables write it."""
    if isinstance(tolerance, (str, type(None))):
        return tolerance or ""
    if isinstance(tolerance, Mapping):
        return ",".join(f"{position}={value:g}" for position, value in tolerance.items())
    if isinstance(tolerance, Sequence):
        return ",".join(f"{value:g}" for value in tolerance)
    return f"{tolerance:g}"
