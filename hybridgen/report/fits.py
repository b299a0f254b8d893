"""What the rows of a fit to a user's data say: errors by learner, parameters, who wins.

Such rows are scored on the times that were held back (shift "horizon"). Errors are on the scale
of the noise, `rms_log` for log-normal noise and `rms` else, a row for each state; `rms_sd` is over
all states, in standard deviations of what training saw. `estimate` is an inferred parameter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from hybridgen.naming import Row, label, ordered, row_name
from hybridgen.report.rows import find, summary
from hybridgen.report.tables import Block, Cell, Line, cell, extras, number

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "errors", "estimates", "headline", "is_fit", "residual_lines", "strengths", "terminal_table",
]  # fmt: skip

HORIZON = "horizon"
SCALED = "rms_sd"


def is_fit(rows: Iterable[Row]) -> bool:
    """Whether rows are of a fit to a user's data."""
    return any(r["shift"] == HORIZON for r in rows)


def _metric(rows: Iterable[Row]) -> str:
    """Return the metric of the errors state by state."""
    return "rms_log" if any(r["metric"] == "rms_log" for r in rows) else "rms"


def errors(rows: Sequence[Row]) -> tuple[list[str], Block]:
    """Return the table of errors on the held-back times: headings, and a line for each learner.

    Arguments:
        rows: Result rows of one problem.
    """
    chosen = [r for r in summary(rows) if r["shift"] == HORIZON]
    metric = _metric(chosen)
    states = {r["parameter"]: r["unit"] for r in chosen if r["metric"] == metric}
    columns = [(metric, name) for name in states] + [(SCALED, "mean"), ("log_mse_summed", "mean")]
    if any(r["metric"] == "relative_error" for r in chosen):
        columns.append(("relative_error", "mean"))
    heads = [f"ln {s}" if metric == "rms_log" else f"{s} ({u})" for s, u in states.items()]
    words = "all (sd)", "log sq. error (nat)", "parameters (%)"
    heads += words[: len(columns) - len(states)]
    names = ordered(map(row_name, chosen))
    found = {(name, c): find(chosen, name, HORIZON, c[0], c[1]) for name in names for c in columns}
    lines = []
    for name in names:
        cells = []
        for c in columns:
            values = [r["value"] for n in names if (r := found[n, c]) is not None]
            row = found[name, c]
            cells.append(cell(row, best=row is not None and row["value"] == min(values)))
        lines.append(Line(label(name), tuple(cells), reference=name == "mean"))
    failed = [r for r in chosen if r["metric"] == "failed" and r["value"]]
    if failed:
        heads.append("failed")
        lost = {row_name(r): r for r in failed}
        for i, name in enumerate(names):
            text = cell(lost[name]) if name in lost else Cell("0")
            lines[i] = Line(lines[i].name, (*lines[i].cells, text), lines[i].reference)
    title = "rms error of the logarithm" if metric == "rms_log" else "rms error"
    return heads, Block(title, tuple(lines))


def estimates(rows: Sequence[Row]) -> tuple[list[str], Block]:
    """Return the table of parameters: headings, and a line for each parameter with its unit.

    Arguments:
        rows: Result rows of one problem.
    """
    chosen = [r for r in summary(rows) if r["metric"] == "estimate"]
    names = ordered(map(row_name, chosen))
    lines = []
    for parameter, unit in {r["parameter"]: r["unit"] for r in chosen}.items():
        cells = [find(chosen, n, "none", "estimate", parameter) for n in names]
        lines.append(Line(parameter, (Cell(unit), *map(cell, cells))))
    return ["unit", *map(label, names)], Block("", tuple(lines))


def strengths(rows: Sequence[Row]) -> tuple[list[str], Block]:
    """Return how well each strength of the penalty forecast the end of the window.

    Arguments:
        rows: Result rows of one problem.
    """
    chosen = [r for r in summary(rows) if r["metric"] == "rolling_origin"]
    best = min((r["value"] for r in chosen if r["value"] is not None), default=None)
    cells = tuple(cell(r, best=r["value"] == best) for r in chosen)
    heads = [r["parameter"] for r in chosen]
    title = "Forecast of the end of the window from its first part"
    return heads, Block(title, (Line("rms error (sd)", cells),) if cells else ())


