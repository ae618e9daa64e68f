"""Several processes that train one network, through Hugging Face Accelerate."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._extras import import_extra


def make_accelerator(accelerator: Any) -> Any:
    """Return the Accelerator that a parameter asks for: an object, True for a new one, or None.

    Raises
    ------
    ImportError
        If accelerate is not installed.
    """
    if accelerator is None or accelerator is False:
        return None
    if accelerator is not True:
        return accelerator
    need = "accelerator=True needs Hugging Face Accelerate"
    return import_extra("accelerate", extra="distributed", need=need).Accelerator()


def share_seed(random_state: np.random.RandomState, accelerator: Any) -> int:
    """Return a seed drawn from a random state: the main process's, the same in all of them."""
    seed = int(random_state.randint(np.iinfo(np.int32).max))
    if accelerator is None:
        return seed
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([seed])[0]


def share_buffers(network: Any, accelerator: Any) -> None:
    """Give all processes the main one's buffers.

    Gradients are shared, but each process normalises by its own batches: after the last step
    their running means and variances differ.
    """
    from accelerate.utils import broadcast

    for buffer in network.buffers():
        buffer.copy_(broadcast(buffer))
