"""Tables and verdicts of studies in words: report.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .._files import written_whole
from ..ode import warn_caller
from ._claims import METRIC_NAMES, compare_networks, judge_claims
from ._figures import draw_figures, draw_smears
from ._paper import TABLES
from ._plans import PAPER_TOLERANCES, network_names
from ._statistics import FEWEST_SEEDS
from ._store import Store, make_results_table, write_table

_TITLES = {
    "positions": "One ODE-block at each position (the paper's Table 1)",
    "networks": "Three networks (the paper's Table 2)",
    "tolerance": "Tolerances in training and in prediction",
}
_BYTES = 4  # of a weight
_TRAINED = ["network", "train_tol"]

Record = Mapping[str, Any]


def report_study(output: Any) -> str:
    """Write the tables, verdicts and figures of the studies in a folder.

    Parameters
    ----------
    output : path
        Output folder of `run_study`. It gets report.md, comparisons.csv and figures/: of test
        images with the networks' predictions (the paper's Figures 7 and 8), and, where matplotlib
        is installed, of all differences with their intervals, of scores by test image (9 and 10),
        positions (Table 1) and tolerances.

    Returns
    -------
    str
        The text of report.md.

    Raises
    ------
    ValueError
        If the folder holds no finished training.

    Examples
    --------
    >>> import tempfile
    >>> from bloodseg.datasets import make_smears
    >>> from bloodseg.study import report_study, run_study
    >>> smears = make_smears(4, image_size=64, random_state=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     table = run_study(
    ...         "networks", smears, smears, output=folder, networks=["unet"], seeds=[0],
    ...         width=4, max_epochs=1, crop_size=32,
    ...     )
    ...     text = report_study(folder)
    >>> print(text.splitlines()[0])
    # data: Three networks (the paper's Table 2)
    """
    store = Store(output)
    records = store.records()
    if not records:
        raise ValueError(
            f"output must hold finished trainings of a study; {store.folder} holds none. Run "
            "run_study, or bloodseg study, first."
        )
    parts, tables = [], []
    for (study, dataset), group in _group_by_study(records):
        table = compare_networks(group)
        files = _draw(store, study, dataset, group, table)
        forest = [file for file in files if file.stem.endswith("-differences")]
        parts.append(_write_section(study, dataset, group, table, _link(store, forest)))
        parts[-1] += _link_figures(store, [file for file in files if file not in forest])
        if table is not None:
            tables.append(table.assign(study=study, dataset=dataset))
    text = "\n".join(parts)
    _write(store.folder / "report.md", text)
    if tables:
        write_table(store.folder / "comparisons.csv", pd.concat(tables, ignore_index=True))
    return text


def _draw(
    store: Store,
    study: str,
    dataset: str,
    records: Sequence[Record],
    table: pd.DataFrame | None,
) -> list[Path]:
    files = draw_smears(store, dataset, records) if study == "networks" else []
    try:
        return [*files, *draw_figures(store, study, dataset, records, table)]
    except ImportError as error:
        warn_caller(str(error))
        return files


def _link_figures(store: Store, files: Sequence[Path]) -> str:
    return "\n".join(["\n## Figures\n", *_link(store, files), ""]) if files else ""


def _link(store: Store, files: Sequence[Path]) -> list[str]:
    return [f"![{file.stem}]({file.relative_to(store.folder).as_posix()})" for file in files]


def _group_by_study(records: Sequence[Record]) -> Iterator[tuple[tuple[str, str], list[Record]]]:
    """Return the records of each study and data set, networks in the order of the tables."""

    def key(record: Record) -> tuple[str, str]:
        return record["study"], record["dataset"]

    def order(record: Record) -> tuple[Any, ...]:
        tolerance = float(record["train_tol"]) if record["study"] == "tolerance" else 0.0
        names = network_names(record["study"])
        return *key(record), names.index(record["network"]), tolerance, record["seed"]

    for found, group in groupby(sorted(records, key=order), key=key):
        yield found, list(group)


def _write_section(
    study: str,
    dataset: str,
    records: Sequence[Record],
    table: pd.DataFrame | None,
    first: Sequence[str],
) -> str:
    """Return all that is said of one study in words and tables, after the links of ``first``."""
    results = make_results_table(records)
    seeds = sorted({record["seed"] for record in records})
    images = len(records[0]["images"])
    said = [f"- {sentence}" for _, sentence in judge_claims(records, table, results)]
    parts = [
        f"# {dataset}: {_TITLES[study]}",
        *first,
        f"{images} test images; seeds {', '.join(map(str, seeds))}; mean ± standard deviation over "
        "seeds. Scores in per cent over all pixels; the paper's in brackets.",
        _tabulate_scores(study, results),
        "## What it costs",
        "Seconds to predict all test images, evaluations of f for an image and for all of them, "
        "megabytes of weights, seconds of training"
        + (", pixels that change against the tightest." if study == "tolerance" else "."),
        _tabulate_costs(study, records),
        "## The paper's claims",
        "\n".join(said)
        or "No claim of the paper compares networks that are here with a seed in common.",
    ]
    if table is not None:
        parts += ["## All differences", _explain_comparison(table), _tabulate_comparison(table)]
    parts += [*_describe_validation(records, results), *_describe_work(records)]
    return "\n\n".join(parts) + "\n"


def _tabulate_scores(study: str, results: pd.DataFrame) -> str:
    metrics = ["pixel_accuracy", "cpa_background", "cpa_red", "cpa_white", "mean_iou"]
    rows = []
    for keys, group in _group_by_network(results):
        paper = TABLES.get(study, {}).get(keys[0].replace(PAPER_TOLERANCES, "NODEs-UNet"), {})
        cells = []
        for metric in metrics:
            known = f" ({paper[metric]:.2f})" if metric in paper else ""
            cells.append(format_spread(100 * group[metric], 2) + known)
        rows.append([*keys, len(group), *cells])
    titles = ["PA", "CPA background", "CPA red", "CPA white", "mean IoU"]
    return format_table(["network", "trained at", "predicts at", "seeds", *titles], rows)


def _group_by_network(results: pd.DataFrame) -> Iterator[tuple[tuple[str, str, str], pd.DataFrame]]:
    """Return the seeds of each network and pair of tolerances, in the order of the rows."""
    yield from results.groupby(["network", "train_tol", "predict_tol"], sort=False)


def _tabulate_costs(study: str, records: Sequence[Record]) -> str:
    results = make_results_table(records)
    predictions = [prediction for record in records for prediction in record["predictions"]]
    results["changed"] = [prediction["changed"] for prediction in predictions]
    results["train_seconds"] = [
        record["train_seconds"] for record in records for _ in record["predictions"]
    ]
    images = len(records[0]["images"])
    columns = {
        "seconds": lambda group: format_spread(group.seconds, 3),
        "evaluations": lambda group: format_spread(group.evaluations, 1),
        "in total": lambda group: format_spread(group.evaluations * images, 0),
        "MB": lambda group: f"{_BYTES * group.parameters.iloc[0] / 1e6:.1f}",
        "training s": lambda group: format_spread(group.train_seconds, 0),
    }
    if study == "tolerance":
        columns["pixels changed, %"] = lambda group: format_spread(100 * group.changed, 3)
    rows = [
        [*keys, *(cell(group) for cell in columns.values())]
        for keys, group in _group_by_network(results)
    ]
    return format_table(["network", "trained at", "predicts at", *columns], rows)


def _explain_comparison(table: pd.DataFrame) -> str:
    return (
        "In points; 95 % intervals by resampling seeds and test images, each p corrected (Holm) "
        f'for all {len(table)} rows. "detectable" is the smallest true difference that such data '
        "would find four times in five. With few seeds the intervals are too short where seeds "
        f"differ much; hence a verdict takes {FEWEST_SEEDS} seeds, and all must agree."
    )


def _tabulate_comparison(table: pd.DataFrame) -> str:
    rows = [
        [
            row["first"],
            row["second"],
            METRIC_NAMES[row["metric"]],
            f"{100 * row['difference']:+.2f}",
            f"{100 * row['low']:.2f} to {100 * row['high']:.2f}",
            f"{row['p_holm']:.2g}",
            row["n_seeds"],
            "yes" if row["seeds_agree"] else "no",
            f"{100 * row['detectable']:.2f}",
        ]
        for _, row in table.iterrows()
    ]
    titles = ["first", "second", "metric", "first - second", "interval", "p", "seeds", "agree"]
    return format_table([*titles, "detectable"], rows)


def _describe_validation(records: Sequence[Record], results: pd.DataFrame) -> list[str]:
    """Return what validation, which has seen no test image, would choose among ODE-networks."""
    rows = [
        {**{key: record[key] for key in _TRAINED}, "valid": record["valid_mean_iou"]}
        for record in records
        if record["train_tol"] and record["valid_mean_iou"] is not None
    ]
    if not rows:
        return []
    scores = pd.DataFrame(rows).groupby(_TRAINED, sort=False).valid
    best = scores.mean().idxmax()
    as_trained = results[results.train_tol == results.predict_tol]
    tested = {keys: group.mean_iou for keys, group in as_trained.groupby(_TRAINED)}
    cells = [
        [
            *keys,
            format_spread(100 * values, 2),
            format_spread(100 * tested[keys], 2) if keys in tested else "",
            "chosen" if keys == best else "",
        ]
        for keys, values in scores
    ]
    note = (
        "Mean IoU on each seed's validation images, which choose, and on the test images, which "
        "only report; predicted at the tolerance of training."
    )
    titles = ["network", "trained at", "validation", "test", ""]
    return ["## Chosen by validation", note, format_table(titles, cells)]


def _describe_work(records: Sequence[Record]) -> list[str]:
    """Return what the ODE-blocks do, beside what they cost."""
    rows = [
        [
            record["network"],
            record["train_tol"],
            record["seed"],
            position,
            f"{100 * work['relative_change']:.0f}",
            f"{100 * work['mean_iou_without']:.2f}",
        ]
        for record in records
        for position, work in record["work"].items()
    ]
    if not rows:
        return []
    note = (
        "Change of the state from h(0) to h(1), as a share of its root mean square in per cent, "
        "and the mean IoU with the identity in the block's place."
    )
    titles = ["network", "trained at", "seed", "position", "change", "mean IoU without"]
    return ["## What the ODE-blocks do", note, format_table(titles, rows)]


def format_spread(values: Iterable[float], digits: int) -> str:
    """Return mean and, of several values, standard deviation; nothing where none was measured."""
    array = np.array(list(values), dtype=float)
    if np.isnan(array).all():
        return ""
    deviation = f" ± {array.std(ddof=1):.{digits}f}" if len(array) > 1 else ""
    return f"{array.mean():.{digits}f}{deviation}"


def format_table(titles: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table in Markdown."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _write(file: Path, text: str) -> None:
    with written_whole(file) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
