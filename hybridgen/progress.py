"""Progress: what long functions tell while they work, and a bar that shows it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

__all__ = ["Progress", "bar"]


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
def bar(
    progress: bool | Callable[[Progress], None] | None, what: str
) -> Iterator[Callable[[Progress], None]]:
    """Yield a function to tell progress to.

    Arguments:
        progress: True for a bar, a function to be told, False for silence; None for a bar if
            standard error is a terminal.
        what: What is being done.
    """
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
            shown = " ".join(
                f"{k} {v:.3g}" for k, v in p.figures.items() if k in ("loss", "valid")
            )
            display.update(task, total=p.total, completed=p.done, figures=shown)

        yield tell
