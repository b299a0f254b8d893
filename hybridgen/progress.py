"""Progress: what long functions tell while they work, as a bar or as lines of JSON."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Progress", "bar", "emit", "json_lines"]

# an environment variable, so that the processes of a study that runs in several hear of it
_VARIABLE = "HYBRIDGEN_PROGRESS"
# the figures that a bar has room for
_SHOWN = ("loss", "valid", "ok", "retried", "failed")


@dataclass(frozen=True)
class Progress:
    """How far a function has come.

    Arguments:
        done: Steps done.
        total: Steps in all.
        figures: Figures of the last step.
    """

    done: int
    total: int
    figures: Mapping[str, float] = field(default_factory=dict)


@contextmanager
def json_lines() -> Iterator[None]:
    """Let every bar of this process, and of those it starts, write lines of JSON instead."""
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = "json"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_VARIABLE]
        else:
            os.environ[_VARIABLE] = before


def emit(event: str, **facts: Any) -> None:
    """Write one line of JSON to standard output; a number that is not finite becomes null.

    Arguments:
        event: What happened.
        **facts: What is to be known of it.

    Example:
        >>> emit("progress", learner="aphynity", step=25, total=400, loss=float("nan"))
        {"event": "progress", "learner": "aphynity", "step": 25, "total": 400, "loss": null}
    """
    plain = {
        k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in facts.items()
    }
    sys.stdout.write(json.dumps({"event": event, **plain}) + "\n")
    sys.stdout.flush()


@contextmanager
def bar(
    progress: bool | Callable[[Progress], None] | None, what: str, **facts: Any
) -> Iterator[Callable[[Progress], None]]:
    """Yield a function to tell progress to.

    Inside `json_lines` each progress is a line of JSON, whatever else is told.

    Arguments:
        progress: True for a bar, a function to be told, False for silence; None for a bar if
            standard error is a terminal.
        what: What is being done.
        **facts: What else the lines of JSON say, such as `learner="aphynity"`.
    """
    wanted = progress is not False and not isinstance(progress, _Lines)
    if wanted and os.environ.get(_VARIABLE) == "json":
        yield _Lines(progress, {"what": what, **facts})
        return
    if callable(progress):
        yield progress
        return
    if progress is False or (progress is None and not sys.stderr.isatty()):
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
    )
    with RichProgress(*columns, console=Console(stderr=True)) as display:
        task = display.add_task(what, total=None, figures="")

        def tell(p: Progress) -> None:
            shown = " ".join(f"{k} {_short(v)}" for k, v in p.figures.items() if k in _SHOWN)
            display.update(task, total=p.total, completed=p.done, figures=shown)

        yield tell


def _short(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


@dataclass(frozen=True)
class _Lines:
    """A listener that writes lines of JSON, and tells whoever asked to be told."""

    also: bool | Callable[[Progress], None] | None
    facts: Mapping[str, Any]

    def __call__(self, p: Progress) -> None:
        if callable(self.also):
            self.also(p)
        figures = {k: v for k, v in p.figures.items() if k != "step"}
        emit("progress", **{**self.facts, "step": p.done, "total": p.total, **figures})
