"""The panel's states as tables: every state with every event, every step with every fact, every press of the run button."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from medrecon_napari.model.runs import CHANGES, RunEvent, RunState, after
from medrecon_napari.model.steps import Facts, Step, closed_because

from medrecon.core.findings import Verdict

W, R, C = RunState.WAITING, RunState.RUNNING, RunState.CANCELLING
FIN, FAIL, CAN = RunState.FINISHED, RunState.FAILED, RunState.CANCELLED

#: Rows are states; columns are start, cancel, done, broke.
TABLE = {
    W: (R, CAN, W, FAIL),
    R: (R, C, FIN, FAIL),
    C: (C, C, FIN, CAN),
    FIN: (FIN, FIN, FIN, FIN),
    FAIL: (FAIL, FAIL, FAIL, FAIL),
    CAN: (CAN, CAN, CAN, CAN),
}
EVENTS = (RunEvent.START, RunEvent.CANCEL, RunEvent.DONE, RunEvent.BROKE)


@pytest.mark.parametrize(("state", "column"), list(itertools.product(TABLE, range(len(EVENTS)))))
def test_every_event_in_every_state_leads_where_the_table_says(state: RunState, column: int) -> None:
    assert after(state, EVENTS[column]) is TABLE[state][column]


def test_the_table_of_this_test_holds_every_state_and_every_event() -> None:
    assert set(TABLE) == set(RunState)
    assert set(EVENTS) == set(RunEvent)
    assert len(CHANGES) == sum(TABLE[s][k] is not s for s in TABLE for k in range(len(EVENTS)))


def test_a_job_that_is_over_stays_over() -> None:
    assert {state for state in RunState if state.is_over} == {FIN, FAIL, CAN}


READY = Facts(series=1, verdict=Verdict.OK)
CLOSED: list[tuple[Step, Facts, str]] = [
    (Step.LOAD, Facts(), ""),
    (Step.RECONSTRUCT, Facts(), "folder"),
    (Step.RECONSTRUCT, Facts(is_looking=True), "Looking"),
    (Step.RECONSTRUCT, Facts(series=0), "No series"),
    (Step.RECONSTRUCT, Facts(series=3), "Choose a series"),
    (Step.RECONSTRUCT, Facts(series=1, verdict=Verdict.REFUSED), "refused"),
    (Step.RECONSTRUCT, replace(READY, has_method=False), "No method"),
    (Step.RECONSTRUCT, READY, ""),
    (Step.RECONSTRUCT, replace(READY, verdict=Verdict.WARN), ""),
    (Step.SURFACE, READY, "Reconstruct first"),
    (Step.SURFACE, replace(READY, results=1), ""),
    (Step.EXPORT, READY, "Reconstruct first"),
    (Step.EXPORT, replace(READY, results=1), ""),
    (Step.EXPORT, Facts(results=1), ""),
]


@pytest.mark.parametrize(("step", "facts", "words"), CLOSED)
def test_a_closed_step_says_why_and_an_open_one_says_nothing(step: Step, facts: Facts, words: str) -> None:
    said = closed_because(step, facts)
    assert words in said
    assert bool(said) == bool(words)
    assert not said or said.endswith((".", "…"))


class Held:
    """Work that is held back until the test lets it go on: threads without their accidents."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []
        self.ends: dict[str, tuple[Callable[[Any], None], Callable[[Exception], None]]] = {}

    def call(self, work: Callable[[], Any], done: Callable[[Any], None], failed: Callable[[Exception], None]) -> None:
        def run() -> None:
            try:
                result = work()
            except Exception as error:  # noqa: BLE001 (handed on, as a thread would)
                failed(error)
            else:
                done(result)

        self.calls.append(run)

    def follow(
        self,
        work: Callable[[], Generator[Any, None, Any]],  # noqa: ARG002 (never begun)
        each: Callable[[Any], None],  # noqa: ARG002
        done: Callable[[Any], None],
        failed: Callable[[Exception], None],
        name: str,
    ) -> Callable[[], None]:
        self.ends[name] = (done, failed)
        return lambda: None

    def let_go(self) -> None:
        while self.calls:
            self.calls.pop(0)()


@pytest.fixture
def bench(tmp_path: Path) -> Generator[Any, None, None]:
    from medrecon_napari.model.session import Session
    from medrecon_napari.model.workbench import Workbench

    from tests.makers_dicom import make_series

    make_series(tmp_path / "study", shape=(8, 24, 20))
    held = Held()
    made = Workbench(held, Session(tmp_path), {}, clock=lambda: float(clock[0]))
    clock = [0.0]
    made.previews.open = lambda *_: None  # type: ignore[method-assign]  # no child process here
    made.look_at(tmp_path / "study")
    held.let_go()
    made.held, made.time = held, clock  # type: ignore[attr-defined]  # handed to the test
    yield made
    made.close()


def test_run_becomes_cancel_becomes_cancelling_becomes_run_again(bench: Any) -> None:
    from medrecon_napari.model.child import Ended

    assert (bench.run_button().text, bench.run_button().does) == ("Run", "run")
    bench.press_run()
    assert bench.run_button().text == "Cancel"
    bench.time[0] += 10
    bench.press_run()
    assert (bench.run_button().text, bench.run_button().enabled) == ("Cancelling…", False)
    (done, _), *_ = bench.held.ends.values()
    done(Ended(-15, {}, None))
    assert bench.jobs.get(1).state is CAN
    assert bench.run_button().text == "Run"


