"""Volumes from disk, mixed by weight, a few of them kept in memory, each draw changed at random.

Nothing here knows what the volumes are used for. A draw depends on its random numbers alone, not on what was drawn before.
A case that cannot be used is left out and another one drawn: one bad file never stops a long training.
"""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Iterator, Sequence

import torch

from medrecon.core.errors import InputError, MedreconError
from medrecon.core.reading import ReadOptions
from medrecon.core.volume import Volume
from medrecon.training import loaders
from medrecon.training.augment import Shape, Triple, patch
from medrecon.training.config import AugmentConfig, SourceConfig
from medrecon.training.drawn import Drawn
from medrecon.training.loaders import Case

_TRIES = 50  # cases that cannot be used, one after the other, before there is something wrong with all

_log = logging.getLogger(__name__)


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
        for _ in range(_TRIES):
            number = int(torch.randint(len(source.training), (), generator=random))
            volume = source.volume(source.training[number])
            if volume is not None:
                return patch(volume, shape, spacing_mm, self._augment, random)
        hint = "The log names the codes; `medrecon inspect` shows more about each case."
        raise InputError("TRN-DATA", f"{_TRIES} cases in a row could not be used", hint)

    def held_out(self) -> Iterator[Drawn]:
        """Yield the volumes kept for validation, as they are, in a fixed order."""
        for source in self._sources:
            for case in source.validation:
                volume = source.volume(case)
                if volume is not None:
                    yield Drawn(volume.to_torch(), volume.spacing_mm, volume.quantity)


class _Source:
    """One source: its cases, divided by a hash of the subject, and the last volumes that were used."""

    def __init__(self, config: SourceConfig) -> None:
        found = loaders.cases(config.loader, config.path, ReadOptions(allow=config.allow))
        self.weight = config.weight
        self.validation, self.training = _divided(found, config.held_out)
        self._loader, self._coarsest_mm, self._room = config.loader, config.coarsest_mm, config.cached
        self._bad: set[str] = set()
        self._kept: OrderedDict[str, Volume] = OrderedDict()

    def volume(self, case: Case) -> Volume | None:
        """Return the volume of a case, from memory where it was used lately; None for one that cannot be used."""
        if case.key in self._bad:
            return None
        found = self._kept.pop(case.key, None) or self._loaded(case)
        if found is None:
            self._bad.add(case.key)
            return None
        self._kept[case.key] = found
        while len(self._kept) > self._room:
            self._kept.popitem(last=False)
        return found

    def _loaded(self, case: Case) -> Volume | None:
        try:
            found = case.load()
        except MedreconError as error:
            _log.warning("a case of loader %s is left out (%s)", self._loader, error.code)
            return None
        too_coarse = self._coarsest_mm is not None and max(found.spacing_mm) > self._coarsest_mm
        return None if too_coarse else found


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
