"""Settings of a surface: which tissue, how smooth, how many triangles. Loads nothing heavy."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from medrecon.core.settings import Config

TissueName = Literal["auto", "skin", "bone", "lung", "soft-tissue", "muscle", "fat", "foreground"]


class SurfaceConfig(Config):
    """How a triangle surface is made from a volume."""

    tissue: Annotated[
        TissueName,
        Field(description="What the surface encloses. 'auto' is skin for Hounsfield units and the foreground (Otsu) for others."),
    ] = "auto"
    level: Annotated[
        float | None,
        Field(allow_inf_nan=False, description="Enclose every value from this level up, instead of a tissue; in voxel units."),
    ] = None
    largest_component: Annotated[
        bool,
        Field(description="Keep the piece that encloses most (for lungs, both). Specks, table and inner cavities go."),
    ] = True
    closed: Annotated[
        bool,
        Field(description="Close the surface where the scan ends, half a voxel beyond the last voxel centre."),
    ] = True
    smoothing_iterations: Annotated[
        int,
        Field(ge=0, le=200, description="Steps of volume-keeping smoothing (windowed sinc); 0 leaves the surface as extracted."),
    ] = 20
    smoothing_pass_band: Annotated[
        float,
        Field(
            gt=0,
            le=2,
            description="What the smoothing lets through: 2 keeps everything. With 20 iterations 0.1 takes 1.5 % of its volume "
            "from a rod three voxels thick, and 0.4 % from one of four; 0.01 evens out longer waves, and takes 15 % and 4 %.",
        ),
    ] = 0.1
    target_triangles: Annotated[
        int | None,
        Field(ge=100, description="Merge triangles until about this many are left; none keeps them all."),
    ] = 200_000
