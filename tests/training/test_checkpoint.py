"""Names of trainings."""

import pytest
from messages import raises

from bloodseg.training import fingerprint


class Unnamed:
    def __init__(self, error):
        self.error = error

    def __reduce__(self):
        raise self.error


@pytest.mark.parametrize(
    ("error", "said"),
    [(TypeError(), "(TypeError)"), (TypeError("a lambda\nat line 3"), "(a lambda)")],
)
def test_parameters_that_cannot_be_recognised(error, said):
    with raises(f"or leave out checkpoint_dir. {said}"):
        fingerprint({"network": Unnamed(error)})
