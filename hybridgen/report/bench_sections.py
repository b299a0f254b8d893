"""What the rows of a benchmark say: who did a piece of work in which time, at which error.

A work, in one precision on one device, is a table: a line for each contestant, a column for each
metric, beside them the largest error and the knob. The first metric of a work is its time: by it
contestants are ranked, and drawn as bars on a logarithmic scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridgen import plots
from hybridgen.naming import Row
from hybridgen.report.run import Run
from hybridgen.report.sections import WIDTH, Section
from hybridgen.report.tables import Block, Cell, Line, cell, markdown, number, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import RenderableType

__all__ = [
    "content", "grid", "headline", "page_parts", "save_picture", "terminal_table", "works",
]  # fmt: skip

# What is no contestant but a bound that nobody can pass.
FLOOR = "memory write alone"
# What a terminal has no room for.
_ASIDE = ("throughput", "first_call")
_COLOURS = {
    "hybridgen": "#0072B2",
    "torchdiffeq": "#E69F00",
    "torchode": "#CC79A7",
    "diffrax": "#009E73",
    "jax": "#56B4E9",
    "scipy": "#8C7853",
}
_CAPTION = (
    "Times are medians over the rounds, in which the contestants took turns, in brackets the "
    "quickest and the slowest round; a time is that of the processor, or on a GPU wall time. Bold "
    "is the quickest contestant, grey a bound. “Error” is the largest one against a tight "
    "reference, at the loosest setting (last column) that keeps it within the target."
)


def works(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Return the rows of each work, precision and device, with a title."""
    keys = "work", "dtype", "device"
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[k] for k in keys), []).append(row)
    return [
        (", ".join(str(k).replace("_", " ") for k in key if k), rs) for key, rs in found.items()
    ]


def _contestants(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(str(r["contestant"]) for r in rows))


