"""From series to volumes: what DICOM calls one series may hold several, and sometimes several series hold one.

Images of different patients, studies, series or frames of reference are never put together; the one exception are
scanners that give every slice a series of its own. Inside a series, orientation, matrix, pixel spacing, component and
echo always separate. Other traits separate only where positions repeat, because they may vary from slice to slice.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medrecon.core.findings import Finding, Verdict
from medrecon.core.words import counted
from medrecon.readers.dicom.headers import Contents, Image, SeriesKey

Float64 = NDArray[np.float64]

#: Directions that differ by less are one orientation: 0.06 degrees.
SAME_DIRECTION = 1e-3
_SAME_SPACING = 1e-4
_SAME_DEPTH = 0.01  # of the usual step
_SAME_PLACE = 0.02  # of a pixel
_LEAST_REGULAR = 3  # images of an acquisition that is worth a volume of its own

#: Traits that separate repeated positions, in the order in which they are tried, and their unit.
_SEPARATORS: Mapping[str, str] = {
    "time": "",
    "b": "",
    "direction": "",
    "stack": "",
    "acquisition": "",
    "trigger": " ms",
    "echo time": " ms",
    "inversion time": " ms",
    "repetition time": " ms",
    "flip angle": " degrees",
    "voltage": " kV",
    "kernel": "",
    "field of view": " mm",
    "image type": "",
    "dimensions": "",
}
#: Marks that are equal for images with the same pixels; may read files.
Fingerprints = Callable[[Sequence[Image]], Sequence[bytes]]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Images that are one volume, or cannot be told apart.

    Parameters
    ----------
    labels : tuple of str
        What makes this part different from its series' other parts.
    slices : tuple of tuples of Image
        Ascending along the normal; more than one image only where different images claim one position.
    contents : the files they came from, unusable ones of the same series included
    """

    key: SeriesKey
    labels: tuple[str, ...]
    slices: tuple[tuple[Image, ...], ...]
    contents: tuple[Contents, ...]
    findings: tuple[Finding, ...] = ()


def into_parts(contents: Sequence[Contents], fingerprints: Fingerprints) -> list[Part]:
    """Put files together to series and take these apart into volumes."""
    series: dict[SeriesKey, list[Contents]] = {}
    for one in sorted(_regrouped(contents), key=_stable_order):
        series.setdefault(one.key, []).append(one)
    parts = [part for key, files in series.items() for part in _parts_of_series(key, files, fingerprints)]
    return [replace(part, labels=(*_which_patient(part.key, series), *part.labels)) for part in parts]


def along_normal(images: Sequence[Image]) -> Float64:
    """Return the depth of every image along the normal of the first, in mm."""
    normal = np.cross(images[0].across, images[0].down)
    depths: Float64 = np.asarray([image.position_lps_mm for image in images]) @ (normal / np.linalg.norm(normal))
    return depths


def is_regular(depths: Float64, tolerance: float = _SAME_DEPTH) -> bool:
    """Whether sorted depths have one step, judged on cumulated positions so that small errors cannot add up."""
    if len(depths) < 3:
        return True
    step = (depths[-1] - depths[0]) / (len(depths) - 1)
    return bool(np.abs(depths - depths[0] - np.arange(len(depths)) * step).max() <= tolerance * abs(step))


def _which_patient(key: SeriesKey, series: Iterable[SeriesKey]) -> tuple[str, ...]:
    """Tell patients apart by a number where they share one series UID; nothing that comes from their names is shown."""
    sharing = sorted(other.patient for other in series if other._replace(patient=key.patient) == key)
    return (f"patient {sharing.index(key.patient) + 1}",) if len(sharing) > 1 else ()


def _stable_order(one: Contents) -> tuple[object, ...]:
    """Return an order that does not depend on names of files."""
    return (one.key, one.file.sop_instance_uid, one.file.layout.transfer_syntax_uid, one.file.instance_number, one.file.number)


