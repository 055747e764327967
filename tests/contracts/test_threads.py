"""The command line settles how threads wait and, in a container with a limited share of time, how many there are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from medrecon.console import threads


def settled(tmp_path: Path, granted: str, **given: str) -> dict[str, str]:
    file, environment = tmp_path / "cpu.max", dict(given)
    file.write_text(granted, encoding="ascii")
    threads.settle(environment, file)
    return environment


@pytest.fixture(autouse=True)
def _eight_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_processors", lambda: 8)


@pytest.mark.parametrize(("granted", "number"), [("200000 100000", "2"), ("150000 100000", "2"), ("10000 100000", "1")])
def test_a_container_that_is_granted_less_than_its_processors_gets_so_many_threads(
    tmp_path: Path, granted: str, number: str
) -> None:
    assert settled(tmp_path, granted)["OMP_NUM_THREADS"] == number


@pytest.mark.parametrize("granted", ["max 100000", "1600000 100000", "", "nonsense", "100000 0"])
def test_without_a_limit_the_number_is_left_to_the_libraries(tmp_path: Path, granted: str) -> None:
    assert settled(tmp_path, granted) == {"OMP_WAIT_POLICY": "PASSIVE"}


def test_what_was_set_before_stays(tmp_path: Path) -> None:
    given = {"OMP_NUM_THREADS": "3", "OMP_WAIT_POLICY": "ACTIVE"}
    assert settled(tmp_path, "200000 100000", **given) == given


def test_where_there_are_no_containers_nothing_is_missed(tmp_path: Path) -> None:
    environment: dict[str, str] = {}
    threads.settle(environment, tmp_path / "absent")
    assert environment == {"OMP_WAIT_POLICY": "PASSIVE"}


def test_the_command_line_settles_it_before_it_does_anything() -> None:
    script = (
        "import os, sys; sys.argv = ['medrecon', '--version']\n"
        "from medrecon.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    print(os.environ.get('OMP_WAIT_POLICY'), 'torch' in sys.modules)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines()[-1] == "PASSIVE False"
