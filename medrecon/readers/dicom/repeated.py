"""What the headers of a series say alike, worked out once: again only where something that was looked at differs.

Files of one series repeat nearly all of their header. The memory lives as long as one listing and holds one answer to each
question, that for the file before.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

from medrecon.readers.dicom.alike import AlikeHeaders
from medrecon.readers.dicom.tags import Looked, Tags

Answer = TypeVar("Answer")


class Repeated:
    """The answers for the file before, and the header values of all files, each kept once."""

    def __init__(self) -> None:
        self.headers = AlikeHeaders()
        self._answers: dict[Callable[[Tags], Any], tuple[Looked, Any]] = {}
        self._before: Mapping[int, Any] = {}
        self._pool: dict[Hashable, Any] = {}

    def once(self, question: Callable[[Tags], Answer], tags: Tags) -> Answer:
        """Return ``question(tags)``; the answer for the file before where all that it looked at is the same.

        An answer that left something unreadable behind is not remembered, since that has to be said of every file.
        """
        known = self._answers.get(question)
        if known is not None and tags.shows(known[0]):
            answer: Answer = known[1]
            return answer
        watched = Tags(tags.values, tags.number, tags.elements)
        answer = question(watched)
        if watched.odd:
            tags.odd |= watched.odd
        else:
            self._answers[question] = (watched.looked(), answer)
        return answer

    def kept(self, elements: Mapping[int, Any], is_wanted: Callable[[int, Any], bool]) -> dict[int, Any]:
        """Return the wanted elements; equal ones of many files share their memory."""
        before, kept = self._before, {}
        for tag, element in elements.items():
            same = before.get(tag)
            if same is element or (same is not None and same.VR == element.VR and same.value == element.value):
                kept[tag] = same
            elif is_wanted(tag, element):
                kept[tag] = self._shared(tag, element)
        self._before = kept
        return kept

    def _shared(self, tag: int, element: Any) -> Any:  # noqa: ANN401 (raw and converted elements of pydicom)
        if not isinstance(element.value, bytes):
            return element
        return self._pool.setdefault((tag, element.VR, element.value), element)
