"""Reading: what is there, and one series of it.

Readers are one file or package each; the name of the file is the name of the reader. A reader holds

- ``claims(path, head)``: whether this file is its own, decided by content, from the first 512 bytes, without raising;
- ``find(files, options)``: the series in the files it claimed, judged before a pixel is decoded, and what it skipped;
- ``read(info, options, tick)``: one series; raises the refusal of a series that is refused and not allowed;
- optional ``expand(path)``: the files that a file named by the user stands for, such as those of a DICOMDIR;
- optional ``companions(path)``: files without a mark of their own that a claimed file names, such as the pixels of a ``.mhd``;
- optional ``owns(path)``: files that belong to a claimed file although another reader knows their format, such as the TIFFs
  of a scan whose geometry the claimed file holds; they are no series of their own;
- optional ``ASKED_FIRST = True``: it claims a special kind of what a general reader would claim too, such as projections in
  DICOM files, and is asked before the others.

Importing a reader is cheap; the libraries it uses are imported inside its functions.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medrecon.core import registry
from medrecon.core.errors import InputError, UsageError
from medrecon.core.findings import Verdict, check_allowances, judge
from medrecon.core.profile import ProfileKind
from medrecon.core.progress import Tick, silent
from medrecon.core.projections import ProjectionScan
from medrecon.core.reading import ListedFile, Listing, ReadOptions, SeriesInfo, Skipped
from medrecon.core.scans import SliceScan
from medrecon.core.settings import parse
from medrecon.core.volume import Volume
from medrecon.readers import _archive, _listing
from medrecon.safety.limits import Limits

Spacing = tuple[float, float, float]
_MOST_NAMED = 10  # series in one message


@dataclass(frozen=True, slots=True)
class Reader:
    """One input format."""

    name: str
    claims: Callable[[Path, bytes], bool]
    find: Callable[[Sequence[ListedFile], ReadOptions], tuple[list[SeriesInfo], list[Skipped]]]
    read: Callable[[SeriesInfo, ReadOptions, Tick], SliceScan | ProjectionScan | Volume]
    expand: Callable[[Path], list[Path] | None]
    companions: Callable[[Path], list[Path]]
    owns: Callable[[Path], list[Path]]
    asked_first: bool = False


def find(
    path: Path | str,
    options: ReadOptions | None = None,
    *,
    allow: Iterable[str] = (),
    spacing_mm: Spacing | None = None,
    thickness_mm: float | None = None,
    profile: ProfileKind | None = None,
) -> Listing:
    """List the series in a folder, a file or a ZIP, each with its geometry and its verdict.

    Parameters
    ----------
    path : path
        A folder (searched with all below it), one file, a ZIP of a folder, or a DICOMDIR.
    options : ReadOptions, optional
        Instead of the arguments that follow, which are its fields.

    Returns
    -------
    Listing
        Series in a stable order; its ``skipped`` names every other file by its number in the sorted listing.

    Raises
    ------
    InputError
        ``INP-MISSING``, ``INP-KIND`` or ``INP-LIMIT`` for the path itself, ``ZIP-...`` for an archive.
    UsageError
        ``CFG-VALUE`` or ``ARG-ALLOW`` for options that do not exist.
    """
    settings = _settle(options, allow, spacing_mm, thickness_mm, profile)
    readers = sorted((get(name) for name in names()), key=lambda reader: not reader.asked_first)
    entries, skipped, unpacked = _list(Path(path), readers, Limits())
    claimed, junk = _share_out(entries, readers)
    series: list[SeriesInfo] = []
    for reader, files in claimed:
        found, left_out = reader.find(files, settings)
        series += found
        skipped += left_out
    if unpacked is not None:
        series = [replace(info, content=_Held(info.content, unpacked)) for info in series]
    return Listing(series, sorted([*skipped, *junk], key=lambda one: one.number))


def read(
    path: Path | str,
    series: SeriesInfo | str | None = None,
    options: ReadOptions | None = None,
    tick: Tick = silent,
    *,
    allow: Iterable[str] = (),
    spacing_mm: Spacing | None = None,
    thickness_mm: float | None = None,
    profile: ProfileKind | None = None,
) -> SliceScan | ProjectionScan | Volume:
    """Read one series.

    Parameters
    ----------
    path : path
        As for `find`; not looked at again where `series` is one of `find`'s results.
    series : SeriesInfo or str, optional
        Which one, as found or by its id; not needed where exactly one is usable.
    options : ReadOptions, optional
        Instead of the arguments that follow, which are its fields.
    tick : callable
        Called with the finished share.

    Raises
    ------
    UsageError
        ``INP-CHOOSE`` where several series are usable and none was chosen, ``INP-SERIES`` for an id that is not there.
    InputError
        ``INP-NONE`` where nothing is there that a reader knows, and whatever `find` raises.
    MedreconError
        The first refusal of a series that is not usable.
    """
    settings = _settle(options, allow, spacing_mm, thickness_mm, profile)
    info = series if isinstance(series, SeriesInfo) else _choose(find(path, settings), series, settings)
    bare = replace(info, content=info.content.content) if isinstance(info.content, _Held) else info
    return get(info.reader).read(bare, settings, tick)


def names() -> tuple[str, ...]:
    """Return the names of all readers."""
    return registry.names(sys.modules[__name__])


def get(name: str) -> Reader:
    """Return a reader by name; raise `UsageError` (``ARG-NAME``) where there is none."""
    module = registry.load(sys.modules[__name__], name)
    expand = getattr(module, "expand", _nothing)
    companions, owns = (getattr(module, what, _no_files) for what in ("companions", "owns"))
    first = getattr(module, "ASKED_FIRST", False)
    return Reader(name, module.claims, module.find, module.read, expand, companions, owns, first)


@dataclass(frozen=True, slots=True)
class _Held:
    """What a reader needs, together with the temporary folder that it lies in."""

    content: object
    unpacked: _archive.Unpacked


def _settle(
    options: ReadOptions | None,
    allow: Iterable[str],
    spacing_mm: Spacing | None,
    thickness_mm: float | None,
    profile: ProfileKind | None,
) -> ReadOptions:
    given = {"allow": tuple(allow), "spacing_mm": spacing_mm, "thickness_mm": thickness_mm, "profile": profile}
    if options is None:
        options = parse(ReadOptions, given, "reading")
    elif any(given.values()):
        raise UsageError("ARG-BOTH", "options and single arguments for reading were given", "Give one of them.")
    check_allowances(options.allow)
    return options


def _list(
    path: Path, readers: Sequence[Reader], limits: Limits
) -> tuple[list[_listing.Entry], list[Skipped], _archive.Unpacked | None]:
    """List what the user named: a folder, a ZIP, an index of other files, or a file."""
    if not path.exists():
        raise InputError("INP-MISSING", "there is nothing at the path given.", "Check the path for a slip.")
    if path.is_dir():
        return *_listing.list_folder(path, limits), None
    entry = _listing.look_at(ListedFile(1, path))
    if isinstance(entry, Skipped):
        raise InputError(entry.code, f"the path given cannot be read: {entry.what}.", "Name a folder, a file or a ZIP.")
    if _archive.is_zip(entry.head):
        unpacked, files, skipped = _archive.unpack(path, limits)
        return *_look_at_all(files, skipped), unpacked
    owner = _owner(entry, readers)
    indexed = owner.expand(path) if owner else None
    if indexed is None:
        return [entry], [], None
    return *_look_at_all([ListedFile(number, one) for number, one in enumerate(indexed, start=1)], []), None


def _look_at_all(files: Iterable[ListedFile], skipped: list[Skipped]) -> tuple[list[_listing.Entry], list[Skipped]]:
    looked = [_listing.look_at(file) for file in files]
    return [e for e in looked if isinstance(e, _listing.Entry)], [*skipped, *(s for s in looked if isinstance(s, Skipped))]


def _share_out(
    entries: Iterable[_listing.Entry], readers: Sequence[Reader]
) -> tuple[list[tuple[Reader, list[ListedFile]]], list[Skipped]]:
    """Give every file to the first reader that claims it; what none claims is junk, unless a claimed file names it."""
    claimed: dict[str, list[ListedFile]] = {}
    left: list[_listing.Entry] = []
    for entry in entries:
        owner = _owner(entry, readers)
        if owner is None:
            left.append(entry)
        else:
            claimed.setdefault(owner.name, []).append(entry.file)
    claims = [(reader, claimed[reader.name]) for reader in readers if reader.name in claimed]
    owners = {one: reader.name for reader, files in claims for file in files for one in reader.owns(file.path)}
    shares = [(reader, [f for f in files if owners.get(f.path, reader.name) == reader.name]) for reader, files in claims]
    named = {one for reader, files in shares for file in files for one in reader.companions(file.path)} | set(owners)
    junk = [Skipped(e.file.number, _listing.kind_of(e.head), "INP-OTHER") for e in left if e.file.path not in named]
    return shares, junk


def _owner(entry: _listing.Entry, readers: Iterable[Reader]) -> Reader | None:
    return next((reader for reader in readers if reader.claims(entry.file.path, entry.head)), None)


def _choose(listing: Listing, wanted: str | None, options: ReadOptions) -> SeriesInfo:
    if not listing:
        kinds = Counter(f"{one.what} ({one.code})" for one in listing.skipped)
        what = ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common(_MOST_NAMED)) or "no files"
        raise InputError("INP-NONE", f"no series was found: {what}.", "Run `medrecon inspect` on the folder above it.")
    if wanted is not None:
        matching = [info for info in listing if info.id == wanted]
        if not matching:
            raise UsageError("INP-SERIES", "there is no series with the id given.", f"There are: {_named(listing)}.")
        return matching[0]
    usable = [info for info in listing if judge(info.findings, options.allow) is not Verdict.REFUSED]
    if len(usable) > 1:
        raise UsageError(
            "INP-CHOOSE", f"{len(usable)} series are usable: {_named(usable)}.", "Choose one by its id (--series ID)."
        )
    return (usable or listing)[0]  # where all are refused, reading the first raises its refusal


def _named(series: Sequence[SeriesInfo]) -> str:
    """Name series by what is no patient text: id, kind, parts, shape and spacing."""
    more = [f"and {len(series) - _MOST_NAMED} more"] if len(series) > _MOST_NAMED else []
    return "; ".join([*(_in_words(info) for info in series[:_MOST_NAMED]), *more])


def _in_words(info: SeriesInfo) -> str:
    shape = " x ".join(map(str, info.shape))
    spacing = " x ".join("uneven" if step is None else f"{step:.3g}" for step in info.spacing_mm)
    what = " ".join(filter(None, [info.modality, info.kind, *info.parts]))
    return f"{info.id} ({what}, {shape} at {spacing} mm)"


def _nothing(_: Path) -> list[Path] | None:
    return None


def _no_files(_: Path) -> list[Path]:
    return []
