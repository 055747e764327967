"""Work beside the window: what the model needs of threads, whoever provides them."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Protocol, TypeVar

T = TypeVar("T")
E = TypeVar("E")

#: Ends a work that is being followed at its next step.
Quit = Callable[[], None]


class Background(Protocol):
    """Runs functions elsewhere, and calls back where the window lives."""

    def call(self, work: Callable[[], T], done: Callable[[T], None], failed: Callable[[Exception], None]) -> None:
        """Run a function, then call `done` with what it returned or `failed` with what it raised."""

    def follow(
        self,
        work: Callable[[], Generator[E, None, T]],
        each: Callable[[E], None],
        done: Callable[[T], None],
        failed: Callable[[Exception], None],
        name: str,
    ) -> Quit:
        """Run a generator, call `each` with what it yields, then `done` or `failed`; return how to end it early."""


class AtOnce:
    """Does everything on the spot: for tests, and for programs without a window."""

    def call(self, work: Callable[[], T], done: Callable[[T], None], failed: Callable[[Exception], None]) -> None:
        """Run a function here and now."""
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 (handed on, as a thread would)
            failed(error)
        else:
            done(result)

    def follow(
        self,
        work: Callable[[], Generator[E, None, T]],
        each: Callable[[E], None],
        done: Callable[[T], None],
        failed: Callable[[Exception], None],
        name: str,  # noqa: ARG002 (part of the protocol)
    ) -> Quit:
        """Run a generator here and now."""
        generator = work()
        try:
            while True:
                each(next(generator))
        except StopIteration as end:
            done(end.value)
        except Exception as error:  # noqa: BLE001 (handed on, as a thread would)
            failed(error)
        return generator.close
