"""X-ray operators and FDK beside itk-rtk in the same run on the CPU; on a GPU beside published numbers.

Promises. CPU, 256^3 voxels from 360 views of 256^2: FDK at least 4 times as fast as itk-rtk, aim 10; forward projection
at least 3 times as fast as RTK's Joseph; memory at most 1.5 times the data. GPU (one H100), 512^3 voxels from 720 views
of 768 x 1024 in pinned host memory: FDK 0.46 s, aim 0.2; back projection 350 G updates/s, aim 600; forward 0.79 s.

Rounds take turns, so that a busy machine slows all alike; the fastest of each is shown, with the processor time that
went with it. A peer that is not installed is named as missing. With ``--device cuda`` only torch, numpy and Triton are
needed beside our own package; without pydantic the FDK of this file, which is the same sum, is timed in place of ours.

    python -m benchmarks.xray [--json FILE] [--device cuda] [--size 256] [--views 360] [--detector 256 256] [--rounds 3]
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks._report import parser, show
from medrecon.core.grid import Grid
from medrecon.core.views import Detector, ViewGeometry
from medrecon.operators.fdk_backprojection import FdkBackProjector
from medrecon.operators.xray_transform import XRayTransform

SID_MM, SDD_MM, WIDTH_MM = 600.0, 1200.0, 256.0
Job = Callable[[], Any]


@dataclass(frozen=True)
class Scene:
    """A ball off the centre, its exact projections, and where everything stands."""

    views: ViewGeometry
    grid: Grid
    volume: Tensor
    projections: Tensor
    device: str

    @classmethod
    def of(cls, size: int, views: int, detector: tuple[int, int], device: str) -> Scene:
        """Make the scene; on a GPU's behalf the projections lie in pinned memory of the host."""
        pitch = WIDTH_MM * SDD_MM / SID_MM / max(detector)
        panel = Detector(detector, (pitch, pitch))
        scan = ViewGeometry.cone(np.linspace(0, 2 * np.pi, views, endpoint=False), SID_MM, SDD_MM, panel)
        spacing = WIDTH_MM / size
        origin = np.full(3, -(size - 1) / 2 * spacing)
        grid = Grid.from_parts((size, size, size), (spacing,) * 3, origin)
        projections = torch.from_numpy(ball_projections(scan))
        return cls(
            scan,
            grid,
            ball_voxels(grid).to(device),
            projections.pin_memory() if device.startswith("cuda") else projections,
            device,
        )

    @property
    def updates(self) -> float:
        """Voxels times views."""
        return float(self.volume.numel() * len(self.views))


CENTRE_MM, RADIUS_MM, DENSITY = np.array([20.0, -15.0, 10.0]), 70.0, 0.02


def ball_projections(views: ViewGeometry) -> np.ndarray:
    """Chords through the ball, float32."""
    result = np.empty(views.shape, np.float32)
    rows = views.detector.row_mm(np.arange(views.detector.shape[0]))
    columns = views.column_points_lps_mm()
    for k, source in enumerate(np.asarray(views.sources_lps_mm)):
        ray = columns[k][None] + rows[:, None, None] * views.v[k] - source
        ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
        offset = CENTRE_MM - source
        away = offset @ offset - (ray @ offset) ** 2
        result[k] = 2 * DENSITY * np.sqrt(np.maximum(RADIUS_MM**2 - away, 0))
    return result


def ball_voxels(grid: Grid) -> Tensor:
    """Return the ball on a grid along the patient's axes."""
    z, y, x = (grid.origin_lps_mm[2 - a] + grid.spacing_mm[a] * np.arange(grid.shape[a]) - CENTRE_MM[2 - a] for a in range(3))
    inside = z[:, None, None] ** 2 + y[None, :, None] ** 2 + x[None, None, :] ** 2 <= RADIUS_MM**2
    return torch.from_numpy(DENSITY * inside.astype(np.float32))


def our_fdk(scene: Scene) -> Tensor:
    """Run the method `fdk`, or the same sum where pydantic is missing."""
    if importlib.util.find_spec("pydantic") is None:
        return plain_fdk(scene)
    from medrecon.core.progress import silent
    from medrecon.methods.fdk import FdkConfig, fdk

    A = XRayTransform(scene.views, scene.grid, device=scene.device)
    return fdk(A, scene.projections, FdkConfig(truncation=0.0), silent)


