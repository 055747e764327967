"""Text from a header steers nothing: it becomes a hash, or one escaped line."""

from __future__ import annotations

import logging
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from medrecon.core.errors import OutputError
from medrecon.safety.text import OneLine, keyed_id, machine_secret, printable, secret_file, short_id

NASTY = ["..", "/etc/x", "CON", "a" * 300, "a\0b", "$(id)", "\x1b[2J", "line\nline", "\u202egnp.exe", "\ud800", "<script>"]


@pytest.fixture
def own_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine on which medrecon was never used."""
    monkeypatch.setenv("MEDRECON_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.mark.parametrize("text", NASTY)
def test_a_short_id_is_sixteen_hexadecimal_digits_whatever_comes_in(text: str) -> None:
    assert len(short_id(text)) == 16
    assert set(short_id(text)) <= set("0123456789abcdef")
    assert short_id(text) == short_id(text)


def test_parts_are_kept_apart() -> None:
    assert short_id("ab", "c") != short_id("a", "bc")
    assert short_id("abc") != short_id("abc", "")
    assert short_id() != short_id("")


def test_a_keyed_id_needs_the_secret() -> None:
    one, other = bytes(32), bytes([1]) * 32
    assert keyed_id("4711", secret=one) == keyed_id("4711", secret=one)
    assert keyed_id("4711", secret=one) != keyed_id("4711", secret=other)
    assert keyed_id("4711", secret=one) != short_id("4711")


def test_the_secret_is_made_once_and_only_its_owner_reads_it(own_machine: Path) -> None:
    assert secret_file().parent == own_machine
    first = machine_secret()
    assert machine_secret() == first
    assert len(first) == 32
    assert stat.S_IMODE(secret_file().stat().st_mode) == 0o600
    assert [path.name for path in own_machine.iterdir()] == ["identity.key"]


def test_two_machines_have_two_secrets(own_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = keyed_id("4711")
    monkeypatch.setenv("MEDRECON_DATA_DIR", str(own_machine / "elsewhere"))
    assert keyed_id("4711") != here


@pytest.mark.usefixtures("own_machine")
def test_processes_that_start_together_agree_on_the_secret() -> None:
    script = "from medrecon.safety.text import keyed_id; print(keyed_id('4711'))"
    children = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) for _ in range(4)]
    assert len({child.communicate()[0] for child in children}) == 1


def test_a_damaged_or_unreachable_secret_is_refused(own_machine: Path) -> None:
    machine_secret()
    secret_file().write_bytes(b"short")
    with pytest.raises(OutputError, match="ID-SECRET"):
        machine_secret()
    secret_file().unlink()
    own_machine.rmdir()
    own_machine.write_bytes(b"a file where the folder should be")
    with pytest.raises(OutputError, match="ID-SECRET"):
        machine_secret()


@pytest.mark.parametrize("text", NASTY)
def test_printable_text_is_one_short_line_that_any_stream_can_write(text: str) -> None:
    line = printable(text)
    assert line.isprintable()
    assert len(line) <= 80
    line.encode("utf-8")


def test_plain_text_stays_as_it_is() -> None:
    assert printable("T1 sagittal, Bräm") == "T1 sagittal, Bräm"
    assert printable("abcdef", limit=4) == "abc…"
    assert printable("abcd", limit=4) == "abcd"


def test_a_log_record_keeps_to_one_line_and_shows_no_traceback() -> None:
    try:
        raise ValueError("DOE^JOHN")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "f", 1, "series %s\n%s", ("a\x1b[2J", "b"), sys.exc_info(), sinfo="stack")
    assert "DOE" in logging.Formatter().format(record)  # without the filter it shows
    record.exc_text = None
    assert OneLine().filter(record)
    shown = logging.Formatter().format(record)
    assert shown == "series a\\x1b[2J\\nb"
