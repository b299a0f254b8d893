"""What a worker does, in whatever process it is: try members, plan, or draw and store a task.

A member that cannot be drawn is replaced by a neighbour while its task is drawn, so that the
others stand where they would have stood, next to as many, and come out the same to the last bit.
What is known of it beforehand (parameters, distance) is stored all the same; the rest is NaN.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridgen.integrate import Status
from hybridgen.sweeping.culprits import Fault
from hybridgen.sweeping.layout import Region, folder_of
from hybridgen.sweeping.planning import Plan, Settings, dataset, make_plan
from hybridgen.sweeping.records import Receipt, Records

__all__ = ["Recipe", "StoreFault", "Workman", "fault_of"]

# frames in these say less of a fault than the function that led there
_NOT_A_USERS = (str(Path(__file__).parents[1]), sys.prefix, sys.base_prefix)


class StoreFault(Exception):  # noqa: N818 it is caught before a user sees it
    """The store could not be written: the machine's fault, no member's."""


@dataclass(frozen=True)
class Recipe:
    """How to draw a task of which some members cannot be drawn.

    Arguments:
        lost: Why, by member.
        parts: Parts to draw one by one, first and one after last; empty for all at once.
    """

    lost: Mapping[int, Fault] = field(default_factory=dict)
    parts: Sequence[tuple[int, int]] = ()


class Workman:
    """Does the jobs of a sweep.

    Arguments:
        sampler: A `Sampler`.
        store: The folder of the store.
        seed: The root seed.
    """

    def __init__(self, sampler: Any, store: Path, seed: int) -> None:
        self._sampler, self._store, self._seed = sampler, store, seed
        self._plan: Plan | None = None
        self._region: Region | None = None
        self._records: Records | None = None

    def plan(
        self, settings: Settings, members: NDArray[np.int64], origin: Mapping[str, Any]
    ) -> Plan:
        """Measure the sampler on members, with shape `(N,)`, and return the plan."""
        return make_plan(self._sampler, settings, members, origin)

    def obey(self, plan: Plan) -> None:
        """Work by a plan from now on; its store must have been laid out."""
        self._plan = plan
        if plan.pace is not None:
            self._sampler = self._sampler.paced(plan.pace)

    def attempt(self, start: int, stop: int) -> None:
        """Draw members without storing them."""
        self._sampler.draw(np.arange(start, stop), self._seed)

    def store(self, task: int, recipe: Recipe) -> Receipt:
        """Draw a task, write its chunks and then its record.

        Raises:
            StoreFault: If something cannot be written.
        """
        plan = self._obeyed()
        start, stop = plan.bounds(task)
        parts = recipe.parts or [(start, stop)]
        pieces = [(a, b, self._draw(a, b, recipe.lost)) for a, b in parts]
        try:
            region = self._opened(plan)
            values = pieces[0][2]
            if recipe.lost or len(pieces) > 1:
                values = self._joined(region.blank(task), start, pieces, recipe.lost)
            stamps = region.write(task, values)
            receipt = Receipt(task, stamps, _counts(values["status"]), _reasons(recipe.lost))
            if self._records is None:
                self._records = Records(folder_of(self._store, plan.settings.group))
            self._records.append(receipt)
        except OSError as error:
            raise StoreFault(f"{type(error).__name__}: {error}") from error
        return receipt

    def _obeyed(self) -> Plan:
        if self._plan is None:
            raise RuntimeError("a worker was given a task before it was given the plan.")
        return self._plan

    def _opened(self, plan: Plan) -> Region:
        if self._region is None:
            s = plan.settings
            self._region = Region(self._store, s.group, plan.axes, s.n, plan.task_members)
        return self._region

    def _draw(self, start: int, stop: int, lost: Mapping[int, Fault]) -> dict[str, NDArray[Any]]:
        """Return the values of members; those that are lost have a neighbour's."""
        members = np.arange(start, stop)
        good = np.array([m for m in members if m not in lost], dtype=np.int64)
        if not len(good):
            return {}
        if len(good) < len(members):
            members = good[np.searchsorted(good, members).clip(max=len(good) - 1)]
        return self._arrays(self._sampler.draw(members, self._seed))

    def _arrays(self, batch: Any) -> dict[str, NDArray[Any]]:
        plan = self._obeyed()
        data = dataset(batch, self._sampler, plan.settings)
        return {name: data[name].values for name in plan.axes if name in data.variables}

    def _joined(
        self,
        blank: dict[str, NDArray[Any]],
        first: int,
        pieces: Sequence[tuple[int, int, Mapping[str, NDArray[Any]]]],
        lost: Mapping[int, Fault],
    ) -> dict[str, NDArray[Any]]:
        """Return the values of a task that starts at a first member, of pieces and of the lost."""
        for start, stop, values in pieces:
            for name, piece in values.items():
                blank[name][start - first : stop - first] = piece
        if not lost:
            return blank
        rows = np.array(sorted(lost)) - first
        known: Mapping[str, NDArray[Any]] = {}
        if hasattr(self._sampler, "outline"):
            known = self._arrays(self._sampler.outline(rows + first, self._seed))
        for name, column in blank.items():
            empty = np.nan if column.dtype.kind == "f" else False
            column[rows] = known.get(name, empty)
        blank["status"][rows] = [int(lost[int(m) + first].status) for m in rows]
        return blank


def _counts(status: NDArray[np.int8]) -> dict[str, int]:
    codes, counts = np.unique(status, return_counts=True)
    return {str(c): int(k) for c, k in zip(codes, counts, strict=True)}


def _reasons(lost: Mapping[int, Fault]) -> dict[str, dict[str, Any]]:
    """Return, for each kind of fault, how many, the status, and the message of the first."""
    found: dict[str, dict[str, Any]] = {}
    for member in sorted(lost):
        fault = lost[member]
        entry = found.setdefault(
            fault.kind, {"count": 0, "status": int(fault.status), "first": fault.message}
        )
        entry["count"] += 1
    return dict(sorted(found.items())[:8])


def fault_of(error: BaseException) -> Fault:
    """Return what an exception of a sampler says: its type, where it was raised, its message."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not f.filename.startswith(_NOT_A_USERS)] or frames[-1:]
    at = f" at {os.path.basename(own[-1].filename)}:{own[-1].lineno}" if own else ""
    message = str(error).partition("\n")[0][:160]
    return Fault(Status.error, f"{type(error).__name__}{at}", message)