def plain_fdk(scene: Scene, block: int = 48) -> Tensor:
    """Weigh, filter with the ramp and back project; Feldkamp, Davis and Kress 1984."""
    views, (rows, columns) = scene.views, scene.views.detector.shape
    pitch = views.detector.pitch_mm[1] * SID_MM / SDD_MM
    length = 1 << (2 * columns - 1).bit_length()
    n = torch.arange(length, device=scene.device)
    n = torch.minimum(n, length - n)
    kernel = torch.where(n % 2 == 1, -1 / (np.pi * n.clamp(min=1) * pitch) ** 2, 0.0)
    kernel[0] = 1 / (4 * pitch**2)
    ramp = torch.fft.rfft(kernel * pitch).real
    u, v = (torch.tensor(mm, device=scene.device, dtype=torch.float32) for mm in (
        views.detector.column_mm(np.arange(columns)), views.detector.row_mm(np.arange(rows))
    ))  # fmt: skip
    cosine = SDD_MM / (SDD_MM**2 + u[None] ** 2 + v[:, None] ** 2).sqrt()
    projector = FdkBackProjector(views, scene.grid, scene.device)
    weight = np.pi / len(views) * SID_MM**2
    for first in range(0, len(views), block):
        part = scene.projections[first : first + block].to(scene.device, non_blocking=True) * cosine
        filtered = torch.fft.irfft(torch.fft.rfft(part, length) * ramp, length)[..., :columns]
        projector.add(first, filtered, np.full(len(part), weight))
    return projector.result()


def jobs(scene: Scene) -> Iterator[tuple[str, Job, str]]:
    """Yield name, job and the name of the peer's job to compare with."""
    A = XRayTransform(scene.views, scene.grid, device=scene.device)
    y = scene.projections.to(scene.device)
    weights = np.full(len(scene.views), np.pi / len(scene.views) * SID_MM**2)

    def back_project() -> Tensor:
        projector = FdkBackProjector(scene.views, scene.grid, scene.device)
        projector.add(0, y, weights)
        return projector.result()

    yield "FDK", lambda: our_fdk(scene), "itk-rtk FDK"
    yield "back projection of FDK", back_project, ""
    yield "forward projection", lambda: A.forward(scene.volume), "itk-rtk Joseph forward"
    yield "adjoint", lambda: A.adjoint(y), "itk-rtk Joseph back"
    yield "CGLS iteration", lambda: A.adjoint(A.forward(scene.volume)), ""


def rtk_jobs(scene: Scene) -> Iterator[tuple[str, Job]]:
    """Yield itk-rtk's filters on the same data."""
    import itk
    from itk import RTK

    from medrecon.core.rtk_geometry import views_to_rtk

    image, parameters = itk.Image[itk.F, 3], views_to_rtk(scene.views)
    geometry = RTK.ThreeDCircularProjectionGeometry.New()
    for angle in parameters.gantry_deg:
        geometry.AddProjection(SID_MM, SDD_MM, float(angle))
    rows, columns = scene.views.detector.shape
    pitch = scene.views.detector.pitch_mm[0]
    stack = itk.image_from_array(scene.projections.numpy())
    stack.SetSpacing([pitch, pitch, 1.0])
    stack.SetOrigin([-(columns - 1) / 2 * pitch, -(rows - 1) / 2 * pitch, 0.0])
    size, spacing = scene.grid.shape[0], scene.grid.spacing_mm[0]
    in_iec = np.ascontiguousarray(scene.volume.numpy().transpose(1, 0, 2)[::-1])  # LPS (z, y, x) to IEC (-y, z, x)
    volume = itk.image_from_array(in_iec)

    volume.SetSpacing([spacing] * 3)
    volume.SetOrigin([-(size - 1) / 2 * spacing] * 3)

    def run(make: Any, like: Any, given: Any) -> Job:  # noqa: ANN401 (itk is untyped)
        def job() -> Any:  # noqa: ANN401
            empty, task = RTK.ConstantImageSource[image].New(), make.New()
            empty.SetInformationFromImage(like)
            empty.SetConstant(0.0)
            task.SetInput(0, empty.GetOutput())
            task.SetInput(1, given)
            task.SetGeometry(geometry)
            task.Update()
            return itk.array_from_image(task.GetOutput())

        return job

    yield "itk-rtk FDK", run(RTK.FDKConeBeamReconstructionFilter[image], volume, stack)
    yield "itk-rtk Joseph forward", run(RTK.JosephForwardProjectionImageFilter[image, image], stack, volume)
    yield "itk-rtk Joseph back", run(RTK.JosephBackProjectionImageFilter[image, image], volume, stack)


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Difference of two volumes or projections relative to ours; RTK's volumes lie in the IEC frame."""
    if ours.shape[0] == ours.shape[1] == ours.shape[2]:
        theirs = theirs.transpose(1, 0, 2)[:, ::-1]
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(ours))


