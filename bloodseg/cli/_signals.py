"""Ctrl-C and its like, which end a command but cost nothing that it has."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_ONE_WISH = 3.0  # seconds: who presses Ctrl-C again so soon has not seen yet that it works


class _Stop:
    """What a signal does: it ends the command, once for those of a few seconds.

    Attributes
    ----------
    is_held : bool
        Whether it waits until what is being written is there.
    is_waiting : bool
        Whether one has come meanwhile.
    """

    def __init__(self) -> None:
        self.is_held = self.is_waiting = False
        self._last = -math.inf

    def __call__(self, number: int, frame: Any) -> None:
        if self.is_held:
            self.is_waiting = True
            return
        now = time.monotonic()
        if now - self._last > _ONE_WISH:  # one that ended nothing does not keep others from it
            self._last = now
            raise KeyboardInterrupt


@contextmanager
def ended_gently() -> Iterator[None]:
    """Let what ends a process from outside raise a KeyboardInterrupt, as Ctrl-C does.

    Schedulers and services send SIGTERM; a terminal that is closed, or a connection that is lost,
    SIGHUP. What is ignored, as SIGHUP under ``nohup``, stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # elsewhere Python sets no signal's handler
        return
    stop, before = _Stop(), {}
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def held_off() -> Iterator[None]:
    """Let signals wait until what hours have gone into is written."""
    handlers = map(signal.getsignal, (signal.SIGINT, signal.SIGTERM))
    stop = next((each for each in handlers if isinstance(each, _Stop)), None)
    if stop is None:
        yield
        return
    stop.is_held = True
    try:
        yield
    finally:
        stop.is_held = False
    if stop.is_waiting:
        stop.is_waiting = False
        raise KeyboardInterrupt
