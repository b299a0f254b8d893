"""The plan of a sweep: what all tasks and all resumptions obey, made once, kept in the store.

How the integration steps is measured on fixed members, and so is what a member weighs. A task has
as many members as fill 16 MB of the largest array, so that a chunk is read and written at the
speed of the disk; where a member takes long, an eighth or a sixty-fourth of that, so that a task
ends within seconds. This is rounded so coarsely that it does not depend on how busy the machine
is just then.

The plan is kept twice, each copy one line behind its checksum.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from hybridgen.batch import Batch, Sampler
from hybridgen.errors import ConfigError, DataError, OutputExistsError, UnsupportedError
from hybridgen.files import write_text_atomic
from hybridgen.io import to_dataset
from hybridgen.sweeping.fingerprints import differences
from hybridgen.sweeping.layout import folder_of, static_files
from hybridgen.sweeping.records import sealed, unsealed

__all__ = ["COPIES", "Plan", "Settings", "dataset", "group_of", "make_plan"]

COPIES = ("plan.json", "plan.copy.json")
CHUNK_BYTES = 2**24
TASK_SECONDS = 10.0
FORMAT = 1


@dataclass(frozen=True)
class Settings:
    """What is asked for: two sweeps with the same settings give the same store.

    Arguments:
        n: How many members.
        seed: The root seed.
        group: The group of the store.
        dtype: `"float32"` or `"float64"` for trajectories and parameters; None as they are drawn.
        task_members: How many members a task has; None for the plan to say.
        attrs: Attributes of the data set beside the sampler's own.
        fingerprint: What the sampler is.
        code: Versions of the code.
    """

    n: int
    seed: int
    group: str
    dtype: str | None
    task_members: int | None
    attrs: Mapping[str, Any]
    fingerprint: Mapping[str, str]
    code: Mapping[str, str]


@dataclass(frozen=True)
class Plan:
    """How a sweep is done.

    Arguments:
        settings: What was asked for.
        task_members: How many members a task has.
        pace: How the sampler's integration steps, as its `pace` says; None if it has none.
        files: What does not depend on the draws, by path in the store, in base 64.
        axes: How many axes each array along `sample` has.
        member_bytes: What a member weighs on disk.
        origin: Where the sampler comes from, for whoever is to make it again.
        format: The version of this record.
    """

    settings: Settings
    task_members: int
    pace: Mapping[str, Any] | None
    files: Mapping[str, str]
    axes: Mapping[str, int]
    member_bytes: float
    origin: Mapping[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def tasks(self) -> int:
        """How many tasks there are."""
        return -(-self.settings.n // self.task_members)

    def contents(self) -> dict[str, bytes]:
        """Return the content of each file that does not depend on the draws."""
        return {k: base64.b64decode(v) for k, v in self.files.items()}

    def bounds(self, task: int) -> tuple[int, int]:
        """Return the first member of a task, and the one after its last."""
        start = task * self.task_members
        return start, min(start + self.task_members, self.settings.n)

    def save(self, store: Path) -> None:
        """Write both copies."""
        line = sealed(asdict(self)) + "\n"
        for name in COPIES:
            write_text_atomic(folder_of(store, self.settings.group) / name, line)

    @classmethod
    def load(cls, store: Path, group: str) -> Plan | None:
        """Read the plan of a group; None if there is none.

        Raises:
            DataError: If both copies are damaged, or of a later version.
        """
        folder = folder_of(store, group)
        copies = [folder / name for name in COPIES if (folder / name).is_file()]
        if not copies:
            return None
        for path in copies:
            value = unsealed(path.read_bytes())
            if value is not None:
                if value["format"] != FORMAT:
                    raise DataError(f"{path} has format {value['format']}; this is {FORMAT}.")
                return cls(**{**value, "settings": Settings(**value["settings"])})
        raise DataError(
            f"{folder} holds a plan of which both copies are damaged; the data may be read, but "
            "the sweep cannot go on: write overwrite=True (--overwrite) to begin anew."
        )

    def check(self, wanted: Settings) -> None:
        """Raise unless a sweep may go on with this plan.

        Raises:
            OutputExistsError: With a line for each difference.
        """
        before, now = asdict(self.settings), asdict(wanted)
        for attrs in (before["attrs"], now["attrs"]):
            attrs.pop("command", None)  # one that resumes is worded differently
        if wanted.task_members is None:  # leave it to the plan
            before["task_members"] = None
        lines = []
        for key in ("fingerprint", "code", "attrs"):
            # through JSON, as the plan went
            lines += differences(before.pop(key), json.loads(json.dumps(now.pop(key))))
        lines = differences(before, now) + lines
        if lines:
            shown = "\n  ".join(lines[:20]) + ("\n  ..." if len(lines) > 20 else "")
            raise OutputExistsError(
                f"the sweep in group {self.settings.group!r} was begun with something else:\n  "
                f"{shown}\nGo on with what it was, give another store, or write overwrite=True "
                "(--overwrite) to move it aside and begin anew."
            )


def group_of(sampler: Sampler) -> str:
    """Return the group that a sampler's data belong to: its split, or `ood/` and its shift."""
    attrs = sampler.describe().get("attrs", {})
    shift = attrs.get("shift", "none")
    return str(attrs.get("split", "train")) if shift == "none" else f"ood/{shift}"


