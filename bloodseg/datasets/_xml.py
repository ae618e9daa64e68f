"""XML from anywhere: without the entities by which a small file grows or reads others."""

from __future__ import annotations

from xml.etree import ElementTree
from xml.parsers import expat


class _DoctypeError(ValueError):
    """A document type where none belongs."""


def parse_xml(data: bytes, *, name: str) -> ElementTree.Element:
    """Return the outermost element; a ValueError, which speaks of ``name``, where there is none.

    Entities expand to any size ("billion laughs") and reach other files. They need a document
    type, which neither annotations nor OME's metadata ever have: a first pass refuses it whatever
    the encoding.
    """
    guard = expat.ParserCreate()

    def refuse(*_: object) -> None:
        raise _DoctypeError(
            f"{name} must not declare a document type or entities; remove <!DOCTYPE>."
        )

    guard.StartDoctypeDeclHandler = refuse
    try:
        guard.Parse(data, True)
        return ElementTree.fromstring(data)
    except _DoctypeError:
        raise
    except (expat.ExpatError, ElementTree.ParseError, LookupError, ValueError) as error:
        raise ValueError(f"{name} cannot be read as XML: {error}") from error
