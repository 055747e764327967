"""Make the pictures of X-ray reconstructions in docs/pictures from the real measurements in ../shared/data.

python docs/xray_pictures.py [helsinki] [limited] [beamline] [head]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

import medrecon as mr
from medrecon import methods
from medrecon.core.grid import Grid
from medrecon.core.progress import silent
from medrecon.core.projections import ProjectionScan
from medrecon.core.views import Detector, ViewGeometry
from medrecon.operators.xray_transform import XRayTransform
from medrecon.preprocess.bad_pixels import fill_bad_pixels, find_bad_pixels
from medrecon.preprocess.centre_of_rotation import find_axis
from medrecon.preprocess.flat_field import flat_field
from medrecon.preprocess.line_integrals import to_line_integrals
from medrecon.preprocess.logarithm import attenuation
from medrecon.preprocess.noise import add_noise
from medrecon.preprocess.rings import remove_rings

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
OUT = ROOT / "docs" / "pictures"
SIDE, GAP, CAPTION = 300, 10, 24
Float32 = NDArray[np.float32]
Tile = tuple[str, Float32, tuple[float, float]]


def run(name: str, views: ViewGeometry, grid: Grid, line_integrals: Float32, **settings: object) -> Float32:
    """Reconstruct by a method's name."""
    method = methods.get(name)
    y = torch.from_numpy(np.array(line_integrals))
    voxels: Float32 = method.run(XRayTransform(views, grid), y, method.settings.model_validate(settings), silent).numpy()
    return voxels


def plane_grid(pixels: int, spacing_mm: float, slices: int = 1) -> Grid:
    """Square slices about the axis."""
    first = -(pixels - 1) / 2 * spacing_mm
    return Grid.from_parts((slices, pixels, pixels), (spacing_mm,) * 3, (first, first, -(slices - 1) / 2 * spacing_mm))


def helsinki() -> list[list[Tile]]:
    """Real limited-angle data: a plastic disc with holes, from arcs of 90, 60 and 30 degrees."""
    rows: list[list[Tile]] = [[], []]
    for degrees in (90, 60, 30):
        scan = mr.read(DATA / "projections" / "htc2022" / f"tb_subsample_{degrees}.mat")
        if not isinstance(scan, ProjectionScan):
            raise TypeError(f"tb_subsample_{degrees}.mat holds no projections")
        grid = plane_grid(400, 0.2)
        by_fdk = run("fdk", scan.views, grid, scan.pixels)
        rounds = 60 * 90 // degrees  # the fewer views, the longer until edges along the unseen directions come forth
        by_tv = run("tv", scan.views, grid, scan.pixels, iterations=rounds, tolerance=0, stop=None)
        top = float(np.quantile(by_tv, 0.98))
        rows[0].append((f"{degrees} degrees, FDK", by_fdk[0], (0, top)))
        rows[1].append((f"{degrees} degrees, TV", by_tv[0], (0, top)))
    return rows


def limited() -> list[list[Tile]]:
    """Show how far 30 degrees carry: total variation alone, bounded by the plastic's attenuation, and with weak edges along rays.

    The bound is the median of what 90 degrees of the same disc show as plastic: a material, not a shape, was known before.
    """
    grid = plane_grid(150, 0.52)
    scans = {degrees: mr.read(DATA / "projections" / "htc2022" / f"tb_subsample_{degrees}.mat") for degrees in (90, 30)}

    def by_tv(degrees: int, rounds: int, **settings: object) -> Float32:
        scan = scans[degrees]
        if not isinstance(scan, ProjectionScan):
            raise TypeError(f"tb_subsample_{degrees}.mat holds no projections")
        plane: Float32 = run("tv", scan.views, grid, scan.pixels, iterations=rounds, tolerance=0, stop=None, **settings)[0]
        return plane

    wide = by_tv(90, 30)
    plastic = float(np.median(wide[wide > 0.5 * np.quantile(wide, 0.98)]))
    shown = [
        ("90 degrees, TV", wide),
        ("30 degrees, TV", by_tv(30, 100)),
        ("30 degrees, TV, bound", by_tv(30, 100, upper_per_mm=plastic)),
        ("30 degrees, TV, bound, along rays 0.15", by_tv(30, 150, upper_per_mm=plastic, along_rays=0.15)),
    ]
    return [[(words, x, (0, 1.1 * plastic)) for words, x in shown]]