def _regrouped(contents: Sequence[Contents]) -> list[Contents]:
    """Give slices that have a series of their own, as one vendor writes them, a common series again."""
    count: dict[SeriesKey, int] = {}
    for one in contents:
        count[one.key] = count.get(one.key, 0) + max(len(one.images), 1)
    lonely: dict[Hashable, list[Contents]] = {}
    for one in contents:
        if count[one.key] == 1 and one.images and one.key.frame_of_reference_uid:
            lonely.setdefault(_kinship(one), []).append(one)
    joined = {id(one): common for kin in lonely.values() for common in [_joined(kin)] if common for one in kin}
    return [_into_series(one, joined[id(one)]) if id(one) in joined else one for one in contents]


def _kinship(one: Contents) -> Hashable:
    """Return what the slices of one volume share although each is its own series."""
    image = one.images[0]
    directions = tuple(np.round(np.asarray(image.across + image.down), 4) + 0.0)
    spacing = tuple(np.round(image.spacing_mm, 4))
    traits = tuple(image.traits.get(name) for name in ("component", "echo", "acquisition", "echo time", "kernel"))
    return (one.key._replace(series_uid=""), one.series_number, image.shape, directions, spacing, traits)


def _joined(kin: Sequence[Contents]) -> str:
    """Return the common series UID of slices that stand at different positions; empty where they do not."""
    depths = np.sort(along_normal([one.images[0] for one in kin]))
    if len(kin) < _LEAST_REGULAR or _repeats(depths, kin[0].images[0]) > 1:
        return ""
    return min(one.key.series_uid for one in kin)


