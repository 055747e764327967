"""Every Python block in the README and in the docs runs, from the project's root, as a reader would run it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def script(page: Path) -> str:
    """All blocks of a page in order: a later block may use what an earlier one made."""
    return "\n".join(BLOCK.findall(page.read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", [page for page in PAGES if script(page)], ids=lambda page: page.name)
def test_every_python_block_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "sample_data", tmp_path / "sample_data")
    monkeypatch.chdir(tmp_path)
    exec(compile(script(page), page.name, "exec"), {})


def test_the_readme_has_a_short_example_that_ends_in_files() -> None:
    code = script(ROOT / "README.md")
    statements = [line for line in code.splitlines() if line.strip()]
    assert 5 <= len(statements) <= 10
    assert "result.save(" in code


def test_every_link_in_the_readme_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not link.startswith("http") and not (ROOT / link).exists()] == []


def test_every_shown_command_exists() -> None:
    from medrecon.cli import app

    known = {command.name or (command.callback.__name__ if command.callback else "") for command in app.registered_commands}
    shown = set(re.findall(r"^medrecon (\w+)", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE))
    assert shown
    assert shown <= known
