"""The paper's claims, and what the results say of each: holds, does not hold, or undecided."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from ._paper import MEMORY_OF_RESNET, TABLE_1, TABLES
from ._plans import BASELINE, PAPER_TOLERANCES, network_names
from ._statistics import compare, decide

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided here"
METRIC_NAMES = {
    "pixel_accuracy": "pixel accuracy",
    "mean_iou": "mean IoU",
    "cpa_background": "CPA of background",
    "cpa_white": "CPA of white cells",
    "cpa_red": "CPA of red cells",
}
_CLAIMED = ("pixel_accuracy", "mean_iou")  # the metrics that the paper's claims are about

# Two networks count as equal where their scores differ by less than this: half a point is about
# what the paper calls a significant gain in pixel accuracy.
_EQUAL = 0.005
_MUCH = 2.0  # times as long: "a greater impact on the computation time"


@dataclass(frozen=True)
class Claim:
    """That one network is better than another, or with ``equal`` that they are equally good."""

    first: str
    second: str
    metric: str
    paper: float | None = None
    equal: bool = False

    @property
    def text(self) -> str:
        """The claim as a sentence without its end."""
        name = METRIC_NAMES[self.metric]
        paper = "" if self.paper is None else f" (paper: {self.paper:+.2f} points)"
        if self.equal:
            margin = f"{100 * _EQUAL:g} points"
            return f"{self.first} and {self.second} differ by less than {margin} in {name}{paper}"
        return f"{self.first} has a higher {name} than {self.second}{paper}"

    def verdict(self, row: Any) -> str:
        """Return what a row of `compare` says of the claim."""
        if not self.equal:
            return {1: HOLDS, -1: FAILS, 0: UNDECIDED}[decide(row)]
        if row["n_seeds"] > 1 and row["low"] > -_EQUAL and row["high"] < _EQUAL:
            return HOLDS
        beyond = row["low"] > _EQUAL or row["high"] < -_EQUAL
        return FAILS if beyond and decide(row) else UNDECIDED


def name_prediction(record: Mapping[str, Any], prediction: Mapping[str, Any]) -> str:
    """Return what a network is called in comparisons: with its tolerances where they vary."""
    if record["study"] != "tolerance":
        return record["network"]
    return _name_tolerances(record["train_tol"], prediction["predict_tol"])


def _name_tolerances(train_tol: str, predict_tol: str) -> str:
    return f"NODEs-UNet trained at {train_tol}, predicting at {predict_tol}"


def _read_tolerance(key: str) -> float:
    return float(key.rpartition(" ")[2])


def collect_matrices(
    records: Sequence[Mapping[str, Any]],
) -> tuple[dict[str, np.ndarray], list[int]]:
    """Return the per-image confusion matrices of each network, of the seeds that all have."""
    found: dict[str, dict[int, Any]] = {}
    for record in records:
        for prediction in record["predictions"]:
            seeds = found.setdefault(name_prediction(record, prediction), {})
            seeds[record["seed"]] = prediction["confusion"]
    common = sorted(set.intersection(*map(set, found.values()))) if found else []
    return {
        name: np.array([seeds[seed] for seed in common]) for name, seeds in found.items()
    }, common


def compare_networks(records: Sequence[Mapping[str, Any]]) -> pd.DataFrame | None:
    """Return the differences of one study and data set, or None where there is nothing to compare.

    The networks are compared over the seeds that all of them have.
    """
    matrices, seeds = collect_matrices(records)
    pairs = [pair for pair in _choose_pairs(records) if set(pair) <= matrices.keys()]
    return compare(matrices, pairs) if seeds and pairs else None


def _choose_pairs(records: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return which networks of a study are compared."""
    study = records[0]["study"]
    names = network_names(study)
    if study == "networks":
        return [(later, earlier) for earlier, later in combinations(names, 2)]
    if study == "positions":
        others = [name for name in names[1:] if name != "ODEUNet5"]
        return [(name, BASELINE) for name in names[1:]] + [(name, "ODEUNet5") for name in others]
    trained = _sort_tolerances(record["train_tol"] for record in records)
    predicted = _sort_tolerances(
        prediction["predict_tol"] for record in records for prediction in record["predictions"]
    )
    as_trained = {tol: _name_tolerances(tol, tol) for tol in trained}
    return [
        *(
            (_name_tolerances(tol, other), as_trained[tol])
            for tol in trained
            for other in predicted
            if other != tol
        ),
        *((as_trained[trained[0]], as_trained[tol]) for tol in trained[1:]),
    ]


def _sort_tolerances(texts: Iterable[str]) -> list[str]:
    return sorted(set(texts), key=float)


def judge_claims(
    records: Sequence[Mapping[str, Any]], table: pd.DataFrame | None, results: pd.DataFrame
) -> list[tuple[str, str]]:
    """Return a verdict and a plain sentence for each claim of the paper on one study.

    Parameters
    ----------
    records : sequence of mapping
        The records of one study and data set.
    table : DataFrame or None
        Their `comparisons`.
    results : DataFrame
        Their rows of results.csv.
    """
    found = []
    if table is not None:
        rows = {(row["first"], row["second"], row["metric"]): row for _, row in table.iterrows()}
        for claim in _make_claims(records):
            row = rows.get((claim.first, claim.second, claim.metric))
            if row is not None and np.isfinite(row["difference"]):
                found.append((claim.verdict(row), _explain(claim, row)))
    found.extend(_COSTS[records[0]["study"]](results))
    return found


