"""Files that are either whole or absent: written beside their target, synced, then renamed.

A rename within one folder is atomic, so a reader, or a run killed half way, sees the old file or
the new one and never a part of either.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

__all__ = ["sha256_of", "write_bytes_atomic", "write_text_atomic"]


def write_bytes_atomic(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write a file so that it is never seen half written.

    Arguments:
        path: The file; its folder must exist, and an old file is replaced.
        data: What it shall hold.

    Returns:
        The path.

    Raises:
        OSError: If the folder is missing, read-only or full; the old file is then untouched.
    """
    path = Path(path)
    # a name of its own for each writer; opened as any new file is, so the umask holds
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with open(part, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)
    return path


def write_text_atomic(path: str | os.PathLike[str], text: str) -> Path:
    r"""Write a UTF-8 text file so that it is never seen half written.

    Arguments:
        path: The file; its folder must exist, and an old file is replaced.
        text: What it shall hold; line ends are written as they are.

    Returns:
        The path.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_text_atomic(Path(folder) / "a.txt", "whole\n").read_text()
        'whole\n'
    """
    return write_bytes_atomic(path, text.encode("utf-8"))


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file, in hexadecimal.

    Arguments:
        path: The file.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    """Make the rename itself last through a power cut, where the system can open a folder."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
