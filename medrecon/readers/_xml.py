"""XML from scanners read with care: no entities, no network, a limited size, and names without their name spaces."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from medrecon.readers import _projections
from medrecon.readers._listing import open_regular

if TYPE_CHECKING:
    from lxml.etree import _Element

_MOST_BYTES = 64 * 2**20


def parsed(path: Path) -> _Element:
    """Return the root element; ``PRJ-HEADER`` for what is no XML, too long, or declares entities."""
    from lxml import etree

    with open_regular(path) as file:
        text = file.read(_MOST_BYTES + 1)
    if len(text) > _MOST_BYTES or b"<!ENTITY" in text:
        raise _projections.damaged("an XML file is too long, or declares entities, which no scanner's file does")
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        return etree.fromstring(text, parser)
    except etree.XMLSyntaxError as error:
        raise _projections.damaged("an XML file is cut or damaged") from error


def elements(root: _Element) -> Iterator[tuple[str, str]]:
    """Yield local name and text of every element, in order."""
    for element in root.iter():
        if isinstance(element.tag, str):
            yield element.tag.rpartition("}")[2], (element.text or "").strip()


def number(text: str, name: str) -> float:
    """Return a finite number; ``PRJ-HEADER`` for anything else."""
    try:
        value = float(text)
    except ValueError as error:
        raise _projections.damaged(f"{name} is no number") from error
    if not math.isfinite(value):
        raise _projections.damaged(f"{name} is not finite")
    return value


def looks_like(path: Path, head: bytes, *marks: bytes) -> bool:
    """Whether a file is XML and holds all these marks near its start."""
    if not head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"<"):
        return False
    try:
        with open_regular(path) as file:
            start = file.read(1 << 20)
    except OSError:
        return False
    return all(mark in start for mark in marks)
