"""What every operator is: two spaces, a forward map and its exact adjoint.

The forward model ``y = A x`` of slices and of projections is a `LinearOperator`. Methods use nothing else of it
unless they say so. Calling an operator, ``A(x)``, is differentiable, with the hand-written adjoint as its gradient.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


class LinearOperator(ABC):
    """A linear map between two spaces of tensors.

    Subclasses give `domain`, `range`, `forward` and `adjoint`. Both maps take any floating dtype and device and return
    the same; the adjoint is exact, ``<A x, y> = <x, A* y>`` up to rounding.
    """

    @property
    @abstractmethod
    def domain(self) -> tuple[int, ...]:
        """Shape of ``x``."""

    @property
    @abstractmethod
    def range(self) -> tuple[int, ...]:
        """Shape of ``y``."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Return ``A x``; not recorded by autograd, see `__call__`."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """Return ``A* y``; not recorded by autograd, see ``A.H(y)``."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return ``A x`` with the adjoint as its gradient, to any order."""
        y: Tensor = _Apply.apply(x, self)  # type: ignore[no-untyped-call]  # torch does not type apply
        return y

    @property
    def H(self) -> LinearOperator:
        """The adjoint as an operator of its own."""
        return _Adjoint(self)

    def __matmul__(self, other: LinearOperator) -> LinearOperator:
        """Return the composition: ``(A @ B)(x) = A(B(x))``."""
        return _Product(self, other)


@dataclass(frozen=True, eq=False)
class _Adjoint(LinearOperator):
    of: LinearOperator

    @property
    def domain(self) -> tuple[int, ...]:
        return self.of.range

    @property
    def range(self) -> tuple[int, ...]:
        return self.of.domain

    @property
    def H(self) -> LinearOperator:
        return self.of

    def forward(self, x: Tensor) -> Tensor:
        return self.of.adjoint(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.of.forward(y)


@dataclass(frozen=True, eq=False)
class _Product(LinearOperator):
    outer: LinearOperator
    inner: LinearOperator

    def __post_init__(self) -> None:
        if self.outer.domain != self.inner.range:
            raise ValueError(f"operators do not chain: {self.inner.range} into {self.outer.domain}")

    @property
    def domain(self) -> tuple[int, ...]:
        return self.inner.domain

    @property
    def range(self) -> tuple[int, ...]:
        return self.outer.range

    def forward(self, x: Tensor) -> Tensor:
        return self.outer.forward(self.inner.forward(x))

    def adjoint(self, y: Tensor) -> Tensor:
        return self.inner.adjoint(self.outer.adjoint(y))


class _Apply(torch.autograd.Function):
    """Forward is the operator, backward its adjoint applied through `_Apply` again, so that gradients nest."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, operator: LinearOperator) -> Tensor:  # noqa: ANN401 (torch's context)
        ctx.operator = operator
        return operator.forward(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401 (torch's context)
        return ctx.operator.H(gradients[0]), None


def squared_norm(A: LinearOperator, iterations: int = 20, seed: int = 0) -> float:
    """Estimate the largest eigenvalue of ``A* A`` by power iteration from a seeded start; it is approached from below."""
    x = torch.randn(A.domain, generator=torch.Generator().manual_seed(seed))
    value = 0.0
    for _ in range(iterations):
        x = x / x.norm()
        x = A.adjoint(A.forward(x))
        value = float(x.norm())
    return value
