"""A volume cut into windows comes out as if it had been done whole, within bounded memory, and can be stopped."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from medrecon.core.errors import CancelledError, MemoryBudgetError
from medrecon.networks import _memory, tiling
from medrecon.networks.tiling import TilingConfig, predict

SMALL = TilingConfig(window=(16, 20, 24), halo=(3, 3, 3), least=(4, 4, 4))


class Smoothing(nn.Module):
    """Three convolutions of 3 voxels: an answer depends on three voxels to each side, and on nothing farther away."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv3d(channels, 4, 3, padding=1), nn.Tanh(), nn.Conv3d(4, 4, 3, padding=1), nn.Conv3d(4, 1, 3, padding=1)
        )
        self.windows: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.windows.append(tuple(x.shape[-3:]))
        answer: Tensor = self.layers(x)
        return answer


class Short(Smoothing):
    """Runs out of memory for windows of more voxels than `most`."""

    def __init__(self, most: int, error: RuntimeError | None = None) -> None:
        super().__init__()
        self.most = most
        self.error = error or torch.OutOfMemoryError("CUDA out of memory (simulated)")

    def forward(self, x: Tensor) -> Tensor:
        if math.prod(x.shape[-3:]) > self.most:
            raise self.error
        return super().forward(x)


def volume(*shape: int) -> Tensor:
    return torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(1))


def whole(network: nn.Module, x: Tensor) -> Tensor:
    with torch.inference_mode():
        answer: Tensor = network(x)
    return answer


def inner_difference(config: TilingConfig, x: Tensor) -> float:
    network = Smoothing()
    apart = predict(network, x, config).volume - whole(network, x)
    return float(apart[..., 3:-3, 3:-3, 3:-3].abs().max())


@pytest.mark.parametrize("shape", [(28, 50, 40), (16, 20, 24), (9, 61, 24), (17, 21, 25), (33, 8, 7)])
def test_the_inside_is_as_if_the_volume_had_been_done_whole(shape: tuple[int, int, int]) -> None:
    assert inner_difference(SMALL, volume(*shape)) < 2e-5


def test_the_check_sees_the_seams_of_windows_without_a_halo() -> None:
    assert inner_difference(SMALL.model_copy(update={"halo": (0, 0, 0)}), volume(28, 36, 40)) > 1e-3


def test_the_ends_of_a_volume_that_fits_its_windows_are_those_of_the_whole() -> None:
    network, x = Smoothing(), volume(16, 20, 60)
    tiled = predict(network, x, SMALL)
    assert tiled.windows > 1
    torch.testing.assert_close(tiled.volume[..., :20], whole(network, x)[..., :20], atol=2e-5, rtol=0)


def test_shape_type_and_channels_are_kept() -> None:
    x = torch.cat([volume(30, 21, 26)] * 2, dim=1)
    tiled = predict(Smoothing(channels=2), x, SMALL)
    assert tiled.volume.shape == (1, 1, 30, 21, 26)
    assert tiled.volume.dtype is torch.float32
    assert tiled.volume.is_contiguous()
    assert tiled.notes == ()


def test_windows_begin_at_multiples_of_the_smallest_scale_of_a_network() -> None:
    """A stride of 4 sees other voxels when it begins elsewhere; at multiples of 4 the whole comes out again."""

    class Strided(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            small = nn.functional.avg_pool3d(x, 4)
            return nn.functional.interpolate(small, scale_factor=4.0, mode="nearest")

    x = volume(32, 48, 64)
    config = SMALL.model_copy(update={"multiple": 4})
    torch.testing.assert_close(predict(Strided(), x, config).volume, Strided()(x), atol=1e-5, rtol=0)
    assert (predict(Strided(), x, SMALL.model_copy(update={"overlap": 0.3})).volume - Strided()(x)).abs().max() > 0.1


def test_progress_rises_to_one_and_counts_every_window() -> None:
    told: list[float] = []
    tiled = predict(Smoothing(), volume(28, 36, 40), SMALL, tick=told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert len(told) == tiled.windows + 1


def test_cancel_acts_within_one_window() -> None:
    network = Smoothing()

    def stop(share: float) -> None:
        if share > 0.3:
            raise CancelledError("RUN-CANCELLED", "stopped by the test")

    with pytest.raises(CancelledError):
        predict(network, volume(28, 36, 40), SMALL, tick=stop)
    total = predict(Smoothing(), volume(28, 36, 40), SMALL).windows
    assert len(network.windows) - 1 == math.floor(0.3 * total) + 1  # one window measured the memory


def test_memory_that_runs_out_leads_to_smaller_windows_and_is_recorded() -> None:
    x = volume(28, 36, 40)
    told: list[float] = []
    network = Short(most=12 * 12 * 14)
    assert math.prod(tiling._PROBE) > network.most  # measuring must not be what fails here
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiling, "_PROBE", (8, 8, 8))
        tiled = predict(network, x, SMALL, tick=told.append)
    assert math.prod(tiled.window) <= network.most < math.prod(SMALL.window)
    assert any("memory ran short" in note for note in tiled.notes)
    assert told == sorted(told)
    apart = (tiled.volume - whole(Smoothing(), x))[..., 3:-3, 3:-3, 3:-3]
    assert apart.abs().max() < 2e-5


def test_where_the_smallest_window_does_not_fit_it_is_refused_with_a_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiling, "_PROBE", (2, 2, 2))
    with pytest.raises(MemoryBudgetError, match="MEM-BUDGET"):
        predict(Short(most=8**3), volume(28, 36, 40), SMALL)


def test_a_failure_that_is_no_lack_of_memory_is_not_swallowed() -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        predict(Short(0, RuntimeError("mat1 and mat2 shapes cannot be multiplied")), volume(28, 36, 40), SMALL)


def test_what_a_cpu_says_without_memory_is_understood() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert _memory.is_out_of_memory(caught.value)
    assert not _memory.is_out_of_memory(RuntimeError("expected 5D input"))


def test_windows_are_chosen_by_an_estimate_before_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four channels of float32 twice, and what is free holds a window of half the size only."""
    need = 2 * 4 * 4 * math.prod(SMALL.window)
    monkeypatch.setattr(tiling, "free_bytes", lambda _: need)
    monkeypatch.setattr(tiling._Plan, "refuse_volume", lambda *_: None)
    network = Smoothing()
    tiled = predict(network, volume(28, 36, 40), SMALL)
    assert math.prod(tiled.window) < math.prod(SMALL.window)
    assert max(map(math.prod, network.windows[1:])) == math.prod(tiled.window)
    assert tiled.notes


def test_a_volume_that_does_not_fit_at_all_is_refused_before_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Smoothing()
    monkeypatch.setattr(tiling, "free_bytes", lambda _: 900_000)
    with pytest.raises(MemoryBudgetError, match="MEM-BUDGET"):
        predict(network, volume(60, 60, 60), TilingConfig(window=(8, 8, 8), halo=(3, 3, 3), least=(1, 1, 1)))
    assert len(network.windows) == 1


def test_the_estimate_is_the_memory_of_the_tensors_that_are_alive_at_once() -> None:
    class Known(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            wide = x.repeat(1, 6, 1, 1, 1)  # six times the window, and as much again for the sum, then both are let go
            narrow = (wide + 1).sum(dim=1, keepdim=True)
            del wide
            return narrow * 2

    x = volume(16, 16, 16)
    cost = _memory.Cost.measured(Known(), x)
    assert cost.outputs == 1
    assert cost.per_voxel * x.numel() == pytest.approx((6 + 6 + 1) * x.nbytes, rel=0.01)
