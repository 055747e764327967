"""Corrections of X-ray projections in a MONAI pipeline: the functions of `medrecon.preprocess`.

Projections are (views, rows, columns): views stand where MONAI has channels. Every transform takes and returns an array,
a tensor or a MetaTensor, and leaves its meta data as they are; the dictionary versions end in ``d``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.transforms.transform import MapTransform, RandomizableTransform, Transform
from monai.utils.type_conversion import convert_data_type, convert_to_dst_type
from numpy.typing import ArrayLike, NDArray

from medrecon.preprocess.bad_pixels import fill_bad_pixels, find_bad_pixels
from medrecon.preprocess.beam_hardening import WaterPolynomial
from medrecon.preprocess.flat_field import flat_field
from medrecon.preprocess.logarithm import attenuation
from medrecon.preprocess.noise import add_noise
from medrecon.preprocess.rings import RingMethod, remove_rings
from medrecon.preprocess.scatter import subtract_constant_scatter, subtract_kernel_scatter


class _Correction(Transform):
    """What all corrections share: out of the tensor, through the function, and back."""

    def __call__(self, projections: NdarrayOrTensor) -> NdarrayOrTensor:
        """Return corrected projections (views, rows, columns), float32."""
        values, *_ = convert_data_type(projections, np.ndarray)
        corrected, *_ = convert_to_dst_type(self._correct(np.asarray(values)), projections, dtype=np.float32)
        return corrected

    @abstractmethod
    def _correct(self, projections: NDArray[Any]) -> NDArray[np.float32]:
        """Return the corrected projections."""


class DivideByFlatField(_Correction):
    """Counts to transmission; dead pixels become 0. See `medrecon.preprocess.flat_field.flat_field`."""

    def __init__(self, open_beam: ArrayLike, dark: ArrayLike = 0.0) -> None:
        super().__init__()
        self.open_beam, self.dark = open_beam, dark

    def _correct(self, projections: NDArray[Any]) -> NDArray[np.float32]:
        return flat_field(projections, self.open_beam, self.dark).pixels


class TakeLogarithm(_Correction):
    """Transmission to line integrals; 0 where a value is not finite. See `medrecon.preprocess.logarithm.attenuation`."""

    def __init__(self, floor: float = 1e-4, knee: float | None = None) -> None:
        super().__init__()
        self.floor, self.knee = floor, knee

    def _correct(self, projections: NDArray[Any]) -> NDArray[np.float32]:
        return attenuation(projections, self.floor, self.knee)[0]


class FillBadPixels(_Correction):
    """Find bad pixels, unless they are given, and fill them from their neighbours. See `medrecon.preprocess.bad_pixels`."""

    def __init__(self, bad: ArrayLike | None = None, threshold: float = 8.0) -> None:
        super().__init__()
        self.bad, self.threshold = bad, threshold

    def _correct(self, projections: NDArray[Any]) -> NDArray[np.float32]:
        bad = find_bad_pixels(projections, self.threshold) if self.bad is None else self.bad
        return fill_bad_pixels(projections, bad)


class RemoveRings(_Correction):
    """Take stripes out of line integrals. See `medrecon.preprocess.rings.remove_rings`."""

    def __init__(self, method: RingMethod = "sorting", size: int = 21, threshold: float = 3.0) -> None:
        super().__init__()
        self.method, self.size, self.threshold = method, size, threshold

    def _correct(self, projections: NDArray[Any]) -> NDArray[np.float32]:
        return remove_rings(projections, self.method, self.size, self.threshold)


class CorrectBeamHardening(_Correction):
    """Straighten line integrals of water. See `medrecon.preprocess.beam_hardening.WaterPolynomial`."""

    def __init__(self, coefficients: tuple[float, ...]) -> None:
        super().__init__()
        self.polynomial = WaterPolynomial(tuple(coefficients))

    def _correct(self, projections: NDArray[Any]) -> NDArray[np.float32]:
        return self.polynomial(projections)


class SubtractScatter(_Correction):
    """Take scatter off the transmission: a constant per view, or a wide kernel's. See `medrecon.preprocess.scatter`."""

    def __init__(self, fraction: float, width_px: tuple[float, float] | None = None) -> None:
        super().__init__()
        self.fraction, self.width_px = fraction, width_px

    def _correct(self, projections: NDArray[Any]) -> NDArray[np.float32]:
        if self.width_px is None:
            return subtract_constant_scatter(projections, self.fraction)
        return subtract_kernel_scatter(projections, self.fraction, self.width_px)


