"""Take artefacts out of volumes from few or noisy projections: phantoms, scanned and reconstructed, before and after.

Every scan is one of a pool, drawn and simulated from its number alone; batches are patches of them. The projections come
from voxels half as large as those that are reconstructed, so that the network also meets what voxels cannot express.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import nibabel
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from medrecon.core.grid import Grid
from medrecon.core.progress import silent
from medrecon.core.settings import Config
from medrecon.core.volume import Quantity, Volume
from medrecon.methods import refine
from medrecon.methods.fdk import FdkConfig, fdk
from medrecon.methods.tv import TvConfig, tv
from medrecon.networks import weights
from medrecon.operators.xray_transform import XRayTransform
from medrecon.simulate_projections import ScannerConfig, simulate_projections
from medrecon.training.projection_phantoms import Kind, draw, ended
from medrecon.training.tasks import Batch, Context, generator

_FINER = 2  # voxels of the phantom per voxel of the reconstruction, along each axis
_LEAST_SLICES = 8  # from which a body may end within the volume
UNIT = 0.1  # of water's attenuation: what the loss and the network's output are measured in
FIRST_HELD_OUT = 1_000_000  # number of the first scan that is never trained on
_KINDS: dict[Kind, float] = {"head": 0.5, "labels": 0.2, "chest": 0.1, "shapes": 0.2}

Count = Annotated[int, Field(ge=1)]
Views = Annotated[int, Field(ge=8, le=10_000)]
Size = Annotated[int, Field(ge=8, le=512)]
Length = Annotated[float, Field(gt=0, le=2000)]
Photons = Annotated[float, Field(gt=0, le=1e12)]


class PhantomScansConfig(Config):
    """Which scans are drawn; pairs are (smallest, largest)."""

    scans: Count = Field(96, description="different scans that are trained on")
    batches_per_scan: Count = Field(28, description="batches after which one more scan is simulated, until all are there")
    held_out: Count = Field(8, description="further scans, for validation only")
    rows: tuple[Size, Size] = Field((64, 92), description="rows and columns of the reconstructed volumes")
    slices: tuple[Size, Size] = Field((20, 32), description="slices of the reconstructed volumes")
    field_mm: tuple[Length, Length] = Field((170.0, 260.0), description="width of the volumes")
    views: tuple[Views, Views] = Field((20, 90), description="projections of a scan")
    photons: tuple[Photons, Photons] = Field((2e4, 1e6), description="in air, for each pixel")
    label_maps: Path | None = Field(None, description="folder of brains as label maps (NIfTI, 1 mm); none: no such heads")
    water_per_mm: Annotated[float, Field(gt=0)] = Field(0.02, description="attenuation that the network takes for water")

    def describe(self) -> dict[str, Any]:
        """Tell for a manifest what was trained on."""
        kinds = "heads, heads about label maps of brains, chests and shapes" if self.label_maps else "heads, chests and shapes"
        low, high = self.field_mm[0] / self.rows[1], self.field_mm[1] / self.rows[0]
        return {
            "training_data": f"up to {self.scans} simulated scans of drawn {kinds}; {self.views[0]} to {self.views[1]} views, "
            f"{self.photons[0]:g} to {self.photons[1]:g} photons a pixel; no patient data",
            "spacing_mm": (round(low, 2), round(high, 2)),
            "modalities": ("CT",),
        }


class ProjectionsConfig(PhantomScansConfig):
    """Settings of the task `projections`."""

    patch: tuple[Size, Size, Size] = Field((24, 48, 48), description="slices, rows and columns of an example")
    fdk_share: Annotated[float, Field(ge=0, le=1)] = Field(0.15, description="of the examples that start from fdk, not tv")
    tv_iterations: Count = Field(30, description="of the start")
    corrector: str | None = Field(
        None, description="weights whose corrections are corrected again: shipped ones, or the path of a .safetensors file"
    )
    passes: Annotated[int, Field(ge=1, le=8)] = Field(
        2, description="of the corrector: volumes after each of them are starts too"
    )
    corrected_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.5, description="of the examples that start where the corrector was already, if there is one"
    )


@dataclass(frozen=True, eq=False)
class Example:
    """One simulated scan, reconstructed; all in units of water.

    Parameters
    ----------
    truth : (slices, rows, columns)
    starts, inputs : tensors by method
        (slices, rows, columns), and (channels, slices, rows, columns) as the network sees them.
    turns : bool
        Whether views from all around let the volume be turned in its plane.
    """

    truth: Tensor
    starts: dict[str, Tensor]
    inputs: dict[str, Tensor]
    turns: bool


class Projections:
    """Patches of reconstructions from few noisy projections of phantoms, and the phantoms."""

    def __init__(self, settings: ProjectionsConfig, context: Context) -> None:
        self.settings = settings
        self.context = context
        self._labels = read_label_maps(settings.label_maps)
        self._corrector = weights.load(settings.corrector, "cpu").module if settings.corrector else None
        self._pool: dict[int, Example] = {}

    def batch(self, seed: int, index: int) -> Batch:
        """Return patches: ``inputs`` (batch, channels, ...), ``start`` and ``truth`` (batch, 1, ...)."""
        random = generator(seed, index)
        ready = min(self.settings.scans, 1 + index // self.settings.batches_per_scan)
        parts = []
        for _ in range(self.context.batch):
            number = int(torch.randint(ready, (), generator=random))
            parts.append(self._patch(self.example(seed, number), random))
        return {key: torch.stack([part[key] for part in parts]) for key in ("inputs", "start", "truth")}

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Compare what the network makes of the starts with the truth, in tenths of water."""
        start, truth = batch["start"] / UNIT, batch["truth"] / UNIT
        return self.context.loss(start + network(batch["inputs"]).float(), truth)

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Return the PSNR over scans never trained on, and what it gains on the starts: `tv`, and the corrector's last."""
        before, after, missed_hu = [], [], []
        for number in range(self.settings.held_out):
            example = self.example(0, FIRST_HELD_OUT + number)
            for name in {"tv", list(example.starts)[-1]} - {"fdk"}:
                start = example.starts[name]
                found = network(example.inputs[name][None].to(self.context.device))[0, 0].float().cpu() * UNIT
                before.append(psnr_db(start, example.truth))
                after.append(psnr_db(start + found, example.truth))
                missed_hu.append(1000 * float((start + found - example.truth).square().mean().sqrt()))
        gain = float(np.mean(after) - np.mean(before))
        return {"psnr_db": float(np.mean(after)), "gain_db": gain, "rmse_hu": float(np.mean(missed_hu))}

    def describe(self) -> dict[str, Any]:
        """Tell what was trained on."""
        return self.settings.describe()

    def example(self, seed: int, number: int) -> Example:
        """Return one scan of the pool, simulated when it is first asked for."""
        if number not in self._pool:
            rng = np.random.default_rng((seed, number))
            self._pool[number] = simulate(self.settings, rng, self._labels, self._corrector)
        return self._pool[number]

    def _patch(self, example: Example, random: torch.Generator) -> dict[str, Tensor]:
        """Cut one patch, where more is wrong than at another place, turned and flipped at random."""
        name = self._start(example, random)
        whole = torch.cat([example.inputs[name], example.starts[name][None], example.truth[None]])
        size = self.settings.patch
        whole = _grown(whole, size)
        part = max((_cut(whole, size, random) for _ in range(2)), key=_wrong)
        flips = [axis + 1 for axis in range(3) if float(torch.rand((), generator=random)) < 0.5]
        part = part.flip(flips)
        if example.turns and size[1] == size[2] and float(torch.rand((), generator=random)) < 0.5:
            part = part.transpose(2, 3)
        return {"inputs": part[:-2], "start": part[-2:-1], "truth": part[-1:]}

    def _start(self, example: Example, random: torch.Generator) -> str:
        """Choose what the network is to correct."""
        if float(torch.rand((), generator=random)) < self.settings.fdk_share:
            return "fdk"
        again = [name for name in example.starts if name not in ("fdk", "tv")]
        if not again or float(torch.rand((), generator=random)) >= self.settings.corrected_share:
            return "tv"
        return again[int(torch.randint(len(again), (), generator=random))]


