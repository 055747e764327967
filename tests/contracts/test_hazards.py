"""Every hazard in docs/hazards.md has a test, and that test exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(r"^\| (H\d+) \|.*\|([^|]*)\|$", re.MULTILINE)


def hazards() -> list[tuple[str, list[str]]]:
    text = (ROOT / "docs" / "hazards.md").read_text(encoding="utf-8")
    return [(number, re.findall(r"`(test_\w+)`", tests)) for number, tests in ROW.findall(text)]


def known_tests() -> set[str]:
    return {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)", path.read_text(encoding="utf-8"))
    }


@pytest.mark.parametrize(("number", "tests"), hazards())
def test_a_hazard_names_tests_that_exist(number: str, tests: list[str]) -> None:
    assert tests, f"{number} has no test"
    assert set(tests) <= known_tests()


def test_hazards_are_numbered_without_a_hole() -> None:
    assert [number for number, _ in hazards()] == [f"H{k}" for k in range(1, len(hazards()) + 1)]
