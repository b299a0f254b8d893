"""Result rows as a table: one layout, drawn as text, Markdown or HTML.

A block is a metric, a line a learner, a column a test set by its distance from the training
support. The best value of each shifted test set is bold, reference levels aside.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hybridgen.naming import Row, label, ordered, row_name
from hybridgen.report.rows import ShiftPoint, find, problems, shift_points, summary

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "Block",
    "Cell",
    "Line",
    "blocks",
    "cell",
    "extras",
    "heading",
    "markdown",
    "number",
    "parameter_blocks",
    "plain",
    "published",
    "table",
]

METRICS = ("relative_error", "log_mse_summed", "failed")
REFERENCES = ("true_model", "published")
# The same errors averaged in another way: they stay in results.json.
OTHER_MEANS = ("log_mse", "relative_error_median")


@dataclass(frozen=True)
class Cell:
    """A value with its interval, as text; `best` where no learner does better."""

    text: str
    interval: str = ""
    best: bool = False


@dataclass(frozen=True)
class Line:
    """A learner and its cells, one for each test set."""

    name: str
    cells: tuple[Cell, ...]
    reference: bool = False


@dataclass(frozen=True)
class Block:
    """A metric and its lines."""

    title: str
    lines: tuple[Line, ...]


def number(value: float | None) -> str:
    """Return a number with about three figures, a dash for none.

    Example:
        >>> [number(v) for v in (None, 0.0123, 6.0, 66.04, 117.3, -3.1)]
        ['–', '0.012', '6.00', '66.0', '117', '−3.10']
    """
    if value is None or not math.isfinite(value):
        return "–"
    size = abs(value)
    if size >= 1e5:
        text = f"{value:.2e}"
    elif 0 < size < 0.1:
        text = f"{value:.2g}"
    else:
        text = f"{value:.{0 if size >= 100 else 1 if size >= 10 else 2}f}"
    return text.replace("-", "−")


def cell(row: Row | None, *, best: bool = False) -> Cell:
    """Return the cell of a row; counts have no decimals, and a dash stands for no row."""
    if row is None:
        return Cell("–")
    if row["metric"] == "failed":
        return Cell(f"{row['value']:.3g}")
    low, high = row["low"], row["high"]
    interval = "" if low is None or high is None else f"[{number(low)}, {number(high)}]"
    return Cell(number(row["value"]), interval, best)


def heading(point: ShiftPoint) -> str:
    """Return the words over a column: the test set and its distance."""
    far = "" if not point.distance else f" ({point.distance:.2g} widths)"
    return label(point.shift) + far


def blocks(rows: Sequence[Row]) -> tuple[list[ShiftPoint], list[Block]]:
    """Return the columns of the table of one problem, and a block for each metric."""
    chosen = [r for r in summary(rows) if r["parameter"] == "mean" and r["metric"] in METRICS]
    points, found = shift_points(chosen), []
    for metric in METRICS:
        mine = [r for r in chosen if r["metric"] == metric]
        if mine:
            unit = next((r["unit"] for r in mine if r["unit"] and metric != "failed"), "")
            lines = _lines(mine, points)
            lines = _with_failures(lines) if metric == "failed" else lines
            title = f"{label(metric)} ({unit})" if unit else label(metric)
            found.append(Block(title, tuple(lines)))
    return points, found


def parameter_blocks(rows: Sequence[Row]) -> tuple[list[ShiftPoint], list[Block]]:
    """Return the columns and a block of relative errors for each parameter of one problem."""
    chosen = [
        r for r in summary(rows) if r["metric"] == "relative_error" and r["parameter"] != "mean"
    ]
    points = shift_points(chosen)
    return points, [
        Block(f"relative error of {name} (%)", tuple(_lines(mine, points)))
        for name in dict.fromkeys(r["parameter"] for r in chosen)
        if (mine := [r for r in chosen if r["parameter"] == name])
    ]


def _lines(rows: Sequence[Row], points: Sequence[ShiftPoint]) -> list[Line]:
    """Return a line for each name in rows of one metric and parameter, published values below."""
    metric, parameter = rows[0]["metric"], rows[0]["parameter"]
    ours = [r for r in rows if r["learner"] != "published"]
    theirs = [r for r in rows if r["learner"] == "published"]
    ranked = [r for r in ours if r["learner"] not in REFERENCES and r["value"] is not None]
    lines = []
    for name in ordered(map(row_name, ours)):
        cells = []
        for point in points:
            row = find(ours, name, point.shift, metric, parameter)
            rivals = [r["value"] for r in ranked if r["shift"] == point.shift != "none"]
            wins = row is not None and row in ranked and row["value"] == min(rivals, default=None)
            cells.append(cell(row, best=wins))
        lines.append(Line(label(name), tuple(cells), reference=name in REFERENCES))
    for method in ordered(str(r["variant"]) for r in theirs):
        mine = [r for r in theirs if r["variant"] == method]
        cells = [cell(find(mine, "published", p.shift, metric, parameter)) for p in points]
        line = Line(f"published {label(method)}", tuple(cells), reference=True)
        beside = [i for i, other in enumerate(lines) if other.name == label(method)]
        lines.insert(beside[0] + 1 if beside else len(lines), line)
    return lines


def _with_failures(lines: list[Line]) -> list[Line]:
    """Return the lines that have failures, and one for all learners without."""
    clean = [line for line in lines if all(c.text == "0" for c in line.cells)]
    if len(clean) < 2:
        return lines
    words = "every learner" if len(clean) == len(lines) else "every other learner"
    return [*(line for line in lines if line not in clean), Line(words, clean[0].cells)]


def published(rows: Sequence[Row]) -> list[tuple[str, str, Cell, Cell]]:
    """Return learner, test set, our relative error and the published one, where one is."""
    metric, found = "relative_error", []
    chosen = [r for r in summary(rows) if (r["metric"], r["parameter"]) == (metric, "mean")]
    for r in chosen:
        if r["learner"] == "published" and r["value"] is not None:
            mine = find(chosen, str(r["variant"]), r["shift"], metric)
            found.append((label(str(r["variant"])), label(r["shift"]), cell(mine), cell(r)))
    return found


def extras(rows: Sequence[Row]) -> tuple[list[str], list[Line]]:
    """Return the other metrics in support (cost, diagnostics): headings, a line for each name."""
    chosen = [
        r
        for r in summary(rows)
        if r["metric"] not in (*METRICS, *OTHER_MEANS)
        and (r["shift"], r["parameter"]) == ("none", "mean")
    ]
    metrics = {r["metric"]: r["unit"] for r in chosen}
    words = {"share_fa": "share of f_a in dy/dt", "cosine_fa_expert": "cosine of f_a and expert"}
    heads = [
        words.get(m, m.replace("_", " ")) + (f" ({unit})" if unit not in (None, "", "1") else "")
        for m, unit in metrics.items()
    ]
    lines = [
        Line(label(name), tuple(cell(find(chosen, name, "none", m)) for m in metrics))
        for name in ordered(map(row_name, chosen))
    ]
    return heads, lines


def table(rows: Sequence[Row]) -> Table:
    """Return the results as a table for the terminal.

    Arguments:
        rows: Result rows.

    Returns:
        A section for each problem and metric, a line for each learner, a column for each test set.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    parts = [(title, *blocks(members)) for title, members in problems(rows)]
    points = shift_points(r for r in rows if r["metric"] in METRICS)
    drawn = Table(
        title=Text(", ".join(dict.fromkeys(str(r["experiment"]) for r in rows))),
        box=SIMPLE_HEAD,
        caption=Text("[low,high] is the interval; bold: the best learner of a shifted test set"),
    )
    drawn.add_column("", overflow="fold")
    for point in points:
        drawn.add_column(Text(heading(point)), justify="right")
    for title, columns, found in parts:
        at = {p.shift: i for i, p in enumerate(columns)}
        for block in found:
            words = block.title if len(parts) == 1 else f"{title}: {block.title}"
            drawn.add_row(Text(words, style="italic"))
            for i, line in enumerate(block.lines):
                cells = [line.cells[at[p.shift]] if p.shift in at else Cell("") for p in points]
                texts = [
                    Text.assemble(
                        (c.text, "bold" if c.best else ""),
                        (f" {c.interval.replace(', ', ',')}" if c.interval else "", "dim"),
                    )
                    for c in cells
                ]
                drawn.add_row(Text(line.name), *texts, end_section=i + 1 == len(block.lines))
    return drawn


def plain(text: object) -> str:
    r"""Return text that Markdown shows as it is, on one line.

    Example:
        >>> print(plain("omega_0|<b>"))
        omega\_0\|&lt;b&gt;
    """
    flat = (
        " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    )
    return re.sub(r"([\\`*_{}\[\]|#~])", r"\\\1", flat)


def markdown(heads: Sequence[str], lines: Sequence[Sequence[str | Cell]]) -> str:
    """Return a Markdown table; the first column is words, the others are numbers."""

    def show(c: str | Cell) -> str:
        if isinstance(c, str):
            return plain(c)
        value = f"**{c.text}**" if c.best else c.text
        return f"{value} {c.interval}" if c.interval else value

    head = [plain(h) for h in heads]
    rule = [":--", *["--:"] * (len(head) - 1)]
    return "\n".join(
        "| " + " | ".join(r) + " |" for r in [head, rule, *[[show(c) for c in ln] for ln in lines]]
    )