def test_the_second_half_of_a_double_click_on_run_is_ignored(bench: Any) -> None:
    bench.press_run()
    bench.time[0] += 0.3
    bench.press_run()
    assert [job.state for job in bench.jobs] == [R]


def test_the_double_click_check_fails_on_a_bench_that_takes_every_press(bench: Any) -> None:
    bench.press_run()
    bench.time[0] += 0.8
    bench.press_run()
    assert [job.state for job in bench.jobs] == [C]


def test_a_second_run_waits_for_the_first_and_starts_after_it(bench: Any) -> None:
    from medrecon_napari.model.child import Ended

    first, second = bench.run(), bench.run()
    assert (bench.jobs.get(first.number).state, bench.jobs.get(second.number).state) == (R, W)
    (done, _) = bench.held.ends[first.title]
    done(Ended(4, {}, None))
    assert (bench.jobs.get(first.number).state, bench.jobs.get(second.number).state) == (FAIL, R)


def test_a_waiting_run_can_be_cancelled_alone(bench: Any) -> None:
    first, second = bench.run(), bench.run()
    bench.jobs.cancel(second.number)
    assert (bench.jobs.get(first.number).state, bench.jobs.get(second.number).state) == (R, CAN)


def test_a_folder_that_vanished_is_one_clear_message_and_no_job(bench: Any, tmp_path: Path) -> None:
    said: list[Any] = []
    bench.said.connect(said.append)
    (tmp_path / "study").rename(tmp_path / "elsewhere")
    assert bench.run() is None
    assert [message.code for message in said] == ["INP-MISSING"]
    assert not list(bench.jobs)
    assert bench.info is not None, "the chosen series is not lost"


def test_a_session_folder_that_vanished_is_one_clear_message(bench: Any) -> None:
    said: list[Any] = []
    bench.said.connect(said.append)
    bench.session.folder = Path("/proc/no such place")
    assert bench.run() is None
    assert [message.code for message in said] == ["OUT-WRITE"]


def test_what_was_asked_before_a_newer_choice_is_thrown_away(bench: Any, tmp_path: Path) -> None:
    from tests.makers_dicom import make_series

    make_series(tmp_path / "first", shape=(6, 16, 16), seed=1)
    make_series(tmp_path / "second", shape=(9, 16, 16), seed=2)
    bench.look_at(tmp_path / "first")
    late = bench.held.calls.pop()
    bench.look_at(tmp_path / "second")
    bench.held.let_go()
    late()
    assert bench.info.shape[0] == 9


def test_loading_settings_again_brings_back_what_was_run(bench: Any) -> None:
    bench.use_config(bench.config.model_copy(update={"seed": 7}))
    job = bench.run()
    bench.use_preset("best")
    assert bench.config.seed == 0
    bench.load_settings_of(job)
    assert (bench.preset, bench.config.seed) == ("fast", 7)


def test_what_is_under_way_is_said_until_the_images_are_there(bench: Any, tmp_path: Path) -> None:
    assert bench.under_way == ""
    bench.look_at(tmp_path / "study")
    assert bench.under_way == "Looking for series…"
    bench.held.calls.pop(0)()
    assert bench.under_way == "Reading 8 slices…"
    bench.held.let_go()
    assert (bench.under_way, bench.scan is None) == ("", False)


def test_nothing_is_under_way_where_the_images_could_not_be_read(bench: Any, tmp_path: Path) -> None:
    bench.look_at(tmp_path / "study")
    bench.held.calls.pop(0)()
    (tmp_path / "study").rename(tmp_path / "elsewhere")
    bench.held.let_go()
    assert (bench.under_way, bench.scan) == ("", None)


class _Silent:
    """A child that nobody hears any more; it only notes that it was told to end."""

    pid = 1

    def __init__(self, *_: Any, **__: Any) -> None:
        self.was_stopped = False

    def send(self, _: str) -> bool:
        return True

    def stop(self) -> None:
        self.was_stopped = True


def test_a_preview_that_is_not_heard_any_more_is_told_and_the_next_wish_starts_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from medrecon_napari.model import previews as module

    from medrecon.config import ReconstructionConfig
    from medrecon.core.reading import ReadOptions

    children: list[_Silent] = []

    def start(*_: Any, **__: Any) -> _Silent:
        children.append(_Silent())
        return children[-1]

    monkeypatch.setattr(module, "Child", start)
    held = Held()
    previews = module.Previews(held)
    told: list[str] = []
    previews.failed.connect(lambda trouble: told.append(trouble.code))
    previews.open(tmp_path, "1", ReadOptions())
    previews.ask(module.Wish(ReconstructionConfig(), "axial", (0.0, 0.0, 0.0)))
    held.ends["preview"][1](EOFError())
    assert told == ["RUN-FAILED"]
    assert children[0].was_stopped
    assert previews.pid is None
    previews.ask(module.Wish(ReconstructionConfig(), "axial", (0.0, 0.0, 0.0)))
    assert len(children) == 2
    previews.close()
