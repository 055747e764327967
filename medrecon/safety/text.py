"""Text that may be shown, and names made from text that may not.

Header text never becomes a name: names are hashes. A patient's number has few digits, so that a plain hash of it can be
guessed back; it gets a keyed hash, whose secret never leaves this machine.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import secrets
import sys
from pathlib import Path

from medrecon.core.errors import OutputError

_DIGITS = 16
_SECRET_BYTES = 32


def short_id(*parts: str) -> str:
    """Return 16 hexadecimal digits that stand for `parts`; use it for UIDs, never for what names a patient."""
    return hashlib.sha256(_joined(parts)).hexdigest()[:_DIGITS]


def keyed_id(*parts: str, secret: bytes | None = None) -> str:
    """Return 16 hexadecimal digits that stand for `parts` on this machine only.

    Parameters
    ----------
    secret : bytes, optional
        By default the machine's own, made at first use in `secret_file`.

    Raises
    ------
    OutputError
        ``ID-SECRET`` where the secret can be neither read nor made.
    """
    key = machine_secret() if secret is None else secret
    return hmac.new(key, _joined(parts), hashlib.sha256).hexdigest()[:_DIGITS]


def printable(text: str, limit: int = 80) -> str:
    """Return `text` on one line, with everything that could steer a terminal or a page escaped, cut to `limit`."""
    line = _escaped(text[: limit + 1])
    return line if len(line) <= limit else line[: limit - 1] + "…"


class OneLine(logging.Filter):
    """Keep a record on one line and without traceback; hang it on the handler, as a logger's filter misses its children."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record in place and let it pass."""
        record.msg = _escaped(record.getMessage())
        record.args = None
        record.exc_info = record.exc_text = None  # a library's traceback may quote header values
        record.stack_info = None
        return True


def secret_file() -> Path:
    """Return where this machine keeps its secret: in ``MEDRECON_DATA_DIR`` or the user's data folder."""
    return _data_folder() / "identity.key"


def machine_secret() -> bytes:
    """Return this machine's secret, 32 random bytes that only the user may read; make it at first use."""
    path = secret_file()
    try:
        if not path.exists():
            _make_secret(path)
        secret = path.read_bytes()
    except OSError as error:
        raise _no_secret("cannot be read or made") from error
    if len(secret) != _SECRET_BYTES:
        raise _no_secret(f"holds {len(secret)} bytes instead of {_SECRET_BYTES}")
    return secret


def _no_secret(what: str) -> OutputError:
    hint = "Let MEDRECON_DATA_DIR name a folder that you can write to, or remove the damaged file identity.key there."
    return OutputError("ID-SECRET", f"the secret for hashed patient identities {what}.", hint)


def _make_secret(path: Path) -> None:
    """Write a new secret beside its name, readable by its owner only, and let the first of two processes win."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    scratch = path.with_name(f".part-{secrets.token_hex(4)}-{path.name}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_SECRET_BYTES))
            file.flush()
            os.fsync(file.fileno())
        path.hardlink_to(scratch)  # unlike a rename it never replaces the secret of another process
    except FileExistsError:
        return
    finally:
        scratch.unlink(missing_ok=True)


def _data_folder() -> Path:
    chosen = os.environ.get("MEDRECON_DATA_DIR")
    if chosen:
        return Path(chosen)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "medrecon"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "medrecon"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "medrecon"


def _joined(parts: tuple[str, ...]) -> bytes:
    """Join parts so that no two lists of parts give the same bytes; odd surrogates from damaged text are kept."""
    pieces = [part.encode("utf-8", "surrogatepass") for part in parts]
    return b"".join(b"%d:%b" % (len(piece), piece) for piece in pieces)


def _escaped(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
