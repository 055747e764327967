"""Volumes from disk, mixed by weight, a few of them kept in memory, each draw changed at random.

Nothing here knows what the volumes are used for. A draw depends on its random numbers alone, not on what was drawn before.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence

import torch

from medrecon.core.reading import ReadOptions
from medrecon.core.volume import Volume
from medrecon.training import loaders
from medrecon.training.augment import Shape, Triple, patch
from medrecon.training.config import AugmentConfig, SourceConfig
from medrecon.training.drawn import Drawn
from medrecon.training.loaders import Case


class Mixture:
    """The sources of a recipe; ``len()`` is the number of cases to train on, 0 where there are no sources."""

    def __init__(self, sources: Sequence[SourceConfig] = (), augment: AugmentConfig | None = None) -> None:
        self._augment = augment or AugmentConfig()
        self._sources = [_Source(source) for source in sources if source.weight > 0]
        self._weights = torch.tensor([source.weight for source in self._sources], dtype=torch.float64)

    def __len__(self) -> int:
        return sum(len(source.training) for source in self._sources)

    def draw(self, random: torch.Generator, shape: Shape, spacing_mm: Triple | None = None) -> Drawn:
        """Draw a patch of `shape` from a training volume, changed at random; never from one that is held out.

        Parameters
        ----------
        random : torch.Generator
            The only source of chance.
        shape : (slices, rows, columns) of the patch
        spacing_mm : (slice, row, column) of the patch; the volume's own where None
        """
        source = self._sources[int(torch.multinomial(self._weights, 1, generator=random))]
        number = int(torch.randint(len(source.training), (), generator=random))
        return patch(source.volume(source.training[number]), shape, spacing_mm, self._augment, random)

    def held_out(self) -> Iterator[Drawn]:
        """Yield the volumes kept for validation, as they are, in a fixed order."""
        for source in self._sources:
            for case in source.validation:
                yield _drawn(source.volume(case))


class _Source:
    """One source: its cases, divided by a hash of the subject, and the last volumes that were used."""

    def __init__(self, config: SourceConfig) -> None:
        found = loaders.cases(config.loader, config.path, ReadOptions(allow=config.allow))
        self.weight = config.weight
        self.validation, self.training = _divided(found, config.held_out)
        self._room = config.cached
        self._kept: OrderedDict[str, Volume] = OrderedDict()

    def volume(self, case: Case) -> Volume:
        """Return the volume of a case, from memory where it was used lately."""
        found = self._kept.pop(case.key, None) or case.load()
        self._kept[case.key] = found
        while len(self._kept) > self._room:
            self._kept.popitem(last=False)
        return found


def _divided(cases: Sequence[Case], held_out: float) -> tuple[list[Case], list[Case]]:
    """Divide cases into held out and trained on, by subject; the same division on every machine, never all held out."""
    subjects = sorted({case.subject or case.key for case in cases}, key=_hash)
    kept = set(subjects[: min(round(held_out * len(subjects)), len(subjects) - 1)])
    division: tuple[list[Case], list[Case]] = ([], [])
    for case in cases:
        division[(case.subject or case.key) not in kept].append(case)
    return division


def _hash(subject: str) -> str:
    return hashlib.sha256(subject.encode()).hexdigest()


def _drawn(volume: Volume) -> Drawn:
    return Drawn(volume.to_torch(), volume.spacing_mm, volume.quantity)
