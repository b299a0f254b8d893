"""Commands that run experiments and draw their reports."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hybridgen.cli.console import (
    Device,
    JsonLines,
    Out,
    Overrides,
    Overwrite,
    Resume,
    Settings,
    app,
    show,
)
from hybridgen.cli.running import configure, execute


@app.command("run")
def _run(
    name: Annotated[str, typer.Argument(help="An experiment of `hybridgen list`.")],
    config: Settings = None,
    preset: Annotated[str | None, typer.Option(help="A configuration that it brings.")] = None,
    overrides: Overrides = None,
    out: Out = None,
    device: Device = None,
    overwrite: Overwrite = False,
    resume: Resume = False,
    json: JsonLines = False,
) -> None:
    """Run an experiment: rows, a table and a report in a directory of its own."""
    from hybridgen.locating import load_experiment

    folder = Path("runs", name) if out is None else out
    module = load_experiment(name)
    chosen = [*(overrides or ()), *([f"device={device}"] if device else ())]
    if resume and not (config or preset or chosen) and (folder / "config.toml").is_file():
        config = folder / "config.toml"
    cfg = configure(module, name, config, preset, chosen)
    execute(module, name, cfg, folder, overwrite=overwrite, resume=resume, json=json)


@app.command("demo")
def _demo(
    out: Out = None, overwrite: Overwrite = False, resume: Resume = False, json: JsonLines = False
) -> None:
    """Run the demonstration: a pendulum, an expert without damping, a shift; about two minutes."""
    _run("demo", out=out, overwrite=overwrite, resume=resume, json=json)


@app.command("report")
def _report(
    run: Annotated[Path, typer.Argument(help="The directory of a run.")],
    page: Annotated[
        Path | None, typer.Option(help="A folder for a Markdown page, its rows and its picture.")
    ] = None,
) -> None:
    """Draw the report of a run again."""
    from hybridgen.report import write_report, write_results_page

    show(f"report {write_report(run)}")
    if page is not None:
        show(f"page {write_results_page(run, page)}")
