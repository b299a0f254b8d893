"""The place of a sweep: whether it is free, whether there is room, and what is left behind."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from hybridgen.errors import OutputExistsError
from hybridgen.sweeping.locks import check_lock
from hybridgen.sweeping.outcome import SweepStoppedError
from hybridgen.sweeping.planning import Plan, Settings

__all__ = ["check_place", "check_space", "clean", "move_aside"]


def check_place(store: Path, wanted: Settings, *, resume: bool) -> None:
    """Raise unless a sweep may begin, or go on, in a group of a store.

    Arguments:
        store: The folder of the store.
        wanted: What is asked for.
        resume: Whether it may go on.

    Raises:
        OutputExistsError: If something else is there, or the sweep was of something else.
    """
    group = wanted.group
    plan = Plan.load(store, group)
    if plan is not None:
        if not resume:
            raise OutputExistsError(
                f"group {group!r} of {store} is there already; write resume=True (--resume) to "
                "go on with it, or overwrite=True (--overwrite) to move the store aside."
            )
        plan.check(wanted)
        return
    if store.is_file() or (store / group / "zarr.json").exists() or not _is_store(store):
        raise OutputExistsError(
            f"{store} is there already and holds something else in the place of group {group!r}; "
            "give another path, or write overwrite=True (--overwrite) to move a store aside."
        )
    if not store.absolute().parent.is_dir():
        raise OutputExistsError(f"there is no folder {store.parent} to write {store.name} into.")


def _is_store(store: Path) -> bool:
    """Return whether a folder is a zarr store, or nothing but what a sweep begins with."""
    if not store.is_dir() or (store / "zarr.json").is_file():
        return True
    return all("sweep" in p.parts or p.is_dir() for p in store.rglob("*"))


def move_aside(store: Path) -> None:
    """Rename a store, to `NAME.old-1` and so on.

    Arguments:
        store: Its folder; if there is none, nothing is done.

    Raises:
        OutputExistsError: If it is no zarr store, or another process is writing to it.
    """
    if not store.exists():
        return
    sweeps = [*store.rglob("status/sweep")]
    if not (store / "zarr.json").is_file() and not sweeps:
        raise OutputExistsError(f"{store} is there already and no zarr store; give another path.")
    for folder in sweeps:
        check_lock(folder)
    number = 1
    while (old := store.with_name(f"{store.name}.old-{number}")).exists():
        number += 1
    store.rename(old)


def check_space(store: Path, needed: float) -> None:
    """Raise unless the disk has room.

    Arguments:
        store: The folder of the store, which may not exist yet.
        needed: How much will be written at most, in bytes.

    Raises:
        SweepStoppedError: With what is needed and what is free.
    """
    folder = next(p for p in (store.absolute(), *store.absolute().parents) if p.is_dir())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise SweepStoppedError(
            f"the sweep needs up to {needed / 1e9:.3g} GB, but {folder} has {free / 1e9:.3g} GB "
            "left; free some, write elsewhere, or store less (fewer members, dtype='float32')."
        )


def clean(folder: Path, store: Path) -> None:
    """Remove the empty folders of a sweep that did not come to a plan."""
    for path in (folder, *folder.parents):
        with contextlib.suppress(OSError):
            path.rmdir()
        if path == store:
            return
