"""What is done of a sweep, by its records and by what lies there, and the mark of its end.

A task counts as done if it has a record and all its chunks lie there with the size and checksum
that the record says. The mark of the end holds counts and reasons; the reasons are an attribute
of the data set as well, so that whoever reads the data sees who is missing and why.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hybridgen.files import write_bytes_atomic, write_text_atomic
from hybridgen.sweeping.layout import chunk_file, folder_of
from hybridgen.sweeping.outcome import Tally
from hybridgen.sweeping.planning import Plan
from hybridgen.sweeping.records import Receipt, damage, read_records, sealed, unsealed

__all__ = ["COMPLETE", "conclude", "described", "finished_tasks", "flaws", "read_completion"]

COMPLETE = "complete.json"


def flaws(store: Path, plan: Plan, receipt: Receipt, *, thorough: bool) -> list[str]:
    """Return what is wrong with the chunks of a task, a line each.

    Arguments:
        store: The folder of the store.
        plan: The plan.
        receipt: The record of the task.
        thorough: Whether to read all of every chunk, and not only its end.
    """
    found = []
    for array, stamp in receipt.stamps.items():
        path = chunk_file(store, plan.settings.group, array, plan.axes[array], receipt.task)
        if (what := damage(path, stamp, thorough=thorough)) is not None:
            found.append(f"{path.relative_to(store)} {what}")
    return found


def finished_tasks(store: Path, plan: Plan, tally: Tally, again: frozenset[int]) -> bytearray:
    """Return which tasks are done, and count them.

    Arguments:
        store: The folder of the store.
        plan: The plan.
        tally: Where to count.
        again: Tasks that do not count as done, whatever their records say.

    Returns:
        A one for each task that is done.
    """
    done = bytearray(plan.tasks)
    for receipt in read_records(folder_of(store, plan.settings.group)):
        if isinstance(receipt, Path) or done[receipt.task] or receipt.task in again:
            continue
        if not flaws(store, plan, receipt, thorough=False):
            done[receipt.task] = 1
            tally.add(receipt)
    return done


def conclude(store: Path, plan: Plan, tally: Tally) -> None:
    """Put the reasons into the attributes of the group, and leave the mark of the end."""
    folder, group = folder_of(store, plan.settings.group), plan.settings.group
    end: dict[str, Any] = {"counts": tally.named(), "reasons": tally.reasons()}
    if read_completion(folder) == end:
        return
    content = described(plan, end["reasons"])
    path = store / group / "zarr.json"
    if not path.is_file() or path.read_bytes() != content:
        write_bytes_atomic(path, content)
    write_text_atomic(folder / COMPLETE, sealed(end) + "\n")


def read_completion(folder: Path) -> dict[str, Any] | None:
    """Return the mark of the end; None if there is none, or it is damaged."""
    path = folder / COMPLETE
    return unsealed(path.read_bytes()) if path.is_file() else None


def described(plan: Plan, reasons: Mapping[str, Any]) -> bytes:
    """Return the metadata file of the group, with the reasons of failures if there are any."""
    content = plan.contents()[f"{plan.settings.group}/zarr.json"]
    if not reasons:
        return content
    value = json.loads(content)
    value["attributes"]["failures"] = json.dumps(reasons, sort_keys=True)
    return json.dumps(value, indent=2).encode()
