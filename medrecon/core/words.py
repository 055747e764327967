"""Numbers in messages, in grammatical English."""

from __future__ import annotations


def counted(count: int, noun: str, one: str = "", many: str = "") -> str:
    """Return ``1 slice`` or ``3 slices``, and behind it the verb that goes with one or with many.

    >>> counted(1, "slice", "is", "are"), counted(3, "slice", "is", "are")
    ('1 slice is', '3 slices are')
    """
    words = (str(count), noun, one) if count == 1 else (str(count), f"{noun}s", many)
    return " ".join(word for word in words if word)
