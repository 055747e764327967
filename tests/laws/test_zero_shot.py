"""A network that learns from the scan itself: the pairs it learns from, what judges it, and what it may never do."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.fft import dct
from torch import Tensor, nn

from medrecon.core.errors import CancelledError, WeightsError
from medrecon.core.findings import Verdict
from medrecon.core.output_grid import GridAxes, plan_grid
from medrecon.core.progress import silent
from medrecon.core.scans import SlicePoses
from medrecon.methods import Reconstructed
from medrecon.methods._both_planes import in_both_planes
from medrecon.methods._coarse_rows import CoarseRows, RegularDepth
from medrecon.methods._own_images import OwnImages, judge
from medrecon.methods._self_taught import Budget, Patches, Pupil, teach
from medrecon.methods.consistent_spline import ConsistentSplineConfig, consistent_spline
from medrecon.methods.zero_shot import ZeroShotConfig, _better, _pupil, zero_shot
from medrecon.networks.flow import Flow, FlowConfig
from medrecon.networks.manifest import Training
from medrecon.networks.wdsr import Wdsr, WdsrConfig, cosines
from medrecon.networks.weights import save
from medrecon.operators.slice_sampler import SliceSampler
from medrecon.quality.metrics import psnr
from tests.makers_slices import parallel_poses, three_stacks, tilted_poses, turned, uneven_poses

EPS = 0.01
SIDE = 40
CONTRAST, RADIUS = 20.0, 5.0
STORY = Training(training_data="none", trained_on="CPU", trained_date=date(2026, 1, 1))
Volume = NDArray[np.float32]


def balls(shape: tuple[int, int, int], seed: int = 1) -> Volume:
    """Overlapping balls of one brightness: edges everywhere, alike in all directions."""
    rng = np.random.default_rng(seed)
    places = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    voxels = np.zeros(shape, dtype=np.float32)
    for _ in range(60):
        centre, radius = rng.uniform(0, shape), rng.uniform(2.5, 6)
        distance = np.linalg.norm(places - centre, axis=-1)
        voxels = np.maximum(voxels, np.clip(radius - distance + 0.5, 0, 1) * rng.uniform(0.4, 1))
    found: Volume = (100 * voxels).astype(np.float32)
    return found


def waves(shape: tuple[int, int, int], seed: int = 1) -> Volume:
    """A texture of waves about 7 voxels long in all directions: a spline through slices 4 apart hardly sees them."""
    frequency = np.linalg.norm(np.stack(np.meshgrid(*(np.fft.fftfreq(n) for n in shape), indexing="ij")), axis=0)
    noise = np.fft.fftn(np.random.default_rng(seed).standard_normal(shape))
    voxels = np.fft.ifftn(noise * ((frequency > 1 / 8) & (frequency < 1 / 6))).real
    found: Volume = (50 + 20 * voxels / voxels.std()).astype(np.float32)
    return found


def scan_of(poses: SlicePoses, spacing_mm: float | None = None, seed: int = 1) -> tuple[SliceSampler, Tensor, Volume]:
    A = SliceSampler(poses, plan_grid(poses, spacing_mm))
    truth = balls(A.domain, seed)
    return A, A.forward(torch.from_numpy(truth)), truth


def regular(count: int = 10, step: float = 4.0, thickness: float = 4.0) -> SlicePoses:
    return parallel_poses(count, (0, 0, step), thickness, shape=(SIDE, SIDE + 4))


def depth_of(A: SliceSampler) -> RegularDepth:
    depth = RegularDepth.of(A, EPS)
    assert isinstance(depth, RegularDepth)
    return depth


def images_of(A: SliceSampler, y: Tensor) -> OwnImages:
    images = OwnImages.of(A, y, EPS)
    assert isinstance(images, OwnImages)
    return images


def pupil_of(images: OwnImages, network: nn.Module) -> Pupil:
    return Pupil(network, torch.device("cpu"), half=False, step=images.depth.step, thickness=images.depth.thickness)


def test_at_the_middles_of_equal_parts_the_cosines_are_the_discrete_cosine_transform() -> None:
    places = (torch.arange(5, dtype=torch.float64) + 0.5) / 5 - 0.5
    expected = dct(np.eye(5), type=3, axis=0)  # c_0 + 2 sum of c_k cos(pi k (2 n + 1) / 10)
    assert np.abs(cosines(places, 5).numpy() * [1, 2, 2, 2, 2] - expected).max() < 1e-12


def test_an_untrained_network_adds_nothing_and_says_so_for_any_size() -> None:
    network = Wdsr(WdsrConfig(channels=8, blocks=2))
    answer = network(torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0)))
    assert tuple(answer.shape) == (2, 8, 5, 7)
    assert float(answer.detach().abs().max()) == 0.0


@pytest.mark.parametrize("step", [4.0, 3.3, 5.0])
def test_an_image_is_made_as_coarse_as_the_operator_makes_the_depth(step: float) -> None:
    A, y, truth = scan_of(regular(step=step))
    depth = depth_of(A)
    first, count = 2, 5
    rows = depth.window(first, count)
    low = round(float(depth.at[first] - rows.at[0]))
    seen = rows.weights @ torch.from_numpy(truth[low : low + rows.fine]).flatten(1)
    inner = slice(2, -2)  # there, no profile is cut off by the window
    assert (seen.reshape(count, *truth.shape[1:]) - y[first : first + count])[inner].abs().max() < 1.5


def test_the_coarseness_check_fails_one_slice_off() -> None:
    A, y, truth = scan_of(regular())
    depth = depth_of(A)
    rows = depth.window(2, 5)
    low = round(float(depth.at[3] - rows.at[0]))
    seen = rows.weights @ torch.from_numpy(truth[low : low + rows.fine]).flatten(1)
    assert (seen.reshape(5, *truth.shape[1:]) - y[2:7])[2:-2].abs().max() > 20


def test_the_start_gives_the_coarse_rows_back() -> None:
    rows = depth_of(scan_of(regular())[0]).whole()
    assert (rows.weights @ rows.start - torch.eye(len(rows.at))).abs().max() < 0.03


def test_every_fine_row_belongs_to_its_nearest_coarse_one() -> None:
    rows = depth_of(scan_of(regular(step=3.7))[0]).whole()
    away = np.abs(np.arange(rows.fine)[:, None] - rows.at)
    assert (rows.nearest.numpy() == away.argmin(axis=1)).all()
    assert rows.places.abs().max() <= 0.5


def test_the_detail_of_a_constant_coefficient_is_that_constant() -> None:
    rows = depth_of(scan_of(regular())[0]).whole()
    coefficients = torch.zeros(1, 8, len(rows.at), 3)
    coefficients[:, 0] = 2.5
    assert (rows.detail(coefficients) - 2.5).abs().max() < 1e-5


def why_not(poses: SlicePoses, axes: GridAxes = "scanner", stack: NDArray[np.int64] | None = None) -> str:
    grid = plan_grid(poses, 1.0, axes)
    A = SliceSampler(poses, grid, stack=stack)
    y = torch.from_numpy(np.random.default_rng(0).random(A.range)).float()
    found = OwnImages.of(A, y, EPS)
    assert isinstance(found, str)
    return found


def test_scans_that_offer_nothing_to_learn_from_are_named() -> None:
    assert "off equal steps" in why_not(SlicePoses(uneven_poses().to_lps_mm, (12, 14), np.full(6, 4.0)))
    assert "mm thick" in why_not(uneven_poses())
    assert "oblique" in why_not(turned(parallel_poses(8, shape=(48, 48)), 25), "patient")
    assert "stacks" in why_not(three_stacks()[0], stack=three_stacks()[1])
    assert "needed" in why_not(parallel_poses(3, shape=(48, 48)))
    assert "too little" in why_not(parallel_poses(8))


def test_a_tilted_gantry_is_learned_from() -> None:
    poses = tilted_poses(shape=(48, 48))
    more = np.concatenate([poses.to_lps_mm, poses.to_lps_mm])
    more[6:, 2, 3] += 24
    twice = SlicePoses(more, (48, 48), np.full(12, 3.8), poses.profile)
    A = SliceSampler(twice, plan_grid(twice))
    images = OwnImages.of(A, torch.from_numpy(np.random.default_rng(0).random(A.range)).float(), EPS)
    assert isinstance(images, OwnImages)


class _Constant(nn.Module):
    """Answers the same whatever it sees: `value` on the constant cosine."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        answer = x.new_zeros((x.shape[0], 8, *x.shape[2:]))
        answer[:, 0] = self.value
        return answer


