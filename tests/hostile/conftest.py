"""What the tests of bad input share: children that misbehave in place of the one that decodes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from medrecon.safety import quarantine


@pytest.fixture
def replace_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Run these lines of Python in place of the decoding child; `answers` is the way to the parent."""

    def replace(lines: str) -> None:
        child = tmp_path / "child.py"
        child.write_text(f"import os, signal, sys, time\nanswers = sys.stdout.buffer\n{lines}\n", encoding="utf-8")
        monkeypatch.setattr(quarantine, "_CHILD", child)

    return replace
