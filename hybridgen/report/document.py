"""The HTML report of a run: one self-contained file that a browser opens and a printer prints."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from hybridgen.files import write_text_atomic
from hybridgen.naming import Row
from hybridgen.report import bench_sections, fits, sentences, tables
from hybridgen.report.fit_sections import fit_sections
from hybridgen.report.rows import is_benchmark, problems
from hybridgen.report.run import Run, facts, read_run
from hybridgen.report.sections import all_sections

__all__ = ["write_report"]

_CAPTION = (
    "A line is a learner, a column a test set by its distance from the training support in "
    "training widths; brackets are intervals (the range over seeds, of one seed the bootstrap "
    "over its members, or as published), bold is the best learner of a shifted test set, grey "
    "lines are reference levels."
)
_FIT_CAPTION = (
    "Errors on the times that were held back, which nothing but these scores has seen. “All” is "
    "over all states, in standard deviations of what training saw; bold is the best of a column, "
    "brackets are a bootstrap over runs, and grey is the mean of the data as a forecast."
)


def write_report(path: str | Path) -> Path:
    """Write `report.html` into a run directory.

    Arguments:
        path: The run directory, with `results.json` in it.

    Returns:
        The path of the report.

    Raises:
        DataError: The directory holds no results, or they are not as they should be.
    """
    from jinja2 import Environment, StrictUndefined

    run = read_run(path)
    source = resources.files("hybridgen.report").joinpath("template.html").read_text("utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    target = run.path / "report.html"
    write_text_atomic(target, environment.from_string(source).render(_content(run)))
    return target


def _content(run: Run) -> dict[str, Any]:
    """Return what the template shows."""
    if is_benchmark(run.rows):
        return {**bench_sections.content(run), "run": run, "facts": facts(run.provenance)}
    fitted = fits.is_fit(run.rows)
    return {
        "run": run,
        "title": _fit_title(run) if fitted else run.experiment,
        "parts": [
            _fit_part(title, rows) if fitted else _part(title, rows)
            for title, rows in problems(run.rows)
        ],
        "caption": _FIT_CAPTION if fitted else _CAPTION,
        "sections": fit_sections(run) if fitted else all_sections(run),
        "warnings": [w for _, rows in problems(run.rows) for w in sentences.warnings(rows)],
        "facts": facts(run.provenance),
    }


def _fit_title(run: Run) -> str:
    """Return what was fitted to what."""
    data = run.groups.get("forecast")
    source = "" if data is None else str(data.attrs.get("source", ""))
    problem = str(run.rows[0]["problem"])
    return f"{problem}, fitted to {source}" if source else f"{problem}, fitted to data"


def _part(title: str, rows: Sequence[Row]) -> dict[str, Any]:
    """Return headline and tables of one problem of a study."""
    by_parameter = tables.parameter_blocks(rows)
    points, found = tables.blocks(rows)
    return {
        "title": title,
        "headline": " ".join(sentences.headline(rows)),
        "heads": [tables.heading(p) for p in points],
        "blocks": found,
        "by_parameter_heads": [tables.heading(p) for p in by_parameter[0]],
        "by_parameter": by_parameter[1],
        "published": tables.published(rows),
        "extras": tables.extras(rows),
    }


def _fit_part(title: str, rows: Sequence[Row]) -> dict[str, Any]:
    """Return headline and table of errors of a fit to a user's data."""
    heads, block = fits.errors(rows)
    return {
        "title": title,
        "headline": " ".join(fits.headline(rows)),
        "heads": heads,
        "blocks": [block],
        "by_parameter_heads": [],
        "by_parameter": [],
        "published": [],
        "extras": ([], []),
    }
