r"""Records: a line for each task that is done, in files that are only ever appended to.

A line is `CRC JSON`, with the CRC-32 of the rest in front, and is synced to disk after the chunks
it speaks of. Each writer has a file of its own. A line that was torn by a crash, or damaged since,
does not pass its checksum and counts as if it was not there; its task is then done again.

The *stamp* of a chunk is its size and the checksum at its end, which zarr's codec `crc32c` put
there: the CRC-32C of all before it. A stamp is cheap to compare, and with the chunk's content it
is enough to tell whether a byte was changed, lost, or belongs elsewhere.
"""

from __future__ import annotations

import json
import os
import secrets
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Receipt", "Records", "checksum", "damage", "read_records", "sealed", "unsealed"]

_PATTERN = "done-*.jsonl"


@dataclass(frozen=True)
class Receipt:
    """What a task that is done leaves behind.

    Arguments:
        task: Its number.
        stamps: Size and checksum of each chunk file, by array.
        counts: How many members have each status, by code.
        reasons: Why members failed whom the sampler could not draw: for each kind of failure how
            many, the status, and the message of the first.
    """

    task: int
    stamps: Mapping[str, list[int]]
    counts: Mapping[str, int]
    reasons: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def sealed(value: Any) -> str:
    """Return a value as one line of JSON behind its checksum.

    Example:
        >>> sealed({"task": 3})
        'deb33276 {"task":3}'
        >>> unsealed(sealed({"task": 3}))
        {'task': 3}
    """
    text = json.dumps(value, separators=(",", ":"), sort_keys=True)
    return f"{zlib.crc32(text.encode()):08x} {text}"


def unsealed(line: str | bytes) -> Any:
    """Return the value of a sealed line; None if the line is torn or damaged."""
    raw = line.encode() if isinstance(line, str) else line
    seal, _, text = raw.rstrip(b"\n").partition(b" ")
    if seal != f"{zlib.crc32(text):08x}".encode():
        return None
    return json.loads(text)


class Records:
    """The records of one writer.

    Arguments:
        folder: The folder of all records.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / f"done-{secrets.token_hex(8)}.jsonl"

    def append(self, receipt: Receipt) -> None:
        """Add a record and make it last through a power cut."""
        with open(self._path, "ab") as file:
            file.write(f"{sealed(asdict(receipt))}\n".encode())
            file.flush()
            os.fsync(file.fileno())


def read_records(folder: Path) -> Iterator[Receipt | Path]:
    """Yield the receipts of a folder; for a line that cannot be read, the file it is in."""
    for path in sorted(folder.glob(_PATTERN)):
        with open(path, "rb") as file:
            for line in file:
                value = unsealed(line) if line.endswith(b"\n") else None
                yield path if value is None else Receipt(**value)


def checksum(data: bytes) -> int:
    """Return the CRC-32C of bytes.

    Example:
        >>> hex(checksum(b"123456789"))
        '0xe3069283'
    """
    import google_crc32c  # zarr's own

    return int(google_crc32c.value(data))


def damage(path: Path, stamp: list[int], *, thorough: bool) -> str | None:
    """Return what is wrong with a chunk; None if nothing is.

    Arguments:
        path: Its file.
        stamp: The size and checksum that it should have.
        thorough: Whether to read all of it, and not only its end.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != stamp[0]:
                return f"has {size} bytes instead of {stamp[0]}"
            content = file.read() if thorough else b""
            file.seek(-4, os.SEEK_END)
            tail = int.from_bytes(file.read(4), "little")
    except FileNotFoundError:
        return "is missing"
    if tail != stamp[1] or (thorough and checksum(content[:-4]) != stamp[1]):
        return "does not have its checksum"
    return None
