"""The paper's experiments, as code that runs on any images."""

from ._paper import TABLE_1, TABLE_2
from ._plans import PREDICT_TOLERANCES, STUDIES, TRAIN_TOLERANCES
from ._plans import find_network as find_network  # `as`: for other rooms, not public
from ._plans import network_names as network_names
from ._plans import typed_name as typed_name
from ._protocol import paper_protocol
from ._report import report_study
from ._statistics import compare
from ._store import load_results
from ._study import BATCH_SIZE as BATCH_SIZE
from ._study import PAPER_CROP as PAPER_CROP
from ._study import run_study
from ._work import work_of_blocks

__all__ = [
    "PREDICT_TOLERANCES",
    "STUDIES",
    "TABLE_1",
    "TABLE_2",
    "TRAIN_TOLERANCES",
    "compare",
    "load_results",
    "paper_protocol",
    "report_study",
    "run_study",
    "work_of_blocks",
]