@pytest.mark.parametrize("axes", ["scanner", "patient"])
def test_without_an_answer_the_volume_is_the_spline_with_its_correction_whichever_axis_is_the_depth(axes: GridAxes) -> None:
    poses = parallel_poses(10, (4, 0, 0), shape=(SIDE, SIDE + 4), down=(0, -1, 0), across=(0, 0, 1))
    A = SliceSampler(poses, plan_grid(poses, None, axes))
    y = A.forward(torch.from_numpy(balls(A.domain)))
    images = images_of(A, y)
    x, apart = in_both_planes(pupil_of(images, _Constant(0.0)), images, silent)
    plain = consistent_spline(A, y, ConsistentSplineConfig(edge_steps=0), silent)
    assert float(apart.max()) == 0.0
    assert (x - plain).abs().max() < 0.02 * (plain.max() - plain.min())


def test_an_answer_is_added_in_the_unit_of_the_scan() -> None:
    A, y, _ = scan_of(regular())
    images = images_of(A, y)
    zero, _ = in_both_planes(pupil_of(images, _Constant(0.0)), images, silent)
    more, apart = in_both_planes(pupil_of(images, _Constant(0.1)), images, silent)
    assert (more - zero - 0.1 * images.span).abs().max() < 1e-3 * images.span
    assert float(apart.max()) < 1e-3 * images.span