def dataset(batch: Batch, sampler: Sampler, settings: Settings) -> xr.Dataset:
    """Return the data set of a batch, as the store is to hold it."""
    if settings.dtype is not None:
        batch = batch.to(getattr(torch, settings.dtype))
    if batch.status is None:
        batch = batch.replace(status=torch.zeros(len(batch), dtype=torch.int8))
    data = to_dataset(batch, **sampler.describe(), seed=settings.seed)
    return data.assign_attrs(settings.attrs)


def make_plan(
    sampler: Any, settings: Settings, members: NDArray[np.int64], origin: Mapping[str, Any]
) -> Plan:
    """Measure a sampler on fixed members and lay out the store.

    Arguments:
        sampler: A `Sampler`.
        settings: What is asked for.
        members: Members that can be drawn, with shape `(N,)`.
        origin: Where the sampler comes from.

    Raises:
        ConfigError: If the number of members a task is to have is not positive.
        UnsupportedError: If the same members, drawn twice, differ.
    """
    pace = sampler.pace(members, settings.n) if hasattr(sampler, "pace") else None
    if pace is not None:
        sampler = sampler.paced(pace)
    batch = sampler.draw(members, settings.seed)
    again, all_of_them = _timed(sampler, members, settings.seed)
    few = members[: max(1, len(members) // 8)]
    _, some = _timed(sampler, few, settings.seed)
    # what a member more costs, since most of a small batch is what a batch costs
    seconds = max(0.0, all_of_them - some) / max(1, len(members) - len(few))
    if not torch.equal(batch.y.nan_to_num(), again.y.nan_to_num()):
        raise UnsupportedError(
            "drawn twice, the same members are not the same; a function that draws random numbers "
            "of its own cannot be resumed: take them as parameters instead."
        )
    template = dataset(batch, sampler, settings)
    per_member = [v.nbytes / len(members) for v in template.variables.values() if _drawn(v)]
    size = settings.task_members
    if size is None:
        size = _task_members(max(per_member), seconds)
    if size < 1:
        raise ConfigError(f"task_members is {size}; give a positive number, or None.")
    size = min(size, settings.n)
    files, axes = static_files(template, settings.group, settings.n, size)
    return Plan(
        settings=settings,
        task_members=size,
        pace=pace,
        files={k: base64.b64encode(v).decode() for k, v in files.items()},
        axes=axes,
        member_bytes=sum(per_member),
        origin=dict(origin),
    )


def _timed(sampler: Sampler, members: NDArray[np.int64], seed: int) -> tuple[Batch, float]:
    started = time.perf_counter()
    batch = sampler.draw(members, seed)
    return batch, time.perf_counter() - started


def _drawn(variable: xr.Variable) -> bool:
    return bool(variable.dims) and variable.dims[0] == "sample"


def _task_members(largest: float, seconds: float) -> int:
    """Return how many members a task has.

    Arguments:
        largest: What a member weighs in the largest array, in bytes.
        seconds: How long it takes, in s.
    """
    size = max(1, int(CHUNK_BYTES / largest))
    if size > 64:
        size -= size % 64
    while size > 8 and size * seconds > TASK_SECONDS:
        size //= 8
    return max(1, size)