def timed(job: Job, device: str) -> tuple[float, float, Any]:
    """Wall and processor seconds of one run, and its result; a GPU is waited for."""
    start, start_cpu = time.perf_counter(), time.process_time()
    result = job()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - start, time.process_time() - start_cpu, result


def measure(scene: Scene, rounds: int) -> list[dict[str, Any]]:
    """Time everything in turns and describe the fastest of each."""
    ours, peers = list(jobs(scene)), []
    if scene.device == "cpu" and importlib.util.find_spec("itk") is not None:
        peers = list(rtk_jobs(scene))
    everything = [(name, job) for name, job, _ in ours] + peers
    for _, job, _ in jobs(Scene.of(24, 8, (24, 24), scene.device)):
        job()  # compile and check the kernels
    best: dict[str, tuple[float, float]] = {}
    results: dict[str, Any] = {}
    for _ in range(rounds):
        for name, job in everything:
            wall, cpu, results[name] = timed(job, scene.device)
            best[name] = min(best.get(name, (np.inf, np.inf)), (wall, cpu))
    rows = []
    for name, _, peer in ours:
        wall, cpu = best[name]
        row: dict[str, Any] = {"what": name, "seconds": wall, "cpu seconds": cpu, "G updates/s": scene.updates / wall / 1e9}
        if peer:
            row |= {"peer": peer, "peer seconds": best[peer][0], "ratio": best[peer][0] / wall} if peer in best else {
                "peer": f"{peer}: not installed" if scene.device == "cpu" else ""
            }  # fmt: skip
            if peer in best:
                row |= {"peer cpu seconds": best[peer][1], "cpu ratio": best[peer][1] / cpu}
            if peer in results:
                row["difference"] = difference(results[name].numpy(), results[peer])
        rows.append(row)
    return rows


def memory_rows(scene: Scene) -> list[dict[str, Any]]:
    """How far the peak of this process's memory grows during each job, with projections and volume, over their size."""
    data = 4 * (scene.volume.numel() + scene.projections.numel())
    rows = []
    for name, job, _ in list(jobs(scene))[:4]:
        Path("/proc/self/clear_refs").write_text("5")  # begin the peak anew
        before = _kib("VmRSS:")
        job()
        inputs = 4 * (scene.volume.numel() if name == "forward projection" else scene.projections.numel())
        rows.append({"what": f"memory of {name} over data", "ratio": ((_kib("VmHWM:") - before) * 1024 + inputs) / data})
    return rows


def _kib(name: str) -> int:
    """Read one number of Linux's account of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def main() -> None:
    """Measure and print."""
    found = parser(__doc__)
    found.add_argument("--device", default="cpu")
    found.add_argument("--size", type=int)
    found.add_argument("--views", type=int)
    found.add_argument("--detector", type=int, nargs=2, metavar=("ROWS", "COLUMNS"))
    found.add_argument("--rounds", type=int, default=3)
    given = found.parse_args()
    large = given.device.startswith("cuda")
    size, views = given.size or (512 if large else 256), given.views or (720 if large else 360)
    detector = tuple(given.detector or ((768, 1024) if large else (256, 256)))
    scene = Scene.of(size, views, (detector[0], detector[1]), given.device)
    where = torch.cuda.get_device_name(given.device) if large else f"CPU, {torch.get_num_threads()} threads"
    title = f"{size}^3 voxels, {views} views of {detector[0]} x {detector[1]} on {where}"
    rows = measure(scene, given.rounds)
    if not large and Path("/proc/self/clear_refs").exists():
        rows += memory_rows(scene)
    show(title, rows, given.json)


if __name__ == "__main__":
    main()
