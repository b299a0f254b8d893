"""The page of an experiment in docs/results: Markdown, its JSON twin and one picture."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from hybridgen import plots
from hybridgen.errors import DataError
from hybridgen.files import write_text_atomic
from hybridgen.naming import Row
from hybridgen.report import bench_sections, fits, sentences, tables
from hybridgen.report.rows import is_benchmark, problems
from hybridgen.report.run import Run, facts, read_run
from hybridgen.report.sections import error_panels
from hybridgen.report.twin import twin_text

__all__ = ["results_page", "write_results_page"]


def results_page(path: str | Path) -> str:
    """Return the Markdown page of a run: headline, tables, published values, how it was run.

    Arguments:
        path: The run directory.

    Raises:
        DataError: The directory holds no results, or the experiment's name cannot name a file.
    """
    return _page(read_run(path, diagnostics=False))


def write_results_page(run_dir: str | Path, folder: str | Path) -> Path:
    """Write the page, its JSON twin (rows and provenance) and its picture into a folder.

    Arguments:
        run_dir: The run directory.
        folder: Where to write `<experiment>.md`, `.json` and `.png`; made if it is not there.

    Returns:
        The path of the page.

    Raises:
        DataError: The directory holds no results, or the experiment's name cannot name a file.
    """
    run = read_run(run_dir, diagnostics=False)
    stem, folder = _stem(run), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_text_atomic(folder / f"{stem}.json", twin_text(run.provenance, run.rows))
    if is_benchmark(run.rows):
        bench_sections.save_picture(run.rows, folder / f"{stem}.png")
    elif panels := error_panels(run.rows):
        with plots.style():
            rows = -(-len(panels) // 2)
            fig = plots.figure(5.6 * min(2, len(panels)), 3.7 * rows)
            axes = fig.subplots(rows, min(2, len(panels)), squeeze=False).ravel()
            for ax, (_, members, metric) in zip(axes, panels, strict=False):
                plots.error_against_shift(members, metric, ax)
            for ax in axes[len(panels) :]:
                ax.remove()
            plots.save(fig, folder / f"{stem}.png")
    write_text_atomic(folder / f"{stem}.md", _page(run))
    return folder / f"{stem}.md"


def _stem(run: Run) -> str:
    """Return the experiment's name, if it can name a file."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", run.experiment):
        raise DataError(
            f"the experiment is called {run.experiment!r}; expected a name that can name a file: "
            "letters, digits, and . _ + - after the first"
        )
    return run.experiment


def _fit_parts(rows: Sequence[Row]) -> list[str]:
    """Return headline, errors and parameters of a fit to a user's data."""
    parts = [tables.plain(" ".join(fits.headline(rows)))]
    heads, errors = fits.errors(rows)
    found = [(errors.title, heads, errors)]
    heads, estimates = fits.estimates(rows)
    found += [("parameter", heads, estimates)] if estimates.lines else []
    for title, heads, block in found:
        lines: list[list[str | tables.Cell]] = [[ln.name, *ln.cells] for ln in block.lines]
        parts.append(tables.markdown([title, *heads], lines))
    return parts


def _page(run: Run) -> str:
    stem = _stem(run)
    body = bench_sections.page_parts if is_benchmark(run.rows) else _study_parts
    return "\n\n".join([f"# {tables.plain(stem)}", *body(run.rows, stem), *_origin(run)]) + "\n"


def _study_parts(run_rows: Sequence[Row], stem: str) -> list[str]:
    """Return headlines, tables and warnings of a study or a fit."""
    several, parts = len(problems(run_rows)) > 1, list[str]()
    pictured = False
    for title, rows in problems(run_rows):
        if several:
            parts.append(f"## {tables.plain(title)}")
        if fits.is_fit(rows):
            parts += _fit_parts(rows)
            continue
        parts.append(tables.plain(" ".join(sentences.headline(rows))))
        if not pictured and error_panels(run_rows):
            parts.append(f"![Error against shift]({stem}.png)")
            pictured = True
        points, found = tables.blocks(rows)
        heads = [tables.heading(p) for p in points]
        for block in found:
            lines: list[list[str | tables.Cell]] = [[ln.name, *ln.cells] for ln in block.lines]
            parts.append(tables.markdown([block.title, *heads], lines))
        if beside := tables.published(rows):
            parts.append("Published values beside ours (relative error, %):")
            parts.append(tables.markdown(["learner", "test set", "ours", "published"], beside))
        parts += [f"Warning: {tables.plain(w)}" for w in sentences.warnings(rows)]
    if not fits.is_fit(run_rows):
        parts.append(
            "Bold is the best learner of a shifted test set, the true-model fit a reference. "
            "Brackets are the range over seeds, of one seed the bootstrap over its members, or as "
            "published."
        )
    return parts


def _origin(run: Run) -> list[str]:
    """Return how it was run, and where the rows are."""
    stem, parts = _stem(run), ["## How it was run"]
    if run.provenance is None:
        parts.append("The run directory holds no provenance.json.")
    else:
        told = dict(facts(run.provenance))
        if command := told.pop("command", ""):
            parts.append("\n".join("    " + line for line in command.splitlines()))
        parts.append("\n".join(f"- {tables.plain(k)}: {tables.plain(v)}" for k, v in told.items()))
    parts.append(
        f"Every row, with this provenance: [{stem}.json]({stem}.json), for "
        "`hybridgen.report.twin_rows`."
    )
    return parts