def _into_series(one: Contents, series_uid: str) -> Contents:
    fact = "every slice of this volume has a series of its own; they were joined by place, shape and acquisition."
    return replace(
        one, key=one.key._replace(series_uid=series_uid), findings=(*one.findings, Finding("DCM-REGROUP", Verdict.WARN, fact))
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """Images on their way to a part."""

    labels: tuple[str, ...]
    images: list[Image] = field(repr=False)
    findings: tuple[Finding, ...] = ()
    copies: tuple[Image, ...] = field(default=(), repr=False)

    def with_label(self, label: str, images: list[Image]) -> _Group:
        return replace(self, labels=(*self.labels, label), images=images)


def _parts_of_series(key: SeriesKey, files: list[Contents], fingerprints: Fingerprints) -> list[Part]:
    images = [image for one in files for image in one.images]
    broken = [one for one in files if not one.images]
    if not images:
        return [Part(key, (), (), tuple(files))]
    groups = [group for fixed in _always(images) for group in _where_repeated(fixed, fingerprints)]
    parts = []
    for group in groups:
        mine = {id(image.file) for image in (*group.images, *group.copies)}
        used = tuple(one for one in files if id(one.file) in mine)
        parts.append(Part(key, group.labels, _in_slices(group.images), (*used, *broken), group.findings))
    return parts


def _always(images: list[Image]) -> list[_Group]:
    """Separate by orientation, matrix and pixel spacing, then by component and echo."""
    shaped = _by_place(images)
    groups = [_Group((f"orientation {k}",) if len(shaped) > 1 else (), one) for k, one in enumerate(shaped, start=1)]
    if len(shaped) > 1:
        found = _orientations_found(shaped)
        groups = [replace(group, findings=(found,)) for group in groups]
    for name in ("component", "echo"):
        groups = [piece for group in groups for piece in _pieces(group, name)]
    return groups


def _by_place(images: list[Image]) -> list[list[Image]]:
    """Cluster images that are parallel and have one shape and pixel spacing, in a stable order."""
    clusters: list[list[Image]] = []
    for image in images:
        home = next((cluster for cluster in clusters if _alike(cluster[0], image)), None)
        if home is None:
            clusters.append([image])
        else:
            home.append(image)
    return sorted(
        clusters,
        key=lambda cluster: (
            tuple(np.round(cluster[0].across + cluster[0].down, 3) + 0.0),
            cluster[0].shape,
            cluster[0].spacing_mm,
        ),
    )


def _alike(one: Image, other: Image) -> bool:
    if one.shape != other.shape:
        return False
    if one.across == other.across and one.down == other.down and one.spacing_mm == other.spacing_mm:
        return True
    turned = max(abs(a - b) for a, b in zip(one.across + one.down, other.across + other.down, strict=True))
    scaled = max(abs(a / b - 1) for a, b in zip(one.spacing_mm, other.spacing_mm, strict=True))
    return turned < SAME_DIRECTION and scaled < _SAME_SPACING


def _orientations_found(clusters: list[list[Image]]) -> Finding:
    normals = [np.cross(cluster[0].across, cluster[0].down) for cluster in clusters]
    cosines = [float(a @ b) for i, a in enumerate(normals) for b in normals[:i]]
    angle = float(np.rad2deg(np.arccos(np.clip(min(cosines), -1, 1))))
    fact = f"the series holds {len(clusters)} stacks of different orientation or pixels, up to {angle:.1f} degrees apart."
    numbers = {"stacks": len(clusters), "angle_deg": round(angle, 3)}
    return Finding("DCM-ORIENT", Verdict.OK, f"{fact} This is one of them.", numbers)


def _pieces(group: _Group, name: str) -> list[_Group]:
    """Separate a group by a trait; images without it are a piece of their own."""
    values = _by_trait(group.images, name)
    if len(values) < 2:
        return [group]
    return [group.with_label(label, values[value]) for value, label in _labels(name, values).items()]


def _by_trait(images: Iterable[Image], name: str) -> dict[Hashable, list[Image]]:
    values: dict[Hashable, list[Image]] = {}
    for image in images:
        values.setdefault(image.traits.get(name), []).append(image)
    return values


def _labels(name: str, values: Iterable[Hashable]) -> dict[Hashable, str]:
    """Name every value of a trait; text of the header is named by its rank, never shown."""
    ordered = sorted(values, key=lambda value: (value is None, isinstance(value, str | tuple), _sortable(value)))
    if name == "component":
        return {value: str(value or "no component") for value in ordered}
    unit = _SEPARATORS.get(name, "")
    return {
        value: f"no {name}"
        if value is None
        else f"{name} {value:.10g}{unit}"
        if isinstance(value, int | float)
        else f"{name} {rank}"
        for rank, value in enumerate(ordered, start=1)
    }


def _sortable(value: Any) -> Any:  # noqa: ANN401 (values of one trait are of one type)
    return (str(value),) if isinstance(value, str) else value if value is not None else 0


def _where_repeated(group: _Group, fingerprints: Fingerprints) -> list[_Group]:
    """Separate what stands at one position: by traits, then copies, then by time; the rest stays together."""
    done: list[_Group] = []
    for piece in _by_separators(group):
        if _most_repeats(piece.images) == 1:
            done += _interleaved(piece)
            continue
        unique = _without_copies(piece, fingerprints)
        done += [unique] if _most_repeats(unique.images) == 1 else _by_time(unique)
    return done


def _by_separators(group: _Group) -> list[_Group]:
    """Separate repeated positions by the first trait that does so completely; else by one that keeps positions whole."""
    repeats = _most_repeats(group.images)
    if repeats == 1:
        return [group]
    for name in _SEPARATORS:
        values = _by_trait(group.images, name)
        if len(values) == repeats and None not in values and all(_most_repeats(one) == 1 for one in values.values()):
            return _pieces(group, name)
    for name in _SEPARATORS:
        values = _by_trait(group.images, name)
        if 1 < len(values) <= repeats and _each_is_whole(group.images, values.values()):
            return [finer for piece in _pieces(group, name) for finer in _by_separators(piece)]
    return [group]


def _each_is_whole(images: list[Image], pieces: Iterable[list[Image]]) -> bool:
    """Whether every piece has an image at every position of the whole."""
    places = _places(images)
    where = {id(image): int(place) for image, place in zip(images, places, strict=True)}
    wanted = int(places.max()) + 1
    return all(len({where[id(image)] for image in piece}) == wanted for piece in pieces)


def _without_copies(group: _Group, fingerprints: Fingerprints) -> _Group:
    """Keep one of the images that stand at one position with the same pixels."""
    stacks = [stack for stack in _in_slices(group.images) if len(stack) > 1]
    crowded = [image for stack in stacks for image in stack]
    marks = dict(zip(map(id, crowded), fingerprints(crowded), strict=True))
    twins: list[tuple[Image, Image]] = []
    for stack in stacks:
        first: dict[bytes, Image] = {}
        twins += [(first[marks[id(image)]], image) for image in stack if first.setdefault(marks[id(image)], image) is not image]
    if not twins:
        return group
    kept, copied = (image.file.number for image in twins[0])
    fact = (
        f"{counted(len(twins), 'image', 'repeats', 'repeat')} another one at the same position "
        f"(file {copied} is like file {kept}); one of each was kept."
    )
    found = Finding("DCM-DUP", Verdict.WARN, fact, {"copies": len(twins), "files": [kept, copied]})
    copies = tuple(copy for _, copy in twins)
    dropped = {id(copy) for copy in copies}
    images = [image for image in group.images if id(image) not in dropped]
    return replace(group, images=images, findings=(*group.findings, found), copies=copies)


def _by_time(group: _Group) -> list[_Group]:
    """Separate a complete time series: every position as often as every other, and times that put them in order."""
    stacks = _in_slices(group.images)
    if len({len(stack) for stack in stacks}) != 1:
        return [group]
    whole_objects = len({image.file.sop_instance_uid for image in group.images}) == len(stacks[0])
    ordered = [sorted(stack, key=lambda image: _when(image, whole_objects)) for stack in stacks]
    if any(len({_when(image, whole_objects) for image in stack}) < len(stack) for stack in ordered):
        return [group]
    return [group.with_label(f"time {k + 1}", [stack[k] for stack in ordered]) for k in range(len(stacks[0]))]


def _when(image: Image, whole_objects: bool) -> tuple[object, ...]:
    """When an image was taken; where each object is one volume, their numbers count as well."""
    taken = image.traits.get("taken") or ()
    return (taken, image.file.instance_number if whole_objects else 0)


def _interleaved(group: _Group) -> list[_Group]:
    """Separate acquisitions that are regular by themselves and interleave at uneven steps."""
    if is_regular(np.sort(along_normal(group.images))):
        return [group]
    for name in ("stack", "acquisition"):
        values = _by_trait(group.images, name)
        if len(values) > 1 and all(_is_volume(one) for one in values.values()) and _all_overlap(values.values()):
            return _pieces(group, name)
    return [group]


def _is_volume(images: list[Image]) -> bool:
    return len(images) >= _LEAST_REGULAR and is_regular(np.sort(along_normal(images)))


def _all_overlap(pieces: Iterable[list[Image]]) -> bool:
    ranges = [(float(depths.min()), float(depths.max())) for depths in map(along_normal, pieces)]
    return max(low for low, _ in ranges) < min(high for _, high in ranges)


def _in_slices(images: Sequence[Image]) -> tuple[tuple[Image, ...], ...]:
    """Gather images by position, ascending along the normal."""
    places = _places(images)
    stacks: list[list[Image]] = [[] for _ in range(int(places.max()) + 1)]
    for image, place in zip(images, places, strict=True):
        stacks[int(place)].append(image)
    return tuple(tuple(stack) for stack in stacks)


def _most_repeats(images: Sequence[Image]) -> int:
    return int(np.bincount(_places(images)).max())


def _repeats(sorted_depths: Float64, image: Image) -> int:
    return int(np.bincount(_ranks(sorted_depths, image)).max())


def _places(images: Sequence[Image]) -> NDArray[np.int64]:
    """Return the number of every image's position along the normal, from 0."""
    depths = along_normal(images)
    order = np.argsort(depths, kind="stable")
    places = np.empty(len(depths), dtype=np.int64)
    places[order] = _ranks(depths[order], images[0])
    return places


def _ranks(sorted_depths: Float64, image: Image) -> NDArray[np.int64]:
    """Return numbers for sorted depths; closer than a fiftieth of a pixel or a hundredth of the usual step is one position."""
    steps = np.diff(sorted_depths)
    least = _SAME_PLACE * min(image.spacing_mm)
    real = steps[steps > least]
    apart = steps > max(least, _SAME_DEPTH * float(np.median(real)) if real.size else least)
    return np.concatenate([[0], np.cumsum(apart)]).astype(np.int64)
