"""Files that are written whole or not at all."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give the name of a file to write, which takes the place of ``path`` once it is complete."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write strict JSON, with null in place of NaN."""
    text = json.dumps(_without_nan(value), indent=2, allow_nan=False)
    with written_whole(path) as unfinished:
        unfinished.write_text(text + "\n", encoding="utf-8")


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if is_nan(value) else value


def is_nan(value: Any) -> bool:
    """Return whether a value is the float that stands for nothing."""
    return isinstance(value, float) and math.isnan(value)
