"""What is imported, and when: without another process, which would import torch for seconds."""

import sys
from contextlib import contextmanager
from unittest import mock


@contextmanager
def imported_anew(*packages):
    """Let imports of these packages start anew inside, and all modules be as before after it."""
    with mock.patch.dict(sys.modules):
        for name in list(sys.modules):
            if name.partition(".")[0] in packages:
                del sys.modules[name]
        yield