@dataclass(frozen=True, eq=False)
class _Told(Pupil):
    """Knows the held-back images, and answers them with some error."""

    truth: tuple[Tensor, ...] = ()
    error: float = 0.0

    def answer(self, images: Tensor, rows: CoarseRows) -> Tensor:
        for known in self.truth:
            fine = known[:, : rows.fine]
            if tuple(fine.shape) == (len(images), rows.fine, images.shape[2]) and torch.allclose(rows.weights @ fine, images):
                noise = torch.randn(fine.shape, generator=torch.Generator().manual_seed(0))
                return fine - rows.start @ images + self.error * noise
        raise AssertionError("other images than those held back were asked for")


def told(images: OwnImages, error: float) -> _Told:
    truth = tuple(torch.from_numpy(stack[images.held]) for stack in images.stacks)
    return _Told(_Constant(0.0), torch.device("cpu"), False, images.depth.step, images.depth.thickness, truth, error)


def test_a_network_that_is_right_gets_all_the_weight_and_one_that_is_wrong_next_to_none() -> None:
    images = images_of(*scan_of(regular())[:2])
    right, wrong = (judge(told(images, error), images) for error in (0.0, 2.0))
    assert right.share > 0.99
    assert right.gain_db > 20
    assert wrong.share < 0.01
    assert wrong.gain_db < 0.05


def test_the_spline_is_what_images_held_back_are_compared_with() -> None:
    A, y, _ = scan_of(regular())
    images = images_of(A, y)
    assert 1 <= images.held.sum() < len(images.held) / 2
    assert not images.held[[0, -1]].any()
    assert all(len(stack) == (~images.held).sum() for stack in images.to_learn())


def quick(**settings: object) -> ZeroShotConfig:
    return ZeroShotConfig.model_validate({"steps": 6, "weights": "none", "precision": "float32", "margin_db": 0.3} | settings)


