"""A lock against two writers: a file that names the process, made in one step.

The lock of a process of this machine that has ended is taken over with a word. Of another machine
nobody here can say whether it still works, so its lock holds until it is forced.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hybridgen.errors import OutputExistsError

__all__ = ["check_lock", "locked"]

_NAME = "lock.json"


@contextlib.contextmanager
def locked(folder: Path, *, force: bool = False) -> Iterator[None]:
    """Hold the lock of a folder.

    Arguments:
        folder: The folder, which must exist.
        force: Whether to take a lock that another process holds.

    Raises:
        OutputExistsError: If another process holds it.
    """
    path = folder / _NAME
    own = {
        "host": platform.node(),
        "pid": os.getpid(),
        "born": _born(os.getpid()),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    draft = folder / f".{secrets.token_hex(8)}.part"
    draft.write_text(json.dumps(own), encoding="utf-8")
    try:
        while True:
            try:
                os.link(draft, path)  # fails where there is one, and is never seen half written
                break
            except FileExistsError:
                check_lock(folder, force=force)
                # renamed rather than deleted: of two that take it over one finds it gone
                with contextlib.suppress(FileNotFoundError):
                    stale = folder / f".{secrets.token_hex(8)}.part"
                    path.rename(stale)
                    stale.unlink()
    finally:
        draft.unlink()
    try:
        yield
    finally:
        if _read(path) == own:  # otherwise it was taken by force
            path.unlink()


def check_lock(folder: Path, *, force: bool = False) -> None:
    """Raise if the lock of a folder is held; say so if it is held by nobody any more.

    Arguments:
        folder: The folder.
        force: Whether to pass nevertheless.

    Raises:
        OutputExistsError: If another process holds it, naming the process.
    """
    path = folder / _NAME
    if not path.exists():
        return
    held = _read(path)
    log = logging.getLogger("hybridgen")
    if held is not None and _has_ended(held):
        log.warning("took over the lock of process %s, which has ended", held["pid"])
        return
    who = f"process {held['pid']} on {held['host']} since {held['time']}" if held else "somebody"
    if not force:
        raise OutputExistsError(
            f"{path} says that {who} is writing here; wait for it, or, if it is no longer at "
            "work, write force=True (--force) to take its place."
        )
    log.warning("took the lock of %s by force", who)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        held = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return (
        held if isinstance(held, dict) and {"host", "pid", "born", "time"} <= set(held) else None
    )


def _has_ended(held: dict[str, Any]) -> bool:
    if held["host"] != platform.node():
        return False
    try:
        os.kill(int(held["pid"]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return bool(held["born"] != _born(int(held["pid"])))


def _born(pid: int) -> str:
    """Return when a process started, where the system says: numbers of processes come again."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()
    return "ended" if fields[0] == "Z" else fields[19]
