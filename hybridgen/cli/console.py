"""The application, and how every command speaks: tables, sentences and exit codes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from hybridgen.errors import HybridgenError
from hybridgen.version import __version__

__all__ = [
    "Device",
    "Expert",
    "Interrupted",
    "JsonLines",
    "Out",
    "Overrides",
    "Overwrite",
    "Resume",
    "Settings",
    "app",
    "show",
    "show_checks",
]


class Interrupted(KeyboardInterrupt):
    """An interruption that knows how to go on."""


class _Group(TyperGroup):
    """Commands whose errors are sentences."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (HybridgenError, PermissionError, NotADirectoryError) as error:
            if ctx.params.get("traceback"):
                raise
            _complain(str(error))
            raise typer.Exit(2) from None
        except KeyboardInterrupt as interruption:
            hint = f"; go on with: {interruption}" if isinstance(interruption, Interrupted) else ""
            _complain(f"interrupted{hint}")
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Hybrid physics-ML models that hold outside their training range.",
)

Out = Annotated[Path | None, typer.Option(help="Directory of the run; runs/NAME if left out.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Move an old run aside first.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")]
Device = Annotated[str | None, typer.Option(help="Torch device, such as cpu or cuda.")]
Settings = Annotated[Path | None, typer.Option("--config", help="A configuration, a TOML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="One value, as stages.0.steps=200; repeatable."),
]
JsonLines = Annotated[
    bool, typer.Option("--json", help="Tell progress as lines of JSON on standard output.")
]
Expert = Annotated[
    str | None,
    typer.Option(help="Your expert: FILE.py:NAME or package.module:NAME.", metavar="TARGET"),
]


def _complain(text: str) -> None:
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True, soft_wrap=True).print(Text(text, style="red"))


def show(what: Any) -> None:
    """Print to standard output; a text is neither wrapped nor read as markup."""
    from rich.console import Console
    from rich.text import Text

    is_text = isinstance(what, str)
    Console(soft_wrap=is_text).print(Text(what) if is_text else what)


def show_checks(title: str, checks: Iterable[tuple[str, bool, str]]) -> None:
    """Print findings as a table.

    Arguments:
        title: The line above it.
        checks: Name, whether it is well, and a detail.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", box=None, show_header=False)
    for name, passed, detail in checks:
        mark = Text("ok", style="green") if passed else Text("FAIL", style="bold red")
        table.add_row(mark, Text(name), Text(detail))
    show(table)


def _version(wanted: bool) -> None:
    if wanted:
        show(f"hybridgen {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where in the code an error arose.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    # the group reads --traceback from its parameters, and --version has its callback
    del traceback, version
