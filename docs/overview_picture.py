"""Make the picture at the top of the README from the sample data: measured, reconstructed, surface.

python docs/overview_picture.py
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

import medrecon as mr
from medrecon.quality import pictures, shading
from medrecon.quality.pictures import Tile

ROOT = Path(__file__).resolve().parents[1]
HEIGHT, GAP, CAPTION = 360, 12, 30
INK, PAPER = (34, 34, 34), (255, 255, 255)
ROWS = (
    ("mr_brain_thick", "MR brain, 5 mm slices", "auto"),
    ("ct_head_tilted", "CT head, 5 mm slices, gantry tilted by 17 degrees", "bone"),
)


def row(folder: str, words: str, tissue: str) -> Image.Image:
    """Reconstruct one sample and lay its three pictures side by side."""
    settings = mr.load_config("fast", None, (f"surfaces=[{{tissue: {tissue}}}]",))
    scan = mr.read(ROOT / "sample_data" / folder / "dicom")
    if not isinstance(scan, mr.SliceScan):
        raise TypeError(f"{folder} should be slices")
    result = mr.reconstruct(scan, settings)
    volume, window = result.volume, pictures.window_of(scan)
    view = pictures.view_of(volume.grid.directions, "sagittal")
    index = pictures.positions(volume, view, window, 1)[0]
    scale = pictures.scale_for(volume.grid, 2 * HEIGHT)
    tiles = [
        pictures.measured(scan, volume.grid, view, index, window, scale),
        pictures.reconstructed(volume, view, index, window, scale),
        shading.draw(result.surfaces[0], ["oblique"], 2 * HEIGHT)[0],
    ]
    return beside(
        [framed(tile) for tile in tiles],
        (words, f"{max(volume.spacing_mm):g} mm isotropic", f"surface: {result.surfaces[0].name}"),
    )


def framed(tile: Tile) -> Image.Image:
    """Turn a tile into a picture of the common height."""
    image = Image.fromarray(tile.image)
    if image.mode == "RGBA":
        paper = Image.new("RGB", image.size, PAPER)
        paper.paste(image, mask=image.getchannel("A"))
        image = paper
    return image.convert("RGB").resize((round(image.width * HEIGHT / image.height), HEIGHT), Image.Resampling.LANCZOS)


def beside(images: list[Image.Image], captions: tuple[str, ...]) -> Image.Image:
    """Lay pictures in a row, each with its words below."""
    sheet = Image.new("RGB", (sum(i.width for i in images) + GAP * (len(images) - 1), HEIGHT + CAPTION), PAPER)
    draw, font, left = ImageDraw.Draw(sheet), ImageFont.load_default(16), 0
    for image, caption in zip(images, captions, strict=True):
        sheet.paste(image, (left, 0))
        draw.text((left + 2, HEIGHT + 6), caption, fill=INK, font=font)
        left += image.width + GAP
    return sheet


def main() -> None:
    """Write ``docs/pictures/overview.png``."""
    rows = [row(*one) for one in ROWS]
    sheet = Image.new("RGB", (max(r.width for r in rows), sum(r.height for r in rows) + GAP), PAPER)
    top = 0
    for one in rows:
        sheet.paste(one, (0, top))
        top += one.height + GAP
    target = ROOT / "docs" / "pictures" / "overview.png"
    target.parent.mkdir(exist_ok=True)
    sheet.quantize(128).save(target, optimize=True)


if __name__ == "__main__":
    main()