@dataclass(frozen=True, eq=False)
class Scanned:
    """A phantom and its scan.

    Parameters
    ----------
    A : XRayTransform
    y : (views, rows, columns)
        Line integrals.
    truth : (slices, rows, columns)
        In units of water.
    turns : bool
        Whether views look from all around.
    """

    A: XRayTransform
    y: Tensor
    truth: Tensor
    turns: bool


def scan_phantom(settings: PhantomScansConfig, rng: np.random.Generator, labels: list[NDArray[np.int_]]) -> Scanned:
    """Draw a phantom and a scanner, and scan."""
    rows = int(rng.integers(settings.rows[0], settings.rows[1] + 1)) // 2 * 2
    spacing = float(rng.uniform(*settings.field_mm)) / rows
    scanner = _scanner(settings, spacing, rng)
    slices = 1 if scanner.geometry == "fan" else int(rng.integers(settings.slices[0], settings.slices[1] + 1))
    phantom = _phantom((max(slices, 8) * _FINER, rows * _FINER, rows * _FINER), spacing / _FINER, rng, labels)
    fine = phantom[: slices * _FINER]
    fine = ended(fine, rng) if slices >= _LEAST_SLICES else fine
    measured = Volume(fine, _centred(fine.shape, spacing / _FINER), Quantity.HOUNSFIELD)
    scan = simulate_projections(measured, scanner)
    truth = _means(torch.from_numpy(1 + np.maximum(fine, -1000) / 1000)) * (scanner.water_per_mm / settings.water_per_mm)
    A = XRayTransform(scan.views, _coarser(measured.grid))
    return Scanned(A, torch.tensor(scan.pixels), truth, scanner.arc_deg == 360)


