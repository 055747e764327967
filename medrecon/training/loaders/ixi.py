"""IXI: 600 healthy heads as T1, T2, proton density and angiography, NIfTI, from three hospitals in London.

``IXI002-Guys-0828-T1.nii.gz``, in the archives in which they are distributed (``IXI-T1.tar``) or unpacked. One subject's
images are held out together. brain-development.org/ixi-dataset, CC BY-SA 3.0. Listing unpacks nothing.
"""

from __future__ import annotations

import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath

from medrecon.core.errors import InputError
from medrecon.core.reading import ReadOptions
from medrecon.core.volume import Volume
from medrecon.training.loaders import Case
from medrecon.training.loaders._series import largest

_IMAGE = re.compile(r"(IXI\d{3})-[A-Za-z]+-\d{4}-(?:T1|T2|PD|MRA)\.nii\.gz")


def cases(path: Path, options: ReadOptions) -> tuple[Case, ...]:
    """List the images below `path`, in archives and beside them; an image that is in both counts once."""
    found: dict[str, Case] = {}
    for file in sorted(path.rglob("*") if path.is_dir() else [path]):
        if file.suffix == ".tar" and file.is_file():
            found |= {name: _case(name, partial(_from_archive, file, member, options)) for name, member in _members(file)}
        elif _IMAGE.fullmatch(file.name):
            found[file.name] = _case(file.name, partial(largest, file, options))
    return tuple(found[name] for name in sorted(found))


def _case(name: str, load: partial[Volume]) -> Case:
    match = _IMAGE.fullmatch(name)
    return Case(name, load, match.group(1) if match else "")


def _members(archive: Path) -> Iterator[tuple[str, str]]:
    """Yield file name and full name of every image in an archive."""
    try:
        with tarfile.open(archive, "r:") as tar:
            for member in tar:
                name = PurePosixPath(member.name).name
                if member.isfile() and _IMAGE.fullmatch(name):
                    yield name, member.name
    except (tarfile.TarError, OSError) as error:
        hint = "Download it again, or unpack what can be."
        raise InputError("TRN-DATA", f"an archive of the data set is damaged ({type(error).__name__})", hint) from error


def _from_archive(archive: Path, member: str, options: ReadOptions) -> Volume:
    """Read one image out of an archive, through a temporary file of our own name."""
    with tarfile.open(archive, "r:") as tar, tempfile.TemporaryDirectory() as folder:
        source, target = tar.extractfile(member), Path(folder) / "image.nii.gz"
        if source is None:
            raise InputError("TRN-CASE", "an image of the archive is no file", "Download the archive again.")
        with source, target.open("wb") as file:
            shutil.copyfileobj(source, file)
        return largest(target, options)
