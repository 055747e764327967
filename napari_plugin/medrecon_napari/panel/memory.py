"""What the panel remembers from one window to the next: where the last study was, how fast this machine is."""

from __future__ import annotations

import json
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

_FILE = "medrecon-panel.json"


class Memory(MutableMapping[str, Any]):
    """Plain data in a file beside napari's own settings; without a place to write, it lasts as long as the window.

    Parameters
    ----------
    file : Path, optional
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._data: dict[str, Any] = _read(file)

    def __getitem__(self, key: str) -> Any:  # noqa: ANN401 (plain data)
        return self._data[key]

    def __setitem__(self, key: str, value: Any) -> None:  # noqa: ANN401 (plain data)
        if self._data.get(key) != value:
            self._data[key] = value
            self._write()

    def __delitem__(self, key: str) -> None:
        del self._data[key]
        self._write()

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def _write(self) -> None:
        if self._file is None:
            return
        scratch = self._file.with_suffix(".part")
        try:
            scratch.write_text(json.dumps(self._data), encoding="utf-8")
            scratch.replace(self._file)
        except OSError:  # it is a convenience: forgetting is no reason to stop a clinician
            self._file = None


def beside_napari() -> Memory:
    """Return the memory beside napari's settings."""
    from napari.settings import get_settings

    path = get_settings().config_path
    return Memory(None if path is None else Path(path).parent / _FILE)


def _read(file: Path | None) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8")) if file is not None else {}
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
