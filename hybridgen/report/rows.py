"""Which rows of `results.json` a table or a sentence speaks of.

A row is one number: `value` of `metric` for a `parameter` ("mean" over them), by `learner` and
`inference`, on the test set of `shift` ("none" in support), from one `seed` or over all ("mean").
Rows of a benchmark have a `contestant` instead, and columns of their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from hybridgen.errors import DataError, nearest
from hybridgen.naming import Row, row_name

__all__ = [
    "BENCHMARK_COLUMNS", "COLUMNS", "ShiftPoint", "check_rows", "find", "is_benchmark", "problems",
    "shift_points", "summary",
]  # fmt: skip

COLUMNS = (
    "experiment", "problem", "variant", "learner", "inference", "split", "shift", "distance",
    "parameter", "metric", "value", "low", "high", "unit", "seed", "n_seeds",
)  # fmt: skip
BENCHMARK_COLUMNS = (
    "experiment", "work", "contestant", "knob", "device", "dtype", "metric", "value", "low",
    "high", "unit", "error", "ratio_to", "ratio",
)  # fmt: skip
_NUMBERS = ("distance", "value", "low", "high", "error", "ratio")


class ShiftPoint(NamedTuple):
    """A test set: its shift ("none" in support) and its distance in training widths, or None."""

    shift: str
    distance: float | None


def is_benchmark(rows: Any) -> bool:
    """Whether rows are of a benchmark: contestants that did a piece of work."""
    return isinstance(rows, list) and bool(rows) and "contestant" in (rows[0] or ())


def check_rows(rows: Any) -> list[dict[str, Any]]:
    """Return the rows with "not a number" as None, after checking their columns and values.

    Raises:
        DataError: There are no rows, or a row has wrong columns or a number that is none.
    """
    if not isinstance(rows, list) or not rows:
        raise DataError(f"results are {rows!r:.40}; expected a list of at least one row")
    checked = []
    benchmark = is_benchmark(rows)
    columns = BENCHMARK_COLUMNS if benchmark else COLUMNS
    for i, row in enumerate(rows):
        if not isinstance(row, dict):
            raise DataError(f"row {i} is {row!r:.40}; expected a mapping from column to value")
        if missing := [c for c in columns if c not in row]:
            raise DataError(f"row {i} lacks {', '.join(missing)}; write null for an unknown value")
        if unknown := [c for c in row if c not in columns]:
            raise DataError(f"row {i} has the unknown column {unknown[0]!r}; "
                            + nearest(unknown[0], columns))  # fmt: skip
        numbers = {c: row[c] for c in _NUMBERS if c in columns}
        for column, number in numbers.items():
            if number is not None and type(number) not in (int, float):
                raise DataError(f"row {i} has {column}={number!r}; expected a number or null")
            numbers[column] = number if number is not None and math.isfinite(number) else None
        checked.append({**row, **numbers})
        if not benchmark:
            checked[-1]["parameter"] = row["parameter"] or "mean"
    return checked


def summary(rows: Iterable[Row]) -> list[Row]:
    """Return one row for each quantity: the one over seeds, or the only seed there is.

    Arguments:
        rows: Result rows, of single seeds and over seeds.

    Returns:
        The chosen rows, in the order of their first appearance.

    Raises:
        DataError: Several seeds have no row over seeds, or a quantity is given twice.
    """
    columns = "problem", "variant", "learner", "inference", "split", "shift", "parameter", "metric"
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[c] for c in columns), []).append(row)
    chosen = []
    for key, members in groups.items():
        best = [row for row in members if row["seed"] == "mean"] or members
        if len(best) > 1:
            what = ", ".join(f"{c}={v!r}" for c, v in zip(columns, key, strict=True))
            seeds = ", ".join(sorted({str(row["seed"]) for row in best}))
            raise DataError(
                f"{len(best)} rows for {what} (seeds {seeds}); expected one; "
                "write one row over the seeds with seed='mean'"
            )
        chosen.append(best[0])
    return chosen


def problems(rows: Iterable[Row]) -> list[tuple[str, list[Row]]]:
    """Return the rows of each problem and variant with a title.

    The variant of a published row names its learner, so it goes to every variant of its problem.
    """
    rows = list(rows)
    ours = [r for r in rows if r["learner"] != "published"]
    found = []
    for problem, variant in dict.fromkeys((r["problem"], r["variant"]) for r in ours):
        own = [r for r in rows if r["problem"] == problem]
        own = [r for r in own if r["learner"] == "published" or r["variant"] == variant]
        found.append((f"{problem}, {variant}" if variant else str(problem), own))
    return found


def shift_points(rows: Iterable[Row]) -> list[ShiftPoint]:
    """Return the test sets: in support, then by distance, unknown distances last.

    Example:
        >>> rows = [{"shift": "far", "distance": 1.0}, {"shift": "none", "distance": None}]
        >>> [point.shift for point in shift_points(rows)]
        ['none', 'far']
    """
    found: dict[str, float | None] = {}
    for row in rows:
        if found.get(row["shift"]) is None:
            found[row["shift"]] = row["distance"]
    points = [ShiftPoint(shift, 0.0 if shift == "none" else d) for shift, d in found.items()]
    return sorted(points, key=lambda p: (p[0] != "none", math.inf if p[1] is None else p[1], p[0]))


def find(
    rows: Iterable[Row], name: str, shift: str, metric: str, parameter: str = "mean"
) -> Row | None:
    """Return the row of a name on a test set that has a value, or None."""
    key = name, shift, metric, parameter
    known = (r for r in rows if r["value"] is not None)
    found = (r for r in known if (row_name(r), r["shift"], r["metric"], r["parameter"]) == key)
    return next(found, None)