def simulate(
    settings: ProjectionsConfig, rng: np.random.Generator, labels: list[NDArray[np.int_]], corrector: nn.Module | None = None
) -> Example:
    """Draw and scan a phantom, and reconstruct by `tv` and `fdk`, and by the passes of a network after `tv`."""
    scanned = scan_phantom(settings, rng, labels)
    A, y, water = scanned.A, scanned.y, settings.water_per_mm
    starts = {
        "tv": tv(A, y, TvConfig(iterations=settings.tv_iterations), silent),
        "fdk": fdk(A, y, FdkConfig(window="hann"), silent).clamp(min=0),
    }
    if corrector is not None:
        once, x = refine.RefineConfig(passes=1, mirrors=1, water_per_mm=water), starts["tv"]
        for number in range(settings.passes):
            x, _ = refine.corrected(A, y, x, corrector, once, silent)
            starts[f"pass {number + 1}"] = x
    inputs = {name: refine.channels(x, refine.evidence(A, y, x), len(A.views), water) for name, x in starts.items()}
    return Example(scanned.truth, {name: x / water for name, x in starts.items()}, inputs, scanned.turns)


def _scanner(settings: PhantomScansConfig, spacing_mm: float, rng: np.random.Generator) -> ScannerConfig:
    """Draw a cone, a parallel or a fan beam, its views, its arc and its dose."""
    geometry = str(rng.choice(["cone", "parallel", "fan"], p=[0.75, 0.17, 0.08]))
    sid = float(rng.uniform(500, 1200))
    magnification = float(rng.uniform(1.2, 1.8)) if geometry != "parallel" else 1.0
    short = bool(rng.random() < 0.15)
    return ScannerConfig(
        geometry=geometry,
        views=round(float(np.exp(rng.uniform(*np.log(settings.views))))),
        arc_deg=float(rng.uniform(205, 250)) if short else 360.0,
        first_deg=float(rng.uniform(0, 360)),
        sid_mm=sid,
        sdd_mm=sid * magnification,
        pixel_mm=spacing_mm * float(rng.uniform(0.6, 1.0)) * magnification,
        water_per_mm=float(settings.water_per_mm * rng.uniform(0.95, 1.06)),
        photons=float(np.exp(rng.uniform(*np.log(settings.photons)))),
        electronic=float(rng.uniform(0, 15)),
        seed=int(rng.integers(2**31)),
    )


def _phantom(
    shape: tuple[int, int, int], spacing_mm: float, rng: np.random.Generator, labels: list[NDArray[np.int_]]
) -> NDArray[np.float32]:
    kinds = [kind for kind in _KINDS if labels or kind != "labels"]
    weights = np.array([_KINDS[kind] for kind in kinds])
    kind = kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))]
    brain = labels[int(rng.integers(len(labels)))] if labels else None
    return draw(kind, shape, spacing_mm, rng, brain)


def read_label_maps(folder: Path | None) -> list[NDArray[np.int_]]:
    """Return label maps with the head up: (slices, rows, columns)."""
    if folder is None:
        return []
    found = []
    for path in sorted(folder.glob("*.nii.gz")):
        image = nibabel.as_closest_canonical(nibabel.Nifti1Image.from_filename(path))
        found.append(np.asarray(image.dataobj).astype(np.int_).transpose(2, 1, 0)[:, ::-1, ::-1])
    return found


def _centred(shape: tuple[int, ...], spacing_mm: float) -> Grid:
    """Return an upright grid of cubes about the origin."""
    slices, rows, columns = shape
    return Grid.from_parts(
        (slices, rows, columns), (spacing_mm,) * 3, [-(n - 1) / 2 * spacing_mm for n in (columns, rows, slices)]
    )


def _coarser(grid: Grid) -> Grid:
    """Return the grid of voxels that hold `_FINER` of these along each axis."""
    to_lps_mm = grid.to_lps_mm.copy()
    to_lps_mm[:3, 3] = grid.to_lps(np.full(3, (_FINER - 1) / 2))
    to_lps_mm[:3, :3] *= _FINER
    slices, rows, columns = (n // _FINER for n in grid.shape)
    return Grid((slices, rows, columns), to_lps_mm)


def _means(fine: Tensor) -> Tensor:
    return functional.avg_pool3d(fine[None].float(), _FINER)[0]


def _grown(whole: Tensor, size: tuple[int, int, int]) -> Tensor:
    """Repeat the last slices, rows and columns of a volume that is smaller than a patch."""
    missing = [max(s - n, 0) for s, n in zip(size, whole.shape[1:], strict=True)]
    if not any(missing):
        return whole
    return functional.pad(whole[None], [0, missing[2], 0, missing[1], 0, missing[0]], mode="replicate")[0]


def _cut(whole: Tensor, size: tuple[int, int, int], random: torch.Generator) -> Tensor:
    first = [int(torch.randint(n - s + 1, (), generator=random)) for n, s in zip(whole.shape[1:], size, strict=True)]
    return whole[:, first[0] : first[0] + size[0], first[1] : first[1] + size[1], first[2] : first[2] + size[2]]


def _wrong(part: Tensor) -> float:
    """By how much the start, last but one, is not the truth, last."""
    return float((part[-2] - part[-1]).square().sum())


def psnr_db(x: Tensor, truth: Tensor) -> float:
    """Return the PSNR with the largest true value as peak."""
    return float(20 * torch.log10(truth.max() / (x - truth).square().mean().sqrt()))
