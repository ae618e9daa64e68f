"""Random numbers from generators of one's own: torch's global one is every thread's."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ._blocks import Dropout

_taking_turns = threading.RLock()


class DrawnFrom(TorchDispatchMode):
    """A context in which this thread's random numbers come from a seed.

    torch's global generator stays as it was, and other threads notice nothing: neither those that
    are in such a context nor those that draw from the global generator. For code that takes no
    generator, as initial weights of layers and the changes of kornia; a pass through a network
    would be slowed down.

    Parameters
    ----------
    seed : int
        The same seed gives the same numbers.

    Examples
    --------
    >>> import torch
    >>> from bloodseg.networks import DrawnFrom
    >>> with DrawnFrom(0):
    ...     first = torch.rand(2)
    >>> with DrawnFrom(0):
    ...     second = torch.rand(2)
    >>> torch.equal(first, second)
    True
    """

    def __init__(self, seed: int):
        super().__init__()  # type: ignore[no-untyped-call]
        self._seed = seed
        self._generators: dict[torch.device, torch.Generator] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call an operation of torch; one that draws, with a generator of ours."""
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags or kwargs.get("generator"):
            return func(*args, **kwargs)
        device = _find_device(args, kwargs)
        if device.type == "meta":  # nothing is drawn there
            return func(*args, **kwargs)
        generator = self._find_generator(device)
        if _takes_a_generator(func):
            return func.overloadpacket(*args, **kwargs, generator=generator)
        seed = torch.empty((), dtype=torch.int64, device=device).random_(generator=generator)
        with seed_globally(int(seed), device):
            return func(*args, **kwargs)

    def _find_generator(self, device: torch.device) -> torch.Generator:
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self._seed)
        return self._generators[device]


@contextmanager
def seed_dropout(seed: int, network: nn.Module, device: torch.device) -> Iterator[None]:
    """Let the dropout of a network of this package, on a device, draw from a seed."""
    layers = [layer for layer in network.modules() if isinstance(layer, Dropout)]
    generator = torch.Generator(device).manual_seed(seed)
    for layer in layers:
        layer.generator = generator
    try:
        yield
    finally:
        for layer in layers:
            layer.generator = None  # the network can then be copied


@contextmanager
def seed_globally(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed torch's global generators of the CPU and of a device, and put them back.

    For code that may draw in any way, as a network of the user's own. Threads take turns; one that
    draws from the global generator outside of such a context is not waited for.
    """
    generators = [torch.default_generator]
    if torch.device(device).type == "cuda":
        torch.cuda.init()
        index = torch.device(device).index
        generators.append(
            torch.cuda.default_generators[torch.cuda.current_device() if index is None else index]
        )
    with _taking_turns:
        before = [generator.get_state() for generator in generators]
        try:
            for generator in generators:
                generator.manual_seed(seed)
            yield
        finally:
            for generator, state in zip(generators, before, strict=True):
                generator.set_state(state)


def _takes_a_generator(func: Any) -> bool:
    packet = func.overloadpacket
    schemas = (getattr(packet, name)._schema for name in packet.overloads())
    return any(each.name == "generator" for schema in schemas for each in schema.arguments)


def _find_device(args: Any, kwargs: dict[str, Any]) -> torch.device:
    tensors = (each for each in args if isinstance(each, torch.Tensor))
    device = kwargs.get("device") or next((each.device for each in tensors), None)
    return torch.device(device or "cpu")
