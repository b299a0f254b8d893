"""The HTML report of a run: one self-contained file that a browser opens and a printer prints."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from hybridgen.files import write_text_atomic
from hybridgen.report import sentences, tables
from hybridgen.report.rows import problems
from hybridgen.report.run import Run, facts, read_run
from hybridgen.report.sections import all_sections

__all__ = ["write_report"]


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
    parts = []
    for title, rows in problems(run.rows):
        by_parameter = tables.parameter_blocks(rows)
        points, found = tables.blocks(rows)
        parts.append(
            {
                "title": title,
                "headline": " ".join(sentences.headline(rows)),
                "heads": [tables.heading(p) for p in points],
                "blocks": found,
                "by_parameter_heads": [tables.heading(p) for p in by_parameter[0]],
                "by_parameter": by_parameter[1],
                "published": tables.published(rows),
                "extras": tables.extras(rows),
            }
        )
    return {
        "run": run,
        "parts": parts,
        "sections": all_sections(run),
        "warnings": [w for _, rows in problems(run.rows) for w in sentences.warnings(rows)],
        "facts": facts(run.provenance),
    }