def test_the_same_steps_and_seed_teach_the_same_network_and_another_seed_another_one() -> None:
    images = images_of(*scan_of(regular())[:2])

    def taught(seed: int) -> Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            pupil = pupil_of(images, Wdsr(WdsrConfig(channels=8, blocks=1)))
        patches = Patches(images.to_learn(), np.random.default_rng(seed))
        lesson = teach(pupil, images.depth, patches, Budget(1e9, steps=2), 2e-3, images.coarse, silent)
        assert lesson.steps == lesson.planned == 2
        return torch.cat([values.detach().flatten() for values in pupil.network.parameters()])

    assert torch.equal(taught(0), taught(0))
    assert not torch.equal(taught(0), taught(1))


def test_seconds_become_a_number_of_steps() -> None:
    images = images_of(*scan_of(regular())[:2])
    pupil = pupil_of(images, Wdsr(WdsrConfig(channels=4, blocks=1, basis=4)))
    patches = Patches(images.to_learn(), np.random.default_rng(0))
    lesson = teach(pupil, images.depth, patches, Budget(0.5), 2e-3, images.coarse, silent)
    assert 1 <= lesson.steps <= lesson.planned


def test_nothing_gained_leaves_the_classical_volume_and_says_so() -> None:
    A, y, _ = scan_of(regular())
    made = zero_shot(A, y, quick(steps=1), silent)
    assert torch.equal(made.x, consistent_spline(A, y, ConsistentSplineConfig(), silent))
    assert made.uncertainty is None
    assert [(f.code, f.verdict) for f in made.findings] == [("ZERO-SPLINE", Verdict.OK)]


