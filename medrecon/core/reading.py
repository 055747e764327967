"""What a reader says about the series it found, and the options that a reader takes.

Readers live in `medrecon.readers`, one file or package each, and know nothing of each other; these types are what
they share with everybody else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from medrecon.core.field_of_view import geometry_summary
from medrecon.core.findings import Finding, Verdict, judge
from medrecon.core.profile import ProfileKind
from medrecon.core.settings import Config
from medrecon.core.views import ViewGeometry
from medrecon.core.volume import Quantity

Kind = Literal["slices", "projections", "volume"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class ReadOptions(Config):
    """How to read: what a file cannot say, and the laxness that the caller takes on.

    Parameters
    ----------
    allow : names of `medrecon.core.findings.ALLOWANCES`
    spacing_mm : (slice, row, column), for image stacks, which carry none, and for files without spacing
    thickness_mm : overrides the slice thickness of the headers, and is recorded
    profile : overrides the slice profile (CT: bell, everything else: gaussian)
    quantity : what the values of a volume file measure, for files that do not say; DICOM says it
    """

    allow: tuple[str, ...] = ()
    spacing_mm: tuple[Positive, Positive, Positive] | None = None
    thickness_mm: Positive | None = None
    profile: ProfileKind | None = None
    quantity: Quantity | None = None


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A regular file of the listing. Messages name it by its number, never by its name.

    `name` is its path inside the archive it came from, for order and grouping only; empty outside archives.
    """

    number: int
    path: Path = field(repr=False)
    name: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that belongs to no series: its number in the listing, what it is, and the code that says why."""

    number: int
    what: str
    code: str


@dataclass(frozen=True, slots=True)
class SeriesInfo:
    """One series, or one part of a series that had to be split, judged before a pixel is decoded.

    Parameters
    ----------
    id : str
        ``series-`` and 16 hexadecimal digits, the same whenever the same series is found; names its output folder.
    reader : str
        Name of the reader.
    kind : str
        What `medrecon.read` returns for it: ``slices``, ``projections`` or ``volume``.
    modality : str
    shape : (slices, rows, columns)
    spacing_mm : (slice, row, column)
        None in front where slices have no single spacing.
    thickness_mm : (thinnest, thickest), or None where unknown
    findings : tuple of Finding
    parts : tuple of str
        Where one series was split: what makes this part different, such as ``echo 2`` or ``phase``; no free text.
    file_count : int
    views : ViewGeometry, optional
        Of projections: where source and detector stand.
    content : object
        What the reader needs to read it; nobody else's business.
    """

    id: str
    reader: str
    kind: Kind
    modality: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float | None, float, float]
    thickness_mm: tuple[float, float] | None = None
    findings: tuple[Finding, ...] = ()
    parts: tuple[str, ...] = ()
    file_count: int = 1
    views: ViewGeometry | None = field(default=None, repr=False, compare=False)
    content: object = field(default=None, repr=False, compare=False)

    @property
    def verdict(self) -> Verdict:
        """The gravest of the findings, nothing being allowed."""
        return judge(self.findings)

    def as_json(self) -> dict[str, object]:
        """Return the series as plain data: the stable form of ``medrecon inspect --json``."""
        return {
            "id": self.id,
            "reader": self.reader,
            "kind": self.kind,
            "modality": self.modality,
            "shape": list(self.shape),
            "spacing_mm": list(self.spacing_mm),
            "thickness_mm": None if self.thickness_mm is None else list(self.thickness_mm),
            "parts": list(self.parts),
            "file_count": self.file_count,
            "geometry": None if self.views is None else geometry_summary(self.views),
            "verdict": str(self.verdict),
            "findings": [finding.as_json() for finding in self.findings],
        }


class Listing(list[SeriesInfo]):
    """The series that were found, in a stable order, and the files that belong to none of them."""

    def __init__(self, series: Iterable[SeriesInfo] = (), skipped: Iterable[Skipped] = ()) -> None:
        super().__init__(series)
        self.skipped = tuple(skipped)
