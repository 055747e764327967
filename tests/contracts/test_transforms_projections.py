"""The corrections of projections as MONAI transforms: what the functions give, in a Compose, whatever holds the values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from medrecon.preprocess.bad_pixels import fill_bad_pixels, find_bad_pixels
from medrecon.preprocess.beam_hardening import WaterPolynomial
from medrecon.preprocess.flat_field import flat_field
from medrecon.preprocess.logarithm import attenuation
from medrecon.preprocess.rings import remove_rings
from medrecon.preprocess.scatter import subtract_constant_scatter, subtract_kernel_scatter

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning:monai")


@pytest.fixture
def transmission(rng: np.random.Generator) -> NDArray[np.float32]:
    return rng.uniform(0.1, 1.0, (12, 6, 32)).astype(np.float32)


def test_every_correction_gives_what_its_function_gives(transmission: NDArray[np.float32]) -> None:
    from medrecon import transforms as trf

    t = transmission
    flat = np.full((6, 32), 1.5)
    pairs: list[tuple[Any, NDArray[np.float32]]] = [
        (trf.DivideByFlatField(flat, 0.05), flat_field(t, flat, 0.05).pixels),
        (trf.TakeLogarithm(1e-3, 0.2), attenuation(t, 1e-3, 0.2)[0]),
        (trf.FillBadPixels(threshold=3.0), fill_bad_pixels(t, find_bad_pixels(t, 3.0))),
        (trf.RemoveRings(size=5), remove_rings(t, size=5)),
        (trf.CorrectBeamHardening((1.0, 0.1)), WaterPolynomial((1.0, 0.1))(t)),
        (trf.SubtractScatter(0.2), subtract_constant_scatter(t, 0.2)),
        (trf.SubtractScatter(0.2, (2.0, 4.0)), subtract_kernel_scatter(t, 0.2, (2.0, 4.0))),
    ]
    for transform, expected in pairs:
        np.testing.assert_array_equal(transform(t), expected)
        assert not np.array_equal(expected, t)  # the twin: nothing done would fail


def test_tensors_stay_tensors_and_keep_their_meta_data(transmission: NDArray[np.float32]) -> None:
    from monai.data import MetaTensor

    from medrecon.transforms import TakeLogarithm

    expected = TakeLogarithm()(transmission)
    plain = TakeLogarithm()(torch.from_numpy(transmission))
    carried = TakeLogarithm()(MetaTensor(torch.from_numpy(transmission), meta={"scanner": "C-arm"}))
    assert type(plain) is torch.Tensor
    assert isinstance(carried, MetaTensor)
    assert carried.meta["scanner"] == "C-arm"
    for found in (plain, carried):
        np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


def test_a_compose_goes_from_counts_to_line_integrals(transmission: NDArray[np.float32]) -> None:
    from monai.transforms import Compose

    from medrecon.transforms import DivideByFlatFieldd, FillBadPixelsd, RemoveRingsd, TakeLogarithmd

    chain = Compose([DivideByFlatFieldd("y", 1000.0), TakeLogarithmd("y"), FillBadPixelsd("y"), RemoveRingsd("y", size=3)])
    found = chain({"y": 1000 * transmission, "other": 1})
    line_integrals = attenuation(flat_field(1000 * transmission, 1000.0).pixels)[0]
    filled = fill_bad_pixels(line_integrals, find_bad_pixels(line_integrals))
    np.testing.assert_array_equal(found["y"], remove_rings(filled, size=3))
    assert found["other"] == 1


def test_noise_follows_the_pipelines_seed(transmission: NDArray[np.float32]) -> None:
    from monai.transforms import Compose

    from medrecon.transforms import RandDetectorNoise, RandDetectorNoised

    def drawn(seed: int) -> NDArray[np.float32]:
        chain = Compose([RandDetectorNoised("y", (1e3, 1e5))]).set_random_state(seed)
        return np.asarray(chain({"y": transmission})["y"])

    np.testing.assert_array_equal(drawn(1), drawn(1))
    assert not np.array_equal(drawn(1), drawn(2))
    np.testing.assert_array_equal(RandDetectorNoise((1e3, 1e5), prob=0.0)(transmission), transmission)