def _make_claims(records: Sequence[Mapping[str, Any]]) -> Iterator[Claim]:
    study = records[0]["study"]
    for first, second in _choose_pairs(records):
        for metric in _CLAIMED:
            if study == "tolerance":
                same_training = first.partition(",")[0] == second.partition(",")[0]
                # "During testing, the error can be increased": of tighter ones nothing is claimed.
                if not same_training or _read_tolerance(first) > _read_tolerance(second):
                    yield Claim(first, second, metric, equal=same_training)
            elif (first, second) != (PAPER_TOLERANCES, "NODEs-UNet"):
                paper = TABLES[study]
                names = [name.replace(PAPER_TOLERANCES, "NODEs-UNet") for name in (first, second)]
                gain = paper[names[0]][metric] - paper[names[1]][metric]
                yield Claim(first, second, metric, gain, equal=second == "ODEUNet5")


def _explain(claim: Claim, row: Any) -> str:
    points = {name: 100 * row[name] for name in ("difference", "low", "high", "detectable")}
    verdict = claim.verdict(row)
    text = (
        f"{claim.text}: {verdict}. Here {points['difference']:+.2f} points "
        f"[{points['low']:.2f}, {points['high']:.2f}]"
    )
    if row["n_seeds"] == 1:
        text += ", one seed"
    elif not claim.equal:
        seeds = f"{row['n_seeds']} seeds"
        agree = f"all {seeds} agree" if row["seeds_agree"] else f"{seeds} do not agree"
        text += f", corrected p {row['p_holm']:.2g}, {agree}"
    if verdict == UNDECIDED:
        text += f". These data could show a difference of {points['detectable']:.2f} points"
    return f"{text}."


def _judge_network_costs(results: pd.DataFrame) -> Iterator[tuple[str, str]]:
    weights = results.groupby("network").parameters.first()
    if not {"NODEs-UNet", "ResNet"} <= set(weights.index):
        return
    share = weights["NODEs-UNet"] / weights["ResNet"]
    verdict = HOLDS if share < 0.5 else FAILS
    yield (
        verdict,
        f"The NODEs-UNet's weights take less than half the memory of the ResNet's (paper: "
        f"{MEMORY_OF_RESNET:.0%}): {verdict}. Here {share:.0%}.",
    )


def _judge_position_costs(results: pd.DataFrame) -> Iterator[tuple[str, str]]:
    seconds = results.pivot_table(index="seed", columns="network", values="seconds")
    for slow, fast in (("ODEUNet5", BASELINE), ("ODEUNet1", "ODEUNet5"), ("ODEUNet9", "ODEUNet5")):
        if not {slow, fast} <= set(seconds.columns):
            continue
        ratios = (seconds[slow] / seconds[fast]).dropna()
        if ratios.empty:
            continue
        verdict = _judge_seeds(ratios, lambda values: values >= _MUCH)
        yield (
            verdict,
            f"{slow} takes at least {_MUCH:g} times as long as {fast} (paper: "
            f"{TABLE_1[slow]['seconds'] / TABLE_1[fast]['seconds']:.1f} times): {verdict}. Here "
            f"{ratios.min():.1f} to {ratios.max():.1f} times over {len(ratios)} seeds.",
        )


def _judge_tolerance_costs(results: pd.DataFrame) -> Iterator[tuple[str, str]]:
    for train_tol in _sort_tolerances(results.train_tol):
        rows = results[results.train_tol == train_tol]
        for column, unit in (("evaluations", "evaluations of f"), ("seconds", "seconds")):
            by_tol = rows.pivot_table(index="seed", columns="predict_tol", values=column)
            loosest = _sort_tolerances(by_tol.columns)[-1]
            if train_tol not in by_tol or float(loosest) <= float(train_tol):
                continue
            shares = (by_tol[loosest] / by_tol[train_tol]).dropna()
            verdict = _judge_seeds(shares, lambda values: values < 1)
            yield (
                verdict,
                f"A NODEs-UNet trained at {train_tol} takes fewer {unit} when it predicts at "
                f"{loosest}: {verdict}. Here {shares.min():.0%} to {shares.max():.0%} of them over "
                f"{len(shares)} seeds.",
            )


def _judge_seeds(values: pd.Series, holds: Callable[[pd.Series], pd.Series]) -> str:
    """Return the verdict on which all seeds agree."""
    yes = holds(values)
    return HOLDS if yes.all() else UNDECIDED if yes.any() else FAILS


_COSTS: dict[str, Callable[[pd.DataFrame], Iterator[tuple[str, str]]]] = {
    "networks": _judge_network_costs,
    "positions": _judge_position_costs,
    "tolerance": _judge_tolerance_costs,
}
