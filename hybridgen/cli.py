"""The command `hybridgen`: look, check, run, report.

Nothing heavy is imported before a command needs it, so that `hybridgen --help` answers at once.
A mistake of the user's is one sentence on standard error and exit code 2; an interruption is
exit code 130 and the command to go on with.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from hybridgen.errors import ConfigError, HybridgenError, nearest
from hybridgen.version import __version__

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["app"]


class _Interrupted(KeyboardInterrupt):
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
            hint = (
                f"; go on with: {interruption}" if isinstance(interruption, _Interrupted) else ""
            )
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


def _complain(text: str) -> None:
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True, soft_wrap=True).print(Text(text, style="red"))


def _print(what: Any) -> None:
    """Print to standard output; a text is neither wrapped nor read as markup."""
    from rich.console import Console
    from rich.text import Text

    is_text = isinstance(what, str)
    Console(soft_wrap=is_text).print(Text(what) if is_text else what)


def _version(wanted: bool) -> None:
    if wanted:
        _print(f"hybridgen {__version__}")
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


@app.command("run")
def _run(
    name: Annotated[str, typer.Argument(help="An experiment of `hybridgen list`.")],
    config: Annotated[Path | None, typer.Option(help="Its configuration, a TOML file.")] = None,
    preset: Annotated[str | None, typer.Option(help="A configuration that it brings.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="One value, as stages.0.steps=200; repeatable."),
    ] = None,
    out: Out = None,
    device: Device = None,
    overwrite: Overwrite = False,
    resume: Resume = False,
) -> None:
    """Run an experiment: rows, a table and a report in a directory of its own."""
    from hybridgen.locating import load_experiment

    folder = Path("runs", name) if out is None else out
    module = load_experiment(name)
    chosen = [*(overrides or ()), *([f"device={device}"] if device else ())]
    if resume and not (config or preset or chosen) and (folder / "config.toml").is_file():
        config = folder / "config.toml"
    cfg = _configure(module, name, config, preset, chosen)
    _execute(module, name, cfg, folder, overwrite=overwrite, resume=resume)


@app.command("demo")
def _demo(out: Out = None, overwrite: Overwrite = False, resume: Resume = False) -> None:
    """Run the demonstration: a pendulum, an expert without damping, a shift; about two minutes."""
    _run("demo", out=out, overwrite=overwrite, resume=resume)


def _configure(
    module: ModuleType,
    name: str,
    file: Path | None,
    preset: str | None,
    overrides: list[str],
) -> Any:
    """Return the configuration: a file or a preset or the defaults, then the overrides."""
    from hybridgen.config import from_mapping, load_toml, with_overrides

    if file and preset:
        raise ConfigError("--config and --preset exclude each other; write one.")
    if file:
        return with_overrides(load_toml(module.Config, file), overrides)
    presets: Mapping[str, Mapping[str, Any]] = getattr(module, "CONFIGS", {})
    if preset and preset not in presets:
        raise ConfigError(
            f"experiment {name!r} has no preset {preset!r}; {nearest(preset, presets)}"
        )
    values = presets[preset] if preset else {}
    return with_overrides(from_mapping(module.Config, values), overrides)


def _usable(device: str) -> str:
    """Return a device after making sure that there is such a one."""
    import torch

    try:
        torch.zeros(1, device=device).sum()
    except (RuntimeError, AssertionError) as error:
        # torch says so with an error of either kind, at length
        why = str(error).partition("\n")[0]
        raise ConfigError(
            f"device {device!r} cannot be used here ({why}); `hybridgen doctor` lists what can."
        ) from None
    return device


def _execute(
    module: ModuleType, name: str, cfg: Any, out: Path, *, overwrite: bool, resume: bool
) -> None:
    """Run an experiment in its directory, then show the table and write the report."""
    from hybridgen.report import table, write_report
    from hybridgen.rundir import RunDir

    device = _usable(getattr(cfg, "device", "cpu"))
    run = RunDir.create(
        out,
        experiment=name,
        config=cfg,
        command=["hybridgen", *sys.argv[1:]],
        device=device,
        overwrite=overwrite,
        resume=resume,
    )
    try:
        with run:
            rows = module.main(cfg, run)
            run.write_rows(rows)
    except KeyboardInterrupt:
        again = ["hybridgen", "run", name, "--out", str(out), "--resume"]
        raise _Interrupted(shlex.join(again)) from None
    _print(table(run.read_rows()))
    _print(f"report {write_report(run.path)}")


@app.command("report")
def _report(
    run: Annotated[Path, typer.Argument(help="The directory of a run.")],
    page: Annotated[
        Path | None, typer.Option(help="A folder for a Markdown page, its rows and its picture.")
    ] = None,
) -> None:
    """Draw the report of a run again."""
    from hybridgen.report import write_report, write_results_page

    _print(f"report {write_report(run)}")
    if page is not None:
        _print(f"page {write_results_page(run, page)}")


@app.command("list")
def _list() -> None:
    """List the experiments and the simulators."""
    from rich.table import Table

    from hybridgen.locating import experiments, simulators

    for title, members in (("experiments", experiments()), ("simulators", simulators())):
        table = Table(title=title, title_justify="left", box=None, show_header=False)
        for name, line in members.items():
            table.add_row(name, line)
        _print(table)


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
    _print_checks(target, [(c.name, c.passed, c.detail) for c in report.checks])
    if not report.passed:
        raise typer.Exit(1)


@app.command("doctor")
def _doctor() -> None:
    """Look whether this machine has what hybridgen needs."""
    from hybridgen.installation import examine

    findings = examine()
    _print_checks(f"hybridgen {__version__}", findings)
    if not all(passed for _, passed, _ in findings):
        raise typer.Exit(1)


def _print_checks(title: str, checks: list[tuple[str, bool, str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", box=None, show_header=False)
    for name, passed, detail in checks:
        mark = Text("ok", style="green") if passed else Text("FAIL", style="bold red")
        table.add_row(mark, Text(name), Text(detail))
    _print(table)
