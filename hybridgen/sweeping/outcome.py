"""How a sweep ended: counts by status and the reasons of failures, or why it stopped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hybridgen.errors import HybridgenError
from hybridgen.integrate import Status
from hybridgen.sweeping.records import Receipt

__all__ = ["SweepResult", "SweepStoppedError", "Tally"]


class SweepStoppedError(HybridgenError, RuntimeError):
    """A sweep stopped before its end; what it has stored is kept, and it can be resumed."""


@dataclass(frozen=True)
class SweepResult:
    """What a sweep left behind.

    Arguments:
        store: The folder of the store.
        group: The group.
        members: How many members there are.
        counts: How many members have each status, by its name.
        reasons: Why members failed that the sampler could not draw: how many for each kind of
            failure, the status, and the message of the first.
        tasks: How many tasks were done now, the others having been done before.
    """

    store: Path
    group: str
    members: int
    counts: Mapping[str, int]
    reasons: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tasks: int = 0

    @property
    def ok(self) -> int:
        """How many members are good to the end, retried or not."""
        return self.counts.get("ok", 0) + self.counts.get("retried", 0)

    @property
    def failed(self) -> int:
        """How many members are not."""
        return sum(self.counts.values()) - self.ok

    @property
    def summary(self) -> str:
        """A sentence, and a line for each kind of failure."""
        named = ", ".join(f"{count:,} {name}" for name, count in self.counts.items())
        lines = [f"{self.members:,} members: {named}"]
        for kind, entry in self.reasons.items():
            message = f": {entry['first']}" if entry["first"] else ""
            lines.append(f"  {entry['count']:,} x {kind}{message}")
        return "\n".join(lines)


class Tally:
    """Counts of what is done, kept while receipts come in."""

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()
        self.blamed = 0
        self._reasons: dict[str, dict[str, Any]] = {}

    def add(self, receipt: Receipt) -> None:
        """Count a task."""
        self.counts.update({int(code): count for code, count in receipt.counts.items()})
        for kind, entry in receipt.reasons.items():
            known = self._reasons.setdefault(kind, {**entry, "count": 0, "task": receipt.task})
            known["count"] += entry["count"]
            if receipt.task < known["task"]:  # the first of all, whoever came first
                known |= {"task": receipt.task, "first": entry["first"]}

    @property
    def done(self) -> int:
        """How many members are done."""
        return sum(self.counts.values())

    @property
    def failed(self) -> int:
        """How many of them failed."""
        return self.done - self.counts[Status.ok] - self.counts[Status.retried]

    def figures(self) -> dict[str, int]:
        """Return what progress tells."""
        return {
            "ok": self.counts[Status.ok],
            "retried": self.counts[Status.retried],
            "failed": self.failed,
        }

    def named(self) -> dict[str, int]:
        """Return how many members have each status, by name."""
        return {Status(code).name: self.counts[code] for code in sorted(self.counts)}

    def reasons(self) -> dict[str, dict[str, Any]]:
        """Return the reasons, those of most members first."""
        ranked: Iterable[Any] = sorted(
            self._reasons.items(), key=lambda item: (-item[1]["count"], item[0])
        )
        return {kind: {k: v for k, v in entry.items() if k != "task"} for kind, entry in ranked}
