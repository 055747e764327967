"""DICOMDIR: a file that names the files of a medium. What it names must lie inside its own folder, links followed."""

from __future__ import annotations

from pathlib import Path

from pydicom import Dataset

from medrecon.core.errors import DicomError, MedreconError
from medrecon.readers.dicom.tags import Tags, items_of, parse, quiet_library
from medrecon.safety import gate
from medrecon.safety.limits import Limits

_FORBIDDEN = frozenset(("", ".", ".."))


def referenced_files(path: Path, limits: Limits | None = None) -> list[Path] | None:
    """Return the files that the DICOMDIR at `path` refers to, in its order and each once; None for any other file.

    Raises
    ------
    DicomError
        ``DCM-ESCAPE`` for a reference that leaves the folder, upwards, absolutely or through a link.
    """
    records = _records(path, limits or Limits())
    if records is None:
        return None
    folder = path.parent.resolve()
    named = [names for number, record in enumerate(records, start=1) if (names := _file_id(record, number))]
    return list(dict.fromkeys(_inside(folder, names) for names in named))


def _records(path: Path, limits: Limits) -> tuple[Dataset, ...] | None:
    """Return the directory records, None where a file has none or does not pass the gate: `find` tells why."""
    try:
        gated = gate.gate(gate.load(path, limits), limits)
        if gated is None or gated.has_pixels:
            return None
        with quiet_library():
            return items_of(parse(gated, 1), "DirectoryRecordSequence") or None
    except MedreconError:
        return None


def _file_id(record: Dataset, number: int) -> tuple[str, ...]:
    with quiet_library():
        names = Tags(record, 1).words_of("ReferencedFileID")
    if any(name in _FORBIDDEN or _is_steering(name) for name in names):
        raise _escape(number)
    return names


def _is_steering(name: str) -> bool:
    """Whether one name is more than a name: separators, a drive, a device stream, control characters."""
    return any(c in "/\\:" or not c.isprintable() for c in name)


def _inside(folder: Path, names: tuple[str, ...]) -> Path:
    """Return the real path of a file; names may differ in case, as media are often copied to lower case."""
    here = folder
    for name in names:
        exact = here / name
        here = exact if exact.exists() else _in_any_case(here, name) or exact
    real = here.resolve()
    if not real.is_relative_to(folder):
        raise _escape(0)
    return real


def _in_any_case(folder: Path, name: str) -> Path | None:
    if not folder.is_dir():
        return None
    return next((entry for entry in sorted(folder.iterdir()) if entry.name.casefold() == name.casefold()), None)


def _escape(record: int) -> DicomError:
    where = f"record {record} of the DICOMDIR" if record else "a record of the DICOMDIR"
    return DicomError(
        "DCM-ESCAPE", f"{where} refers to a file outside its folder.", "Name the folder itself instead; it may be an attack."
    )
