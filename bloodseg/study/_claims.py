"""The paper's claims, and what the results say of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from ._paper import MEMORY_OF_RESNET, TABLE_1, TABLES
from ._plans import BASELINE, PAPER_TOLERANCES, network_names
from ._statistics import FEWEST_SEEDS, Row, compare, correct, decide, falls_short, is_equal

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided here"
LESS, EQUAL = "less than the paper says", "no difference that matters"
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
    """That one network is better than another, or with ``equal`` that they are equally good.

    Parameters
    ----------
    first, second, metric : str
        The networks, and by what they are compared.
    paper : float, optional
        The difference that the paper has, in points.
    equal : bool
        Whether the claim is that they are equally good.
    margin : float
        In [0, 1]: two networks count as equal where their difference is below it.
    """

    first: str
    second: str
    metric: str
    paper: float | None = None
    equal: bool = False
    margin: float = _EQUAL

    @property
    def row(self) -> Row:
        """The row of `compare` that the claim is about."""
        return self.first, self.second, self.metric

    @property
    def text(self) -> str:
        """The claim as a sentence without its end."""
        name = METRIC_NAMES[self.metric]
        paper = "" if self.paper is None else f" (paper: {self.paper:+.2f} points)"
        if self.equal:
            margin = f"{100 * self.margin:g} points"
            return f"{self.first} and {self.second} differ by less than {margin} in {name}{paper}"
        return f"{self.first} has a higher {name} than {self.second}{paper}"

    def verdict(self, row: Any) -> str:
        """Return what a row of `compare` says of the claim."""
        if self.equal:
            beyond = row["low"] > self.margin or row["high"] < -self.margin
            return HOLDS if is_equal(row) else FAILS if beyond and decide(row) else UNDECIDED
        sign = decide(row)
        if sign:
            return HOLDS if sign > 0 else FAILS
        return LESS if falls_short(row) else EQUAL if is_equal(row) else UNDECIDED


def name_prediction(record: Mapping[str, Any], prediction: Mapping[str, Any]) -> str:
    """Return what a network is called in comparisons: with its tolerances where they vary."""
    if record["study"] != "tolerance":
        return record["network"]
    return _name_tolerances(record["train_tol"], prediction["predict_tol"])


def _name_tolerances(train_tol: str, predict_tol: str) -> str:
    return f"NODEs-UNet trained at {train_tol}, predicting at {predict_tol}"


def _read_tolerance(key: str) -> float:
    return float(key.rpartition(" ")[2])


def compare_networks(records: Sequence[Mapping[str, Any]]) -> pd.DataFrame | None:
    """Return the differences of one study and data set, or None where there is nothing to compare.

    Two networks are compared over the seeds that both have.
    """
    matrices = _collect_matrices(records)
    claims = list(_make_claims(records))
    pairs_of: dict[tuple[int, ...], list[tuple[str, str]]] = {}
    for first, second in _choose_pairs(records):
        seeds = sorted(matrices.get(first, {}).keys() & matrices.get(second, {}).keys())
        if seeds:
            pairs_of.setdefault(tuple(seeds), []).append((first, second))
    tables = [
        compare(
            {
                name: [matrices[name][seed] for seed in seeds]
                for name in dict.fromkeys(name for pair in pairs for name in pair)
            },
            pairs,
            effects={c.row: c.paper / 100 for c in claims if c.paper and not c.equal},
            margins={claim.row: claim.margin for claim in claims},
        )
        for seeds, pairs in pairs_of.items()
    ]
    if not tables:
        return None
    table = pd.concat(tables, ignore_index=True).set_index(["first", "second"])
    in_order = [pair for pair in _choose_pairs(records) if pair in table.index]
    return correct(table.loc[in_order].reset_index())


def _collect_matrices(records: Sequence[Mapping[str, Any]]) -> dict[str, dict[int, Any]]:
    """Return the per-image confusion matrices of each network and seed."""
    found: dict[str, dict[int, Any]] = {}
    for record in records:
        for prediction in record["predictions"]:
            seeds = found.setdefault(name_prediction(record, prediction), {})
            seeds[record["seed"]] = prediction["confusion"]
    return found


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
            row = rows.get(claim.row)
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
            elif (gain := find_paper_difference(study, first, second, metric)) is not None:
                yield Claim(first, second, metric, gain, equal=second == "ODEUNet5")


def find_paper_difference(study: str, first: str, second: str, metric: str) -> float | None:
    """Return by how many points two networks differ in the paper, or None if it doesn't say."""
    paper = TABLES.get(study, {})
    names = [name.replace(PAPER_TOLERANCES, "NODEs-UNet") for name in (first, second)]
    if names[0] == names[1] or not set(names) <= paper.keys():
        return None
    return paper[names[0]][metric] - paper[names[1]][metric]


def _explain(claim: Claim, row: Any) -> str:
    points = {name: 100 * row[name] for name in ("difference", "low", "high", "detectable")}
    verdict = claim.verdict(row)
    text = (
        f"{claim.text}: {verdict}. Here {points['difference']:+.2f} points "
        f"[{points['low']:.2f}, {points['high']:.2f}]"
    )
    seeds = f"{row['n_seeds']} seeds" if row["n_seeds"] > 1 else "one seed"
    if claim.equal:
        text += f", {seeds}, corrected p of equality {row['p_equal_holm']:.2g}"
    elif row["n_seeds"] == 1:
        text += f", {seeds}"
    else:
        agree = f"all {seeds} agree" if row["seeds_agree"] else f"{seeds} do not agree"
        text += f", corrected p {row['p_holm']:.2g}, {agree}"
    if verdict == UNDECIDED:
        text += f". These data could show a difference of {points['detectable']:.2f} points"
    if not claim.equal and verdict != FAILS:
        if verdict == UNDECIDED and claim.paper and 100 * row["high"] < claim.paper:
            few = row["n_seeds"] < FEWEST_SEEDS
            why = f"a verdict takes {FEWEST_SEEDS} seeds" if few else "not clearly enough"
            text += f". {claim.paper:+.2f} lies outside the interval, but {why}"
        if falls_short(row):
            text += (
                f". {claim.paper:+.2f} is excluded (corrected p {row['p_effect_holm']:.2g}): at "
                f"most {points['high']:+.2f} fits these data"
            )
        if is_equal(row):
            text += (
                f". The two differ by less than {100 * claim.margin:g} points (corrected p "
                f"{row['p_equal_holm']:.2g})"
            )
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
            if shares.empty:
                continue
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
