"""The smallest probable correction after which a volume, sliced again, gives the measured slices.

x + C A* (A C A* + eps s)^-1 (y - A x), with C an exponential covariance along the normal and s the energy of one row
of A under C, so that eps means the same at every thickness and voxel size. Where A is one Kronecker product the
solution is direct, through the factors; else conjugate gradients find it: from plane to plane where all slices lie along
the same axes of the grid, with a few images at a time, and else in the space of the images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrecon.core.grid import Float64
from medrecon.core.progress import Tick, silent
from medrecon.operators._separable import SeparableSlices, SliceGroup, Taps, add_along_depth
from medrecon.operators._slice_geometry import SliceGeometry, depth_weights
from medrecon.operators.slice_sampler import SliceSampler

_LENGTH = 0.5  # of the covariance, in slice thicknesses
_APART = 1e-3  # voxels: slices whose places differ by less count as straight behind each other
_IMAGES_AT_ONCE, _ROWS_AT_ONCE = 2, 32
_TINY = 1e-6  # singular values below this share of the largest carry nothing in float32


class ConsistentSet:
    """All volumes that, sliced again, give the measured slices up to the noise that `eps` allows.

    Parameters
    ----------
    A : SliceSampler
    y : (n, rows, columns) Tensor
        The images; pixels that were not measured may hold anything.
    eps : float
        Variance of the noise over that of the detail which the spline missed.
    tolerance, iterations : float, int
        Where conjugate gradients stop, where they are needed.
    """

    def __init__(self, A: SliceSampler, y: Tensor, eps: float, tolerance: float, iterations: int) -> None:
        used = np.flatnonzero(A.seen.any(axis=(1, 2)))
        if 0 < len(used) < len(y):
            A, y = A.take(used), y[torch.from_numpy(used).to(y.device)]
        self._A, self._y = A, y
        self._tolerance, self._iterations = tolerance, iterations
        self.is_empty = len(used) == 0
        if self.is_empty:
            return
        self._unseen = None if A.seen.all() else torch.from_numpy(~A.seen).to(y.device)
        prior = _Prior.of(A)
        self._absolute = eps * prior.row_energy
        self._direct = _DirectSolution.of(A, prior, self._absolute) if _is_direct(A) else None
        planes = _Planes.of(A, y, prior, self._unseen)
        self._prior, self._planes = prior, None if A.factors is None else planes
        self._step = (
            _step_by_rays(A, self._residual, prior, self._absolute)
            if planes is None
            else _step_by_planes(planes, self._absolute)  # whichever path A itself takes
        )

    def approach(self, x: Tensor, tick: Tick = silent) -> None:
        """Give `x` the smallest probable correction, in place."""
        if self.is_empty:
            return
        settings = self._absolute, self._tolerance, self._iterations
        if self._direct is not None and self._planes is not None and not self._direct.pixels_are_voxels:
            self._direct.correct_by_images(x, self._planes.missed_images(x))
        elif self._direct is not None:
            self._direct.correct(x, self._residual(x))
        elif self._planes is not None:
            self._planes.spread(x, _conjugate_gradients_in_planes(self._planes, x, *settings, tick))
        else:
            A, prior = self._A, self._prior
            z = _conjugate_gradients(lambda y: A.forward(prior.smooth(A.adjoint(y))), self._residual(x), *settings, tick)
            x += prior.smooth(A.adjoint(z))

    def step_towards(self, x: Tensor) -> None:
        """Give `x` as much of a nearly right correction as helps most, in place: one step of steepest descent.

        It is right where pixels are voxels, whichever path A takes; elsewhere it neglects that neighbouring pixels share
        voxels.
        """
        if self.is_empty:
            return
        if self._direct is not None and self._direct.pixels_are_voxels:
            self._direct.correct(x, self._residual(x))
        else:
            self._step(x)

    def _residual(self, x: Tensor) -> Tensor:
        """Return y - A x, 0 where nothing was measured."""
        residual = self._A.forward(x).neg_().add_(self._y)
        return residual if self._unseen is None else residual.masked_fill_(self._unseen, 0)


def correction_along_depth(A: SliceSampler, weights: Float64, eps: float) -> Float64:
    """Return the smallest probable correction as a matrix (planes, slices), for slices with `weights` (slices, planes)."""
    prior = _Prior.of(A)
    smoothed, overlap = prior.coupling(weights)
    correction: Float64 = smoothed.T @ np.linalg.inv(overlap + eps * prior.row_energy * np.eye(len(weights)))
    return correction


@dataclass(frozen=True)
class _Prior:
    """C: correlation rho^|i - j| of planes i and j along one grid axis; without an axis, the identity.

    Along `soft_axes` voxels are correlated with their neighbours. There slices stand at different fractions of a voxel,
    as those of a tilted gantry do; A then sees the finest detail hardly at all, and undoing that would only raise noise.

    Slices whose normals share no grid axis have no common depth, so that they get the identity.
    """

    axis: int | None
    rho: float
    row_energy: float
    soft_axes: tuple[int, ...]

    @classmethod
    def of(cls, A: SliceSampler) -> _Prior:
        geometry = A.geometry
        shared = bool((geometry.axis == geometry.axis[0]).all())
        step = float(geometry.plane_step_mm.mean())
        rho = float(np.exp(-step / (_LENGTH * A.poses.thickness_mm.mean()))) if shared else 0.0
        return cls(
            int(geometry.axis[0]) if shared else None, rho, _row_energy(geometry, rho), _soft_axes(geometry) if shared else ()
        )

    def coupling(self, depth: Float64) -> tuple[Float64, Float64]:
        """Return w C (slices, planes) and w C w* (slices, slices), w being the weights of slices over the planes."""
        smoothed: Float64 = depth @ _correlation(depth.shape[1], self.rho)
        return smoothed, smoothed @ depth.T

    def smooth(self, x: Tensor) -> Tensor:
        """Apply C to a volume, in place: a recursive filter there and back, started stationary so that ends count alike."""
        if self.axis is None:
            return x
        for axis in self.soft_axes:
            x = _soften(x, axis)
        edge = (1 - self.rho**2) ** 0.5
        planes = x.unbind(self.axis)
        for here, behind in zip(planes[-2::-1], planes[:0:-1], strict=True):
            here.add_(behind, alpha=self.rho)
        planes[0].div_(edge * edge)
        for here, before in zip(planes[1:], planes[:-1], strict=True):
            here.add_(before, alpha=self.rho)
        return x.mul_(edge * edge)


def _soft_axes(geometry: SliceGeometry) -> tuple[int, ...]:
    """Return the grid axes in the plane of the slices along which slices stand at different fractions of a voxel."""
    off = geometry.start - geometry.start[0]
    apart = np.abs(off - np.round(off)).max(axis=0) > _APART
    return tuple(axis for axis in range(3) if apart[axis] and axis != geometry.axis[0])


def _soften(x: Tensor, dim: int) -> Tensor:
    """Return `x` convolved with (1, 4, 6, 4, 1) / 16 along one axis, mirrored at the ends; symmetric and not negative."""
    last = x.shape[dim] - 1
    for _ in range(2):
        soft = x * 0.5
        for here, there in ((1, 0), (0, 1)):
            soft.narrow(dim, here, last).add_(x.narrow(dim, there, last), alpha=0.25)
        for end in (0, last):
            soft.narrow(dim, end, 1).add_(x.narrow(dim, end, 1), alpha=0.25)
        x = soft
    return x


def _row_energy(geometry: SliceGeometry, rho: float) -> float:
    """Mean of w C w* over the slices, w being the weights that a slice has on an endless grid."""
    reach = int(np.ceil(geometry.reach_planes.max())) + 1
    faces = np.arange(-reach, reach + 2) - 0.5
    depth = faces[None, :] * (geometry.plane_step_mm / geometry.thickness_mm)[:, None]
    weights = np.diff(geometry.profile.cumulative(depth), axis=1)
    return float(np.einsum("ki,ij,kj->k", weights, _correlation(weights.shape[1], rho), weights).mean())


def _correlation(size: int, rho: float) -> Float64:
    steps = np.abs(np.arange(size)[:, None] - np.arange(size))
    correlation: Float64 = np.power(rho, steps, dtype=np.float64)  # 0 to the power of 0 is 1
    return correlation


@dataclass(frozen=True, eq=False)
class _Planes:
    """Slices that all lie along the same grid axes, seen from their planes: images are made a few at a time.

    With fine pixels all images together are as large as the volume, and the planes far smaller. A C A* goes from plane to
    plane too, weighted by how much two slices overlap, so that the volume between them is never made.

    Parameters
    ----------
    group : SliceGroup
    y : (n, rows, columns) Tensor
    unseen : (n, rows, columns) bool Tensor, or None where A uses all pixels
    smoothed : (slices, planes), w C
    overlap : (slices, slices), w C w*
    """

    group: SliceGroup
    y: Tensor
    unseen: Tensor | None
    prior: _Prior
    smoothed: Float64
    overlap: Float64

    @classmethod
    def of(cls, A: SliceSampler, y: Tensor, prior: _Prior, unseen: Tensor | None) -> _Planes | None:
        """Return the planes of the slices; None where these are oblique to the grid, or lie along several of its axes."""
        factors = A.factors or SeparableSlices.build(A.geometry)
        if factors is None or len(factors.groups) != 1:
            return None
        return cls(factors.groups[0], y, unseen, prior, *prior.coupling(factors.groups[0].depth))

    def missed_images(self, x: Tensor) -> Iterator[Tensor]:
        """Yield y - A x, image by image; 0 where nothing was measured."""
        planes = self._sampled(x)
        for block in self._blocks:
            yield from self._missed(block, planes)

    def missed(self, x: Tensor) -> Tensor:
        """Return y - A x spread back to the planes."""
        planes = self._sampled(x)
        for block in self._blocks:
            self.group.spread(block, self._missed(block, planes), planes)
        return planes

    def there_and_back(self, planes: Tensor) -> Tensor:
        """Make images of planes and spread them back, in place."""
        for block in self._blocks:
            self.group.spread(block, self._masked(block, self.group.images_of(block, planes)), planes)
        return planes

    def energy_of_images(self, matrix: Float64, planes: Tensor) -> float:
        """Return the squared norm of the images of ``matrix @ planes``, which are never there all at once."""
        mixed = ((block, _along_depth(matrix[block.start : block.stop], planes)) for block in self._blocks)
        return sum(_energy(self._masked(block, self.group.images_of(block, some))) for block, some in mixed)

    def softened(self, planes: Tensor, into: Tensor) -> Tensor:
        """Write to `into` what C does within the planes."""
        for k, plane in enumerate(planes):
            for axis in self.prior.soft_axes:
                plane = _soften(plane, self.group.axes.index(axis) - 1)
            into[k] = plane
        return into

    def coupled(self, planes: Tensor, into: Tensor) -> Tensor:
        """Write to `into` what C makes from plane to plane: along the depth, and within them."""
        self.softened(planes, into)
        for rows in _strips(into):
            rows.copy_(_along_depth(self.overlap, rows))
        return into

    def spread(self, x: Tensor, planes: Tensor) -> None:
        """Add to the volume what C makes of planes, which are overwritten."""
        add_along_depth(x, self.group.axes, self.smoothed.T, self.softened(planes, into=planes))

    @property
    def _blocks(self) -> Iterator[range]:
        count = len(self.y)
        return (range(first, min(first + _IMAGES_AT_ONCE, count)) for first in range(0, count, _IMAGES_AT_ONCE))

    def _sampled(self, x: Tensor) -> Tensor:
        return _along_depth(self.group.depth, x.permute(self.group.axes))

    def _missed(self, block: range, planes: Tensor) -> Tensor:
        images = self.group.images_of(block, planes).neg_().add_(self.y[block.start : block.stop])
        return self._masked(block, images)

    def _masked(self, block: range, images: Tensor) -> Tensor:
        return images if self.unseen is None else images.masked_fill_(self.unseen[block.start : block.stop], 0)


_Step = Callable[[Tensor], None]


def _step_by_planes(problem: _Planes, eps: float) -> _Step:
    """Return x -> x += a d, d being the solution along the depth alone in every plane of the grid."""
    inverse = np.linalg.inv(problem.overlap + eps * np.eye(len(problem.overlap)))
    reach = problem.overlap @ inverse

    def step(x: Tensor) -> None:
        planes = problem.missed(x)
        soft = problem.softened(planes, torch.empty_like(planes)) if problem.prior.soft_axes else planes
        gain = float((reach * _products(planes, soft)).sum())
        energy = problem.energy_of_images(reach, soft)
        if energy > 0:
            add_along_depth(x, problem.group.axes, gain / energy * (problem.smoothed.T @ inverse), soft)

    return step


def _step_by_rays(A: SliceSampler, missed: Callable[[Tensor], Tensor], prior: _Prior, eps: float) -> _Step:
    """Return x -> x += a d, d solving the problem along the depth alone, pixel by pixel of each stack."""
    solutions = _straight_solutions(A, prior, eps)

    def step(x: Tensor) -> None:
        residual = missed(x)
        z = torch.empty_like(residual)
        for members, inverse in solutions:
            z[members] = _along_depth(inverse, residual[members])
        direction = prior.smooth(A.adjoint(z))
        change = A.forward(direction)
        energy = _energy(change)
        if energy > 0:
            x.add_(direction, alpha=_dot(change, residual) / energy)

    return step


def _straight_solutions(A: SliceSampler, prior: _Prior, eps: float) -> list[tuple[Tensor, Float64]]:
    """Return, for slices of one stack and direction, which they are, and (w C w* + eps)^-1 with their weights w at the centre."""
    geometry = A.geometry
    rows, columns = geometry.image_shape
    centre = geometry.start + (rows - 1) / 2 * geometry.down + (columns - 1) / 2 * geometry.across
    straight = dataclasses.replace(geometry, start=centre)
    found = []
    for stack, axis in sorted(set(zip(A.stack.tolist(), geometry.axis.tolist(), strict=True))):
        members = np.flatnonzero((A.stack == stack) & (geometry.axis == axis))
        weights = np.stack([depth_weights(straight, int(k)) for k in members])
        weights /= np.maximum(weights.sum(axis=1, keepdims=True), _TINY)
        _, overlap = prior.coupling(weights)
        np.fill_diagonal(overlap, np.where(overlap.diagonal() > 0, overlap.diagonal(), prior.row_energy))
        inverse: Float64 = np.linalg.inv(overlap + eps * np.eye(len(members))).astype(np.float64)
        found.append((torch.from_numpy(members), inverse))
    return found


def _conjugate_gradients(
    normal: Callable[[Tensor], Tensor], b: Tensor, eps: float, tolerance: float, iterations: int, tick: Tick
) -> Tensor:
    """Solve (M + eps) z = b with M = A C A*, as far as A* can tell; `b` is overwritten.

    Lengths are measured by <r, M r>: parts of b that no volume can give, such as detail finer than the voxels, are
    then invisible. With the plain norm they would grow to 1 / eps in z before they cancel.
    """
    z, r, p = torch.zeros_like(b), b, b.clone()
    Mr = normal(r)
    Mp = Mr.clone()
    energy = _dot(r, Mr)
    target = energy * tolerance**2
    for step in range(iterations):
        if energy <= target:
            break
        q, Mq = Mp.add(p, alpha=eps), normal(Mp).add_(Mp, alpha=eps)
        length = energy / _dot(Mp, q)
        z.add_(p, alpha=length)
        r.sub_(q, alpha=length)
        Mr.sub_(Mq, alpha=length)
        energy, before = _dot(r, Mr), energy
        p.mul_(energy / before).add_(r)
        Mp.mul_(energy / before).add_(Mr)
        tick((step + 1) / iterations)
    return z


def _conjugate_gradients_in_planes(
    problem: _Planes, x: Tensor, eps: float, tolerance: float, iterations: int, tick: Tick
) -> Tensor:
    """Solve (M + eps) z = y - A x as `_conjugate_gradients` does, and return z spread back to the planes.

    With G from planes to images and S from plane to plane, M is G S G*. Every vector v of the images is known by G* v
    alone: G* M v is G* G S (G* v), and <v, M v> is <G* v, S G* v>.
    """
    found = problem.missed(x)
    block = found.new_zeros((5, *found.shape))  # one, which goes back to the system as a whole
    r, s, z, p, t = (block[k] for k in range(len(block)))
    p.copy_(r.copy_(found))
    del found
    energy = _dot(r, t.copy_(problem.coupled(r, into=s)))  # t is S p
    target = energy * tolerance**2
    for step in range(iterations):
        if energy <= target:
            break
        q = problem.there_and_back(s.copy_(t)).add_(p, alpha=eps)
        length = energy / _dot(t, q)
        z.add_(p, alpha=length)
        r.sub_(q, alpha=length)
        problem.coupled(r, into=s)
        energy, before = _dot(r, s), energy
        p.mul_(energy / before).add_(r)
        t.mul_(energy / before).add_(s)
        tick((step + 1) / iterations)
    return z


def _strips(planes: Tensor) -> Iterator[Tensor]:
    """Yield views of a few rows of all planes at a time."""
    for first in range(0, planes.shape[1], _ROWS_AT_ONCE):
        yield planes[:, first : first + _ROWS_AT_ONCE]


def _products(a: Tensor, b: Tensor) -> Float64:
    """Return the inner products of every plane of `a` with every one of `b`."""
    total = np.zeros((len(a), len(b)))
    for left, right in zip(_strips(a), _strips(b), strict=True):
        total += (left.flatten(1) @ right.flatten(1).T).cpu().numpy()
    return total


def _energy(a: Tensor) -> float:
    return _dot(a, a)


def _dot(a: Tensor, b: Tensor) -> float:
    """Return the inner product, summed up image by image so that no further copy of all is made."""
    return sum(float((one * other).sum(dtype=torch.float64)) for one, other in zip(a, b, strict=True))


def _is_direct(A: SliceSampler) -> bool:
    """Whether A is one Kronecker product.

    A mask is allowed where it is the same in all slices and pixels coincide with voxels: every column of pixels is
    then a problem of its own, with all its slices or with none.
    """
    if A.factors is None or len(A.factors.groups) != 1 or len(A.factors.groups[0].runs) != 1:
        return False
    run = A.factors.groups[0].runs[0]
    aligned = run.rows.is_identity and run.columns.is_identity
    return bool(A.seen.all() or (aligned and (A.seen == A.seen[0]).all()))


@dataclass(frozen=True, eq=False)
class _DirectSolution:
    """C A* (A C A* + eps)^-1 through the eigenvalues of the factors of A; one small matrix where pixels are voxels."""

    axes: tuple[int, int, int]
    analyse: Float64
    values: Float64
    eps: float
    spread: Float64
    down: _Spectrum
    across: _Spectrum

    @classmethod
    def of(cls, A: SliceSampler, prior: _Prior, eps: float) -> _DirectSolution:
        if A.factors is None:
            raise ValueError("A has no factors")
        group = A.factors.groups[0]
        smoothed, overlap = prior.coupling(group.depth)
        values, vectors = np.linalg.eigh(overlap)
        down, across = _Spectrum.of(group.runs[0].rows), _Spectrum.of(group.runs[0].columns)
        return cls(group.axes, vectors.T, values, eps, smoothed.T @ vectors, down, across)

    @property
    def pixels_are_voxels(self) -> bool:
        """Whether nothing is interpolated in the plane."""
        return self.down.values.size * self.across.values.size == 1

    def correct(self, x: Tensor, residual: Tensor) -> None:
        """Add the solution for a residual to `x`."""
        if self.pixels_are_voxels:
            gains = np.concatenate([self._gain(k).reshape(-1) for k in range(len(self.values))])
            add_along_depth(x, self.axes, (self.spread * gains) @ self.analyse, residual)
        else:
            self.correct_by_images(x, residual)

    def correct_by_images(self, x: Tensor, residual: Iterable[Tensor]) -> None:
        """Add the solution for a residual that is made image by image to `x`, so that no copy of all images is made."""
        across, down = self.across, self.down
        analysed = _stacked((across.analyse(down.analyse(image, -2), -1) for image in residual), len(self.values))
        inner = _along_depth(self.analyse, analysed)
        del analysed
        for k, image in enumerate(inner):
            image *= torch.from_numpy(self._gain(k)).to(x)
        planes = _stacked((across.synthesise(down.synthesise(image, -2), -1) for image in inner), len(inner))
        add_along_depth(x, self.axes, self.spread, planes)

    def _gain(self, k: int) -> NDArray[np.float32]:
        """Return what is left of the coefficients of one eigenvalue, (rows, columns)."""
        in_plane = self.down.values[:, None] * self.across.values[None, :]
        gain: NDArray[np.float32] = (in_plane / (self.values[k] * in_plane**2 + self.eps)).astype(np.float32)
        return gain


@dataclass(frozen=True, eq=False)
class _Spectrum:
    """Singular vectors and values of an interpolation along one axis; none where it is the identity."""

    left: Float64 | None
    values: Float64
    right: Float64 | None

    @classmethod
    def of(cls, taps: Taps) -> _Spectrum:
        if taps.is_identity:
            return cls(None, np.ones(1), None)
        left, values, right = np.linalg.svd(taps.matrix(torch.zeros((), dtype=torch.float64)).numpy(), full_matrices=False)
        kept = values > _TINY * values[0]
        return cls(left[:, kept], values[kept], right[kept])

    def analyse(self, images: Tensor, dim: int) -> Tensor:
        return images if self.left is None else _along(self.left.T, images, dim)

    def synthesise(self, images: Tensor, dim: int) -> Tensor:
        return images if self.right is None else _along(self.right.T, images, dim)


def _stacked(images: Iterable[Tensor], count: int) -> Tensor:
    """Return so many images in one tensor, without holding all of them twice."""
    stack = torch.empty(0)
    for k, image in enumerate(images):
        if k == 0:
            stack = image.new_empty((count, *image.shape))
        stack[k] = image
    return stack


def _along(matrix: Float64, images: Tensor, dim: int) -> Tensor:
    factor = torch.from_numpy(np.ascontiguousarray(matrix)).to(images)
    return factor @ images if dim == -2 else images @ factor.T


def _along_depth(matrix: Float64, images: Tensor) -> Tensor:
    factor = torch.from_numpy(np.ascontiguousarray(matrix)).to(images)
    return (factor @ images.flatten(1)).reshape(-1, *images.shape[1:])