def residual_lines(rows: Sequence[Row]) -> tuple[list[str], Block]:
    """Return share and cosine of f_a beside cost: headings, and a line for each learner."""
    heads, lines = extras([r for r in rows if r["metric"] not in ("estimate", "rolling_origin")])
    return heads, Block("", tuple(lines))


def headline(rows: Sequence[Row]) -> list[str]:
    """Return sentences on who forecasts the held-back times best, and by how much.

    Arguments:
        rows: Result rows of one problem.
    """
    chosen = [r for r in summary(rows) if r["shift"] == HORIZON and r["metric"] == SCALED]
    ranked = sorted((r for r in chosen if r["value"] is not None), key=lambda r: r["value"])
    best_of: dict[str, Row] = {}
    for r in ranked:
        best_of.setdefault(r["learner"], r)
    learners = [r for r in best_of.values() if r["learner"] != "mean"]
    where = f"On the held-back times ({rows[0]['variant'].replace('until', 'after')})"
    if not learners:
        return [f"{where} no learner has a score."]
    winner, others = learners[0], learners[1:]
    of = "the logarithm of what" if _metric(rows) == "rms_log" else "what"
    said = (
        f"{where}, {label(row_name(winner))} forecasts best: its rms error is "
        f"{number(winner['value'])} standard deviations of {of} training saw"
    )
    if others:
        less = 1.0 - winner["value"] / others[0]["value"]
        said += f", {less:.0%} less than that of {_scored(others[0])}"
    rest = [_scored(r) for r in others[1:]]
    said += f"; {_listed(rest)} {'follows' if len(rest) == 1 else 'follow'}." if rest else "."
    found = [said]
    if "mean" in best_of:
        level = best_of["mean"]["value"]
        beaten = [r for r in learners if r["value"] >= level]
        if beaten:
            names = _listed([label(row_name(r)) for r in beaten])
            found.append(
                f"{names} forecast no better than the mean of the data ({number(level)})."
            )
    return [*found, *_verdict(best_of)]


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _scored(row: Row) -> str:
    return f"{label(row_name(row))} ({number(row['value'])})"


def _verdict(best_of: dict[str, Row]) -> list[str]:
    """Return whether what the hybrid learnt beside the expert helps."""
    hybrid, alone = best_of.get("aphynity"), best_of.get("expert_only")
    if hybrid is None or alone is None:
        return []
    if hybrid["value"] >= alone["value"]:
        return ["What the hybrid learnt beside the expert does not help it to forecast."]
    less = 1.0 - hybrid["value"] / alone["value"]
    return [f"What the hybrid learnt beside the expert takes {less:.0%} off the expert's error."]


def terminal_table(rows: Sequence[Row]) -> list[Table]:
    """Return errors and parameters of a fit as tables for the terminal.

    Arguments:
        rows: Result rows.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    def drawn(title: str, heads: Sequence[str], block: Block) -> Any:
        table = Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD)
        table.add_column("")
        for head in heads:
            table.add_column(Text(head), justify="right", overflow="fold")
        for line in block.lines:
            texts = [
                Text.assemble(
                    (c.text, "bold" if c.best else ""),
                    (f" {c.interval.replace(', ', ',')}" if c.interval else "", "dim"),
                )
                for c in line.cells
            ]
            table.add_row(Text(line.name), *texts)
        return table

    variant = str(rows[0]["variant"]).replace("until", "after")
    heads, block = errors(rows)
    tables = [drawn(f"{block.title} on the held-back times, {variant}", heads, block)]
    heads, block = estimates([r for r in rows if r["inference"] == "refined"] or rows)
    if block.lines:
        tables.append(drawn("parameters [90 %]", heads, block))
    return tables
