"""The rows of a results page as JSON that is small, and of which a change shows as its lines.

What all rows have in common stands once, and so does what those of one shift and metric (of a
benchmark: of one work and metric) have in common; they are a table with a row a line, under the
names of the columns that are left. Numbers have six digits, more than a page shows.

    {"provenance": {...},
    "common": {"experiment": "ood_pendulum", ...},
    "tables": [
    {"common": {"shift": "far", "metric": "log_mse", ...}, "columns": ["learner", "value", ...],
    "rows": [
    ["aphynity",-2.25,...],
    ["aphynity+",-3.5,...]]}]}
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hybridgen.errors import DataError
from hybridgen.naming import Row
from hybridgen.report.rows import is_benchmark

__all__ = ["twin_rows", "twin_text"]

DIGITS = 6


def twin_text(provenance: Mapping[str, Any] | None, rows: Sequence[Row]) -> str:
    """Return where rows come from, and the rows, as JSON.

    Arguments:
        provenance: How the run was made, or None.
        rows: Result rows, all with the same columns, in which no number is NaN.

    Returns:
        What `twin_rows` reads, with the tables in the order of their first rows.
    """
    common = _common(rows)
    keys = ("work" if is_benchmark(rows) else "shift", "metric")
    tables: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        tables.setdefault(tuple(row[k] for k in keys), []).append(row)
    found = ",\n".join(_table(members, common) for members in tables.values())
    head = f'"provenance": {_json(provenance)},\n"common": {_json(common)}'
    return f'{{{head},\n"tables": [\n{found}]}}\n'


def _table(rows: Sequence[Row], known: Mapping[str, Any]) -> str:
    """Return rows without what is known already."""
    common = {c: v for c, v in _common(rows).items() if c not in known}
    columns = [c for c in rows[0] if c not in common and c not in known]
    lines = ",\n".join(_json([_short(row[c]) for c in columns]) for row in rows)
    head = f'"common": {_json(common)}, "columns": {_json(columns)}'
    return f'{{{head},\n"rows": [\n{lines}]}}'


def _common(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the columns that are equal in all rows."""
    first = rows[0]
    return {c: _short(v) for c, v in first.items() if all(row[c] == v for row in rows)}


def _short(value: Any) -> Any:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def twin_rows(path: str | Path) -> list[dict[str, Any]]:
    """Read the rows of a results page.

    Arguments:
        path: The JSON file beside the page.

    Returns:
        The rows with the columns of `results.json`, a table after the other, to six digits.

    Raises:
        DataError: If the file is not of this form.
    """
    try:
        held = json.loads(Path(path).read_text(encoding="utf-8"))
        tables = [(t["common"], t["columns"], t["rows"]) for t in held["tables"]]
        return list(_rows(held["common"], tables))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} is not the JSON of a results page ({error!r}); write it anew with "
            "hybridgen report RUN --page FOLDER."
        ) from error


def _rows(
    known: Mapping[str, Any], tables: Iterable[tuple[dict[str, Any], list[str], list[Any]]]
) -> Iterable[dict[str, Any]]:
    for common, columns, rows in tables:
        for row in rows:
            yield {**known, **common, **dict(zip(columns, row, strict=True))}