def test_a_scan_of_another_kind_gets_the_classical_volume_with_a_warning() -> None:
    poses = uneven_poses()
    A = SliceSampler(poses, plan_grid(poses))
    y = torch.from_numpy(np.random.default_rng(0).random(A.range)).float()
    made = zero_shot(A, y, quick(), silent)
    assert torch.equal(made.x, consistent_spline(A, y, ConsistentSplineConfig(), silent))
    assert [(f.code, f.verdict) for f in made.findings] == [("ZERO-SPLINE", Verdict.WARN)]


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Reconstructed, SliceSampler, Tensor, Volume]:
    """A scan of waves, and what a very small network makes of it after a few steps."""
    A = SliceSampler(regular(12), plan_grid(regular(12)))
    truth = waves(A.domain)
    y = A.forward(torch.from_numpy(truth))
    config = WdsrConfig(channels=12, blocks=2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        fresh = Wdsr(config)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save(path, "wdsr", config, fresh, STORY)
    return zero_shot(A, y, quick(steps=400, rate=8e-3, weights=str(path)), silent), A, y, truth


def test_a_texture_alike_in_all_directions_comes_back_better_than_in_the_classical_volume(
    learned: tuple[Reconstructed, SliceSampler, Tensor, Volume],
) -> None:
    made, A, y, truth = learned
    assert [f.code for f in made.findings] == ["ZERO-TRAINED"]
    plain = consistent_spline(A, y, ConsistentSplineConfig(), silent)
    errors = [float((x - torch.from_numpy(truth)).square().mean()) for x in (made.x, plain)]
    assert errors[0] < 0.95 * errors[1]


def test_slicing_what_it_made_gives_the_slices_back(learned: tuple[Reconstructed, SliceSampler, Tensor, Volume]) -> None:
    made, A, y, _ = learned
    assert float((A.forward(made.x) - y).norm() / y.norm()) < 0.01


def test_the_uncertainty_is_larger_where_the_error_is(learned: tuple[Reconstructed, SliceSampler, Tensor, Volume]) -> None:
    made, _, _, truth = learned
    assert made.uncertainty is not None
    error = (made.x - torch.from_numpy(truth)).abs()
    doubtful = made.uncertainty > made.uncertainty.quantile(0.9)
    assert error[doubtful].mean() > 1.1 * error[~doubtful].mean()


def test_a_job_is_stopped_by_its_tick_during_training() -> None:
    def stop(share: float) -> None:
        if share > 0.05:
            raise CancelledError("RUN-CANCELLED", "stopped by the test")

    A, y, _ = scan_of(regular())
    with pytest.raises(CancelledError):
        zero_shot(A, y, quick(steps=50), stop)


def test_the_random_numbers_of_the_caller_stay_as_they_are() -> None:
    A, y, _ = scan_of(regular())
    torch.manual_seed(5)
    before = torch.get_rng_state()
    zero_shot(A, y, quick(steps=1), silent)
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    config = FlowConfig()
    save(tmp_path / "other.safetensors", "flow", config, Flow(config), STORY)
    A, y, _ = scan_of(regular())
    with pytest.raises(WeightsError, match="MDL-MANIFEST"):
        zero_shot(A, y, quick(weights=str(tmp_path / "other.safetensors")), silent)


def test_the_shipped_weights_win_before_the_scan_has_taught_anything() -> None:
    A, y, truth = scan_of(regular())
    classical = consistent_spline(A, y, ConsistentSplineConfig(), silent).numpy()
    made = zero_shot(A, y, quick(steps=1, weights="auto"), silent)
    assert made.findings[0].code == "ZERO-TRAINED"
    assert psnr(made.x.numpy(), truth, 100.0) > psnr(classical, truth, 100.0) + 0.3


def test_weights_that_do_harm_are_not_started_from(monkeypatch: pytest.MonkeyPatch) -> None:
    harmful = Wdsr(WdsrConfig(inputs=3))
    with torch.no_grad():
        harmful.tail.bias.fill_(1.0)  # type: ignore[union-attr]  # a convolution has one here
    monkeypatch.setattr("medrecon.methods.zero_shot._loaded", lambda _: harmful)
    images = images_of(*scan_of(regular())[:2])
    pupil, start = _pupil(images, torch.device("cpu"), quick(weights="auto"))
    assert start is None
    assert pupil.network is not harmful


def test_training_that_does_harm_is_undone() -> None:
    images = images_of(*scan_of(regular())[:2])
    wrong, right = told(images, 2.0), told(images, 0.0)
    assert _better(wrong, (right, judge(right, images)), images)[0] is right
    assert _better(right, (wrong, judge(wrong, images)), images)[0] is right
    assert _better(wrong, None, images)[0] is wrong


@pytest.fixture(scope="module")
def marked() -> Volume:
    """By how much the volume changes, in shares of the contrast, when a faint ball is put into the truth."""
    poses = regular(14)
    A = SliceSampler(poses, plan_grid(poses))
    truth = balls(A.domain)
    volumes = [zero_shot(A, A.forward(torch.from_numpy(t)), quick(weights="auto"), silent) for t in (truth + lesion(A), truth)]
    assert [made.findings[0].code for made in volumes] == ["ZERO-TRAINED"] * 2
    change: Volume = ((volumes[0].x - volumes[1].x) / CONTRAST).numpy()
    return change


def test_a_ball_keeps_four_fifths_of_its_contrast(marked: Volume) -> None:
    inside = lesion(SliceSampler(regular(14), plan_grid(regular(14)))) > 0.99 * CONTRAST
    assert marked[inside].mean() > 0.8


def test_no_ball_appears_where_none_was(marked: Volume) -> None:
    away = distance_to_lesion(SliceSampler(regular(14), plan_grid(regular(14)))) > 3 * RADIUS
    assert np.abs(marked[away]).max() < 0.1


def test_the_check_of_balls_fails_one_slice_off() -> None:
    A = SliceSampler(regular(14), plan_grid(regular(14)))
    y = A.forward(torch.from_numpy(lesion(A))).roll(1, dims=0)
    moved = consistent_spline(A, y, ConsistentSplineConfig(), silent).numpy() / CONTRAST
    assert moved[lesion(A) > 0.99 * CONTRAST].mean() < 0.8


def distance_to_lesion(A: SliceSampler) -> Volume:
    places = np.stack(np.meshgrid(*(np.arange(n) for n in A.domain), indexing="ij"), axis=-1)
    away = np.linalg.norm(places - np.array(A.domain) // 2, axis=-1)
    found: Volume = away.astype(np.float32)
    return found


def lesion(A: SliceSampler) -> Volume:
    """A ball in the middle, fainter than what surrounds it."""
    found: Volume = (CONTRAST * np.clip(RADIUS + 0.5 - distance_to_lesion(A), 0, 1)).astype(np.float32)
    return found
