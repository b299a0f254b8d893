"""Commands that look: is this machine, is this expert, as it should be?"""

from __future__ import annotations

from typing import Annotated

import typer

from hybridgen.cli.console import app, show, show_checks
from hybridgen.version import __version__


@app.command("list")
def _list() -> None:
    """List the experiments and the simulators."""
    from rich.table import Table

    from hybridgen.locating import experiments, simulators

    for title, members in (("experiments", experiments()), ("simulators", simulators())):
        table = Table(title=title, title_justify="left", box=None, show_header=False)
        for name, line in members.items():
            table.add_row(name, line)
        show(table)


@app.command("check")
def _check(
    target: Annotated[
        str, typer.Argument(help="FILE.py:NAME or package.module:NAME", metavar="TARGET")
    ],
) -> None:
    """Check an expert of your own: shapes, batches, gradients, dtypes, speed."""
    from hybridgen.locating import expert_of, load_object

    with load_object(target) as value:
        expert = expert_of(value, target.rpartition(":")[2])
        from hybridgen.testing import check_expert

        report = check_expert(expert)
    show_checks(target, [(c.name, c.passed, c.detail) for c in report.checks])
    if not report.passed:
        raise typer.Exit(1)


@app.command("doctor")
def _doctor() -> None:
    """Look whether this machine has what hybridgen needs."""
    from hybridgen.installation import examine

    findings = examine()
    show_checks(f"hybridgen {__version__}", findings)
    if not all(passed for _, passed, _ in findings):
        raise typer.Exit(1)
