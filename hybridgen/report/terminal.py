"""Results for the terminal: tables, and for a fit to a user's data sentences too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hybridgen.naming import Row
from hybridgen.report import bench_sections, fits, tables
from hybridgen.report.rows import is_benchmark, problems

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["summary_of", "table"]


def table(rows: Sequence[Row]) -> RenderableType:
    """Return the results as a table for the terminal, of a fit as two, of a benchmark several.

    Arguments:
        rows: Result rows.
    """
    if is_benchmark(rows):
        return bench_sections.terminal_table(rows)
    if not fits.is_fit(rows):
        return tables.table(rows)
    from rich.console import Group

    return Group(*(t for _, members in problems(rows) for t in fits.terminal_table(members)))


def summary_of(rows: Sequence[Row]) -> list[str]:
    """Return what the rows of a fit or a benchmark say in sentences; of a study none.

    Arguments:
        rows: Result rows.
    """
    if is_benchmark(rows):
        return [bench_sections.headline(members) for _, members in bench_sections.works(rows)]
    if not fits.is_fit(rows):
        return []
    return [s for _, members in problems(rows) for s in fits.headline(members)]
