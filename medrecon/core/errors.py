"""The one family of errors.

Every error carries a stable code, the fact with its numbers, and a way out. It never carries text from a header:
a message may be logged, mailed or shown on a screen that others can see.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar, Self


class ExitCode(IntEnum):
    """What the command line returns; documented in ``docs/cli.md``."""

    OK = 0
    UNEXPECTED = 1
    BAD_ARGUMENTS = 2
    NO_USABLE_INPUT = 3
    GEOMETRY_REFUSED = 4
    OUT_OF_MEMORY = 5
    OUTPUT_NOT_CONFORMANT = 6
    SOME_FAILED = 7
    CANCELLED = 8
    MISSING_WEIGHTS = 9


class MedreconError(Exception):
    """Something that medrecon refuses or cannot do.

    Parameters
    ----------
    code : str
        Stable name such as ``DCM-GAP``; ``medrecon explain CODE`` tells more.
    fact : str
        What is the case, with place and numbers. Never patient text.
    hint : str
        The way out, as an instruction.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.UNEXPECTED

    def __init__(self, code: str, fact: str, hint: str = "") -> None:
        super().__init__(code, fact, hint)
        self.code = code
        self.fact = fact
        self.hint = hint

    def __str__(self) -> str:
        fact = self.fact if self.fact.endswith((".", "!", "?")) or not self.hint else f"{self.fact}."
        return f"{self.code}: {fact} {self.hint}".rstrip()

    def __reduce__(self) -> tuple[type[Self], tuple[str, str, str]]:
        return type(self), (self.code, self.fact, self.hint)


class UsageError(MedreconError):
    """An argument, a setting or a name that does not exist or does not fit."""

    exit_code = ExitCode.BAD_ARGUMENTS


class InputError(MedreconError):
    """Input that cannot be read, or in which nothing usable was found."""

    exit_code = ExitCode.NO_USABLE_INPUT


class DicomError(InputError):
    """A DICOM file that is damaged, hostile or not understood."""


class GeometryError(MedreconError):
    """Positions, orientations or spacings that do not make a volume."""

    exit_code = ExitCode.GEOMETRY_REFUSED


class MemoryBudgetError(MedreconError):
    """The job needs more memory than there is."""

    exit_code = ExitCode.OUT_OF_MEMORY


class WeightsError(MedreconError):
    """Weights of a network that are missing, or that cannot be trusted or used."""

    exit_code = ExitCode.MISSING_WEIGHTS


class OutputError(MedreconError):
    """A result that could not be written whole, or that does not conform."""

    exit_code = ExitCode.OUTPUT_NOT_CONFORMANT


class CancelledError(MedreconError):
    """The user asked to stop."""

    exit_code = ExitCode.CANCELLED