def _rivals(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of one work that compete by their first metric, the quickest first.

    What stands before the contestant that all are compared with is a part of its work.
    """
    names = _contestants(rows)
    base = next((r["ratio_to"] for r in rows if r["ratio_to"] in names), names[0])
    there = set(names[names.index(base) :]) - {FLOOR}
    timed = [r for r in _timed(rows) if r["contestant"] in there]
    return sorted(timed, key=lambda r: r["value"])


def _timed(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of the first metric of one work that have a value."""
    return [r for r in rows if r["metric"] == rows[0]["metric"] and r["value"] is not None]


def grid(rows: Sequence[Row]) -> tuple[list[str], Block]:
    """Return the table of one work: headings, and a line for each contestant that took part.

    Arguments:
        rows: The rows of the work.
    """
    rows = [r for r in rows if r["value"] is not None] or rows
    metrics = {r["metric"]: r["unit"] for r in rows}
    compared = {r["metric"]: _compared(rows, r["metric"]) for r in rows if r["ratio_to"]}
    heads = []
    for metric, unit in metrics.items():
        words = metric.replace("_", " ")
        heads.append(words if unit in (None, "", "1") else f"{words} ({unit})")
        heads += [compared[metric]] if metric in compared else []
    has_error = any(r["error"] is not None for r in rows)
    has_knob = any(r["knob"] for r in rows)
    best = next((r["contestant"] for r in _rivals(rows)), None)
    lines = []
    for name in _contestants(rows):
        mine = {r["metric"]: r for r in rows if r["contestant"] == name}
        cells = []
        for i, metric in enumerate(metrics):
            cells.append(_cell(mine.get(metric), interval=i == 0, best=i == 0 and name == best))
            if metric in compared:
                cells.append(Cell(number(mine[metric]["ratio"] if metric in mine else None)))
        error = next((r["error"] for r in mine.values() if r["error"] is not None), None)
        cells += [Cell(number(error))] if has_error else []
        knob = next((str(r["knob"]) for r in mine.values() if r["knob"]), "")
        cells += [Cell(knob)] if has_knob else []
        lines.append(Line(name, tuple(cells), name == FLOOR))
    heads += ["error"] * has_error + ["setting"] * has_knob
    return heads, Block("", tuple(lines))


def _compared(rows: Sequence[Row], metric: str) -> str:
    """Return the words over the ratios of a metric."""
    bases = {r["ratio_to"] for r in rows if r["metric"] == metric and r["ratio_to"]}
    return f"× {bases.pop()}" if len(bases) == 1 else "ratio"


def _cell(row: Row | None, *, interval: bool, best: bool) -> Cell:
    """Return the cell of a row; counts have no decimals."""
    if row is None or row["value"] is None:
        return Cell("–")
    if isinstance(row["value"], int):
        return Cell(f"{row['value']:,}")
    return cell(row, best=best) if interval else Cell(number(row["value"]))


def headline(rows: Sequence[Row]) -> str:
    """Return sentences on who is quickest in one work, by how much, and who could not take part.

    Arguments:
        rows: The rows of the work.
    """
    ranked = _rivals(rows)
    there = {r["contestant"] for r in rows if r["value"] is not None}
    absent: dict[str, list[str]] = {}
    for r in rows:
        if r["contestant"] not in there:
            absent.setdefault(str(r["knob"]).rstrip(". "), []).append(str(r["contestant"]))
    if not ranked:
        said = "No contestant finished."
    else:
        said = f"Quickest: {ranked[0]['contestant']}, {_time(ranked[0])}"
        if len(ranked) > 2:
            said += f"; next: {_times(ranked[1], ranked[0])}"
        if len(ranked) > 1:
            said += f"; slowest: {_times(ranked[-1], ranked[0])}"
        said += "."
    left = "; ".join(f"{', '.join(names)} ({why})" for why, names in absent.items())
    return f"{said} Left out: {left}." if left else said


def _time(row: Row) -> str:
    what = "of processor time" if row["metric"] == "cpu_time" else ""
    return f"{number(row['value'])} {row['unit']} {what}".rstrip()


def _times(row: Row, first: Row) -> str:
    return f"{row['contestant']}, {number(row['value'] / first['value'])} times as long"


def page_parts(rows: Sequence[Row], stem: str) -> list[str]:
    """Return the Markdown of a benchmark: a picture, and for each work a headline and a table.

    Arguments:
        rows: All rows.
        stem: The name of the picture, without its ending.
    """
    parts = [f"![Time of each contestant]({stem}.png)"]
    for title, members in works(rows):
        heads, block = grid(members)
        lines: list[list[str | Cell]] = [[ln.name, *ln.cells] for ln in block.lines]
        parts += [f"## {plain(title)}", plain(headline(members)), markdown(["", *heads], lines)]
    return [*parts, _CAPTION]


def content(run: Run) -> dict[str, Any]:
    """Return what the template of the report shows of a benchmark, beside the run itself."""
    parts = []
    for title, rows in works(run.rows):
        heads, block = grid(rows)
        parts.append({
            "title": title, "headline": headline(rows), "heads": heads, "blocks": [block],
            "by_parameter_heads": [], "by_parameter": [], "published": [], "extras": ([], []),
        })  # fmt: skip
    section = Section("times", "Times", "Shorter is quicker; the scale is logarithmic.")
    panels = _panels(run.rows)
    section.draw(WIDTH, _height(panels), partial(_draw, panels), "Time of each contestant")
    return {
        "title": run.experiment,
        "parts": parts,
        "caption": _CAPTION,
        "sections": [section],
        "warnings": [],
    }


def save_picture(rows: Sequence[Row], path: Path) -> None:
    """Draw the times of all works as bars on a logarithmic scale, and save the picture.

    Arguments:
        rows: All rows.
        path: Where to.
    """
    with plots.style():
        panels = _panels(rows)
        fig = plots.figure(WIDTH, _height(panels))
        _draw(panels, fig)
        plots.save(fig, path)


def _panels(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Return title and times of each work, in the order of the rows."""
    found = []
    for title, members in works(rows):
        if timed := [r for r in _timed(members) if r["value"] > 0]:
            found.append((title, timed))
    return found


def _height(panels: Sequence[tuple[str, list[Row]]]) -> float:
    pairs = [panels[i : i + 2] for i in range(0, len(panels), 2)]
    return max(1.5, sum(0.9 + 0.24 * max(len(rows) for _, rows in pair) for pair in pairs))


def _draw(panels: Sequence[tuple[str, list[Row]]], fig: Figure) -> None:
    if not panels:
        return
    count = -(-len(panels) // 2)
    heights = [max(len(rows) for _, rows in panels[2 * i : 2 * i + 2]) + 3 for i in range(count)]
    columns = min(2, len(panels))
    axes = fig.subplots(count, columns, squeeze=False, gridspec_kw={"height_ratios": heights})
    for ax, (title, rows) in zip(axes.ravel(), panels, strict=False):
        _bars(title, rows, ax)
    for ax in axes.ravel()[len(panels) :]:
        ax.remove()


def _bars(title: str, rows: Sequence[Row], ax: Axes) -> None:
    """Draw one bar for each contestant, with its ratio behind it."""
    names = [str(r["contestant"]) for r in rows]
    colours = [_COLOURS.get(name.partition(" ")[0], "#BBBBBB") for name in names]
    bars = ax.barh(range(len(rows)), [r["value"] for r in rows], color=colours, height=0.7)
    ratios = ["" if r["ratio"] is None else f"× {number(r['ratio'])}" for r in rows]
    ax.bar_label(bars, ratios, padding=3, fontsize=7.5)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.xaxis.set_minor_formatter("")
    ax.margins(x=0.15)
    ax.set_yticks(range(len(rows)), names, fontsize=8)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.grid(visible=False, axis="y")
    metric, unit = str(rows[0]["metric"]).replace("_", " "), rows[0]["unit"]
    ax.set_xlabel(f"{metric} ({unit})", fontsize=8)
    ax.set_title(title, fontsize=9)


def terminal_table(rows: Sequence[Row]) -> RenderableType:
    """Return the results as tables for the terminal, one for each work.

    Arguments:
        rows: All rows.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    drawn = []
    for title, members in works(rows):
        heads, block = grid([r for r in members if r["metric"] not in _ASIDE])
        table = Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD)
        table.add_column("", no_wrap=True)
        for head in heads:
            words = Text("ratio" if head.startswith("×") else head)
            table.add_column(words, justify="left" if head == "setting" else "right")
        for line in block.lines:
            texts = [Text(c.text, "bold" if c.best else "") for c in line.cells]
            table.add_row(Text(line.name), *texts)
        drawn.append(table)
    return Group(*drawn)