class RandDetectorNoise(_Correction, RandomizableTransform):
    """Give line integrals the noise of a random dose. See `medrecon.preprocess.noise.add_noise`.

    Parameters
    ----------
    photons : (least, most)
        Per pixel in air; drawn evenly in their logarithm.
    electronic : float
        Standard deviation of the electronics, in photons.
    prob : float
        How often noise is added at all.
    """

    def __init__(self, photons: tuple[float, float], electronic: float = 0.0, prob: float = 1.0) -> None:
        RandomizableTransform.__init__(self, prob)
        self.photons, self.electronic = photons, electronic
        self._drawn = (photons[0], 0)

    def randomize(self, data: object = None) -> None:
        """Draw whether, how many photons, and the seed of the noise."""
        super().randomize(data)
        low, high = np.log(self.photons)
        self._drawn = (float(np.exp(self.R.uniform(low, high))), int(self.R.randint(2**31)))

    def __call__(self, projections: NdarrayOrTensor) -> NdarrayOrTensor:
        """Return noisy line integrals."""
        self.randomize()
        return super().__call__(projections) if self._do_transform else projections

    def _correct(self, projections: NDArray[Any]) -> NDArray[np.float32]:
        photons, seed = self._drawn
        return add_noise(projections, photons, self.electronic, seed)


class _Correctiond(MapTransform):
    """Dictionary version of a correction."""

    def __init__(self, keys: KeysCollection, correction: _Correction, allow_missing_keys: bool) -> None:
        super().__init__(keys, allow_missing_keys)
        self.correction = correction

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the data with the projections corrected."""
        return dict(data) | {key: self.correction(data[key]) for key in self.key_iterator(data)}


class DivideByFlatFieldd(_Correctiond):
    """Dictionary version of `DivideByFlatField`."""

    def __init__(
        self, keys: KeysCollection, open_beam: ArrayLike, dark: ArrayLike = 0.0, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, DivideByFlatField(open_beam, dark), allow_missing_keys)


class TakeLogarithmd(_Correctiond):
    """Dictionary version of `TakeLogarithm`."""

    def __init__(
        self, keys: KeysCollection, floor: float = 1e-4, knee: float | None = None, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, TakeLogarithm(floor, knee), allow_missing_keys)


class FillBadPixelsd(_Correctiond):
    """Dictionary version of `FillBadPixels`."""

    def __init__(
        self, keys: KeysCollection, bad: ArrayLike | None = None, threshold: float = 8.0, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, FillBadPixels(bad, threshold), allow_missing_keys)


class RemoveRingsd(_Correctiond):
    """Dictionary version of `RemoveRings`."""

    def __init__(
        self,
        keys: KeysCollection,
        method: RingMethod = "sorting",
        size: int = 21,
        threshold: float = 3.0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, RemoveRings(method, size, threshold), allow_missing_keys)


class CorrectBeamHardeningd(_Correctiond):
    """Dictionary version of `CorrectBeamHardening`."""

    def __init__(self, keys: KeysCollection, coefficients: tuple[float, ...], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, CorrectBeamHardening(coefficients), allow_missing_keys)


class SubtractScatterd(_Correctiond):
    """Dictionary version of `SubtractScatter`."""

    def __init__(
        self,
        keys: KeysCollection,
        fraction: float,
        width_px: tuple[float, float] | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, SubtractScatter(fraction, width_px), allow_missing_keys)


class RandDetectorNoised(_Correctiond, RandomizableTransform):
    """Dictionary version of `RandDetectorNoise`; every key gets noise of its own."""

    def __init__(
        self,
        keys: KeysCollection,
        photons: tuple[float, float],
        electronic: float = 0.0,
        prob: float = 1.0,
        allow_missing_keys: bool = False,
    ) -> None:
        self.noise = RandDetectorNoise(photons, electronic, prob)
        _Correctiond.__init__(self, keys, self.noise, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> RandDetectorNoised:
        """Set the random state, also that of the noise."""
        super().set_random_state(seed, state)
        self.noise.set_random_state(seed, state)
        return self