def beamline() -> list[list[Tile]]:
    """Real parallel beams: Savu's test data with flat, dark, dead pixels and an axis to be found; TomoPy's tooth."""
    folder = DATA / "projections" / "savu_24737"
    counts = np.stack([tifffile.imread(folder / "tiffs" / f"raw_{k:05}.tiff") for k in range(91)])
    flat, dark = (tifffile.imread(folder / f"{kind}_00001.tiff") for kind in ("flat", "dark"))
    transmitted = flat_field(counts, flat, dark)
    p = attenuation(transmitted.pixels)[0]
    p = remove_rings(fill_bad_pixels(p, find_bad_pixels(p) | ~transmitted.valid), size=9)
    angles = np.radians(np.linspace(-88.2, 91.8, 91))
    views = with_axis(p, angles, 1.0)
    savu = run("fdk", views, plane_grid(160, 1.0, 135), p, window="hann")
    tooth_scan = mr.read(DATA / "projections" / "tomopy" / "tooth.h5", spacing_mm=(1, 0.01, 0.01))
    if not isinstance(tooth_scan, ProjectionScan):
        raise TypeError("tooth.h5 holds no projections")
    q = remove_rings(to_line_integrals(tooth_scan).pixels, size=15)
    tooth = run("fdk", with_axis(q, tooth_scan.views.angles_rad, 0.01), plane_grid(640, 0.01), q)
    body, cut = savu[:, 25:135, 25:135], tooth[0, 150:490, 200:540]
    return [[
        ("Savu 24737, one slice", body[60], window(body[60])),
        ("the same, upright plane", body[20:130, 55], (-0.002, float(np.quantile(body[:, 55], 0.98)))),
        ("tooth, one slice", cut, window(cut)),
    ]]  # fmt: skip


def with_axis(line_integrals: Float32, angles_rad: NDArray[np.float64], pitch_mm: float) -> ViewGeometry:
    """Find the axis and say where the detector stands from it."""
    _, rows, columns = line_integrals.shape
    offset = find_axis(line_integrals, angles_rad).offset_u_mm(columns, pitch_mm)
    return ViewGeometry.parallel(angles_rad, Detector((rows, columns), (pitch_mm, pitch_mm)), offset_u_mm=offset)


def head() -> list[list[Tile]]:
    """Project the middle of a CT head with noise and reconstruct it from few views, as `benchmarks/xray_quality.py` measures it.

    The rays of 40 detector rows stay within the 32 slices that are reconstructed.
    """
    sys.path.insert(0, str(ROOT))
    from benchmarks.xray_quality import head as head_values
    from tests.makers_rtk_cases import full_turn

    fine = np.ascontiguousarray(head_values(DATA, 256)[94:162])
    truth = fine[2:66].reshape(32, 2, 128, 2, 128, 2).mean(axis=(1, 3, 5))
    rows = []
    for count in (50, 25):
        views = ViewGeometry.cone(full_turn(count), 1000, 1500, Detector((40, 256), (2.0, 2.0)))
        exact = XRayTransform(views, plane_grid(256, 1.0, 68)).forward(torch.from_numpy(fine)).numpy()
        y, grid = add_noise(exact, 1e5, 10.0), plane_grid(128, 2.0, 32)
        shown = [(f"{count} views, {name}", run(name, views, grid, y)) for name in ("fdk", "pocs", "tv")]
        rows.append([(words, x[16], (0.016, 0.026)) for words, x in (*shown, ("truth", truth))])
    return rows


def window(image: Float32) -> tuple[float, float]:
    """Black and white at the outermost half per cent."""
    low, high = np.quantile(image, (0.005, 0.995))
    return float(low), float(high)


def draw(rows: list[list[Tile]]) -> Image.Image:
    """Lay tiles out in rows, each with its words below."""
    across, down = max(len(row) for row in rows), len(rows)
    sheet = Image.new("L", (across * (SIDE + GAP) + GAP, down * (SIDE + CAPTION) + GAP), 255)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for r, row in enumerate(rows):
        for c, (words, image, (low, high)) in enumerate(row):
            grey = np.clip((image - low) / (high - low) * 255, 0, 255).astype(np.uint8)
            tile = Image.fromarray(grey)
            scale = SIDE / max(tile.size)
            tile = tile.resize((round(tile.width * scale), round(tile.height * scale)), Image.Resampling.LANCZOS)
            left, top = GAP + c * (SIDE + GAP), GAP + r * (SIDE + CAPTION)
            sheet.paste(tile, (left + (SIDE - tile.width) // 2, top + (SIDE - tile.height) // 2))
            pen.text((left + 2, top + SIDE + 3), words, fill=40, font=font)
    return sheet


PICTURES: dict[str, Callable[[], list[list[Tile]]]] = {
    "helsinki": helsinki,
    "beamline": beamline,
    "head": head,
    "limited": limited,
}

if __name__ == "__main__":
    for wanted in sys.argv[1:] or PICTURES:
        draw(PICTURES[wanted]()).save(OUT / f"xray-{wanted}.png", optimize=True)
