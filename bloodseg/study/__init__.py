"""The paper's experiments, as code that runs on any images."""

from ._plans import PREDICT_TOLERANCES, STUDIES, TRAIN_TOLERANCES, network_names
from ._protocol import paper_protocol
from ._store import load_results
from ._study import run_study
from ._work import work_of_blocks

__all__ = [
    "PREDICT_TOLERANCES",
    "STUDIES",
    "TRAIN_TOLERANCES",
    "load_results",
    "network_names",
    "paper_protocol",
    "run_study",
    "work_of_blocks",
]
