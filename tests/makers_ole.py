"""A minimal OLE container, byte by byte from the format's description: sectors of 512 bytes, no mini stream, no DIFAT."""

from __future__ import annotations

import struct
from pathlib import Path

SECTOR = 512
_END, _FREE, _FAT = 0xFFFFFFFE, 0xFFFFFFFF, 0xFFFFFFFD
_SMALLEST = 4096  # shorter streams would go into the mini stream


def write_ole(path: Path, streams: dict[str, bytes]) -> Path:
    """Write streams named ``storage/stream``; short ones are padded with zeros to 4096 bytes."""
    folders = sorted({name.partition("/")[0] for name in streams})
    padded = {name: data.ljust(_SMALLEST, b"\0") for name, data in streams.items()}
    body, fat, starts = b"", list[int](), dict[str, int]()
    for name, data in padded.items():
        starts[name] = len(fat)
        count = -(-len(data) // SECTOR)
        fat += [*range(len(fat) + 1, len(fat) + count), _END]
        body += data.ljust(count * SECTOR, b"\0")
    directory = _directory(folders, padded, starts)
    directory_start, count = len(fat), len(directory) // SECTOR
    fat += [*range(len(fat) + 1, len(fat) + count), _END]
    fat_count = 1
    while (len(fat) + fat_count) * 4 > fat_count * SECTOR:
        fat_count += 1
    fat_start = len(fat)
    fat += [_FAT] * fat_count
    fat += [_FREE] * (fat_count * SECTOR // 4 - len(fat))
    table = struct.pack(f"<{len(fat)}I", *fat)
    path.write_bytes(_header(fat_start, fat_count, directory_start) + body + directory + table)
    return path


def _header(fat_start: int, fat_count: int, directory_start: int) -> bytes:
    difat = [*range(fat_start, fat_start + fat_count)]
    fixed = struct.pack(
        "<8s16sHHHHH6sIIIIIIIII",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        b"",
        0x3E,
        3,
        0xFFFE,
        9,
        6,
        b"",
        0,
        fat_count,
        directory_start,
        0,
        _SMALLEST,
        _END,
        0,
        _END,
        0,
    )
    return fixed + struct.pack("<109I", *difat, *[_FREE] * (109 - fat_count))


def _directory(folders: list[str], streams: dict[str, bytes], starts: dict[str, int]) -> bytes:
    """Entries of 128 bytes: the root, the storages, the streams; brothers form a chain to the right."""
    entries: list[tuple[str, int, int, int, int, int]] = [("Root Entry", 5, _FREE, 1 if folders else _FREE, _END, 0)]
    by_folder = {
        folder: sorted((n for n in streams if n.startswith(f"{folder}/")), key=lambda n: (len(n), n.upper()))
        for folder in folders
    }
    at = 1 + len(folders)
    order = sorted(folders, key=lambda n: (len(n), n.upper()))
    for k, folder in enumerate(order):
        entries.append((folder, 1, k + 2 if k + 1 < len(order) else _FREE, at, 0, 0))
        at += len(by_folder[folder])
    at = 1 + len(folders)
    for folder in order:
        names = by_folder[folder]
        for k, name in enumerate(names):
            right = at + k + 1 if k + 1 < len(names) else _FREE
            entries.append((name.partition("/")[2], 2, right, _FREE, starts[name], len(streams[name])))
        at += len(names)
    packed = b"".join(_entry(*entry) for entry in entries)
    return packed.ljust(-(-len(packed) // SECTOR) * SECTOR, b"\0")


def _entry(name: str, kind: int, right: int, child: int, start: int, size: int) -> bytes:
    encoded = name.encode("utf-16-le") + b"\0\0"
    return struct.pack("<64sHBBIII16sIQQIQ", encoded, len(encoded), kind, 1, _FREE, right, child, b"", 0, 0, 0, start, size)
