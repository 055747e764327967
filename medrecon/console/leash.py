"""Let a child process end with its parent, however the parent ended.

The parent starts us with a pipe as stdin and never writes to it. When the pipe closes, because the parent closed it
or was killed, we stop at once; atomic writes see to it that nothing half-written stays under a final name.
"""

from __future__ import annotations

import os
import sys
import threading

from medrecon.core.errors import ExitCode

#: Set to 1 by a parent that holds our stdin.
VARIABLE = "MEDRECON_LEASH"


def hold() -> None:
    """Watch stdin in a background thread where the parent asked for it."""
    if os.environ.get(VARIABLE) == "1":
        threading.Thread(target=_watch, name="leash", daemon=True).start()


def _watch() -> None:
    while os.read(sys.stdin.fileno(), 1024):
        continue
    os._exit(ExitCode.CANCELLED)
