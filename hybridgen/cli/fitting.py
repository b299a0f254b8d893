"""Commands for a user's own data: fit, and predict from what was fitted."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from hybridgen.cli import options
from hybridgen.cli.console import (
    Device,
    Expert,
    JsonLines,
    Out,
    Overrides,
    Overwrite,
    Resume,
    Settings,
    app,
    show,
)
from hybridgen.cli.grouping import grouped
from hybridgen.cli.running import command, configure, execute
from hybridgen.errors import ConfigError

Until = Annotated[
    float | None, typer.Option(help="Last time that training sees; by default 70 % of the times.")
]
Noise = Annotated[str | None, typer.Option(help="gaussian (default) or log-normal.")]
Learners = Annotated[
    str | None, typer.Option(help="Some of expert_only,network_only,hybrid (all).")
]
OneSystem = Annotated[bool, typer.Option("--one-system", help="All runs are of one system.")]


@app.command("fit")
@grouped
def _fit(
    data: Annotated[
        Path | None, typer.Argument(help="CSV, netCDF, or a zarr store of hybridgen.")
    ] = None,
    *,
    expert: Expert = None,
    out: Out = None,
    until: Until = None,
    columns: options.Columns,
    noise: Noise = None,
    learners: Learners = None,
    one_system: OneSystem = False,
    config: Settings = None,
    overrides: Overrides = None,
    device: Device = None,
    overwrite: Overwrite = False,
    resume: Resume = False,
    json: JsonLines = False,
) -> None:
    """Fit a hybrid, its expert alone and a network alone to your data, and forecast their end."""
    from hybridgen.locating import load_experiment

    how = columns.reading()
    given = {
        "data": None if data is None else str(data.resolve()),
        "expert": None if expert is None else options.absolute(expert),
        "until": until,
        "noise": noise,
        "learners": learners and [name.strip() for name in learners.split(",")],
        "one_system": one_system or None,
        "device": device,
        "reading": how or None,
    }
    values = {k: v for k, v in given.items() if v is not None}
    folder = Path("runs", data.stem if data else "own_data") if out is None else out
    if resume and not config and (folder / "config.toml").is_file():
        config = folder / "config.toml"
    module = load_experiment("own_data")
    cfg = configure(module, "own_data", config, None, list(overrides or ()), values)
    _require(cfg)
    with options.as_options():
        execute(module, "own_data", cfg, folder, overwrite=overwrite, resume=resume, json=json)


def _require(cfg: Any) -> None:
    lacking = [name for name in ("data", "expert") if not getattr(cfg, name)]
    if lacking:
        raise ConfigError(
            f"no {' and no '.join(lacking)} given; write hybridgen fit DATA --expert FILE.py:NAME."
        )


@app.command("predict")
@grouped
def _predict(
    run: Annotated[Path, typer.Argument(help="The directory of a fit, or of a study.")],
    out: Annotated[Path, typer.Option(help="Where to write: .csv, .nc or .zarr.")],
    data: Annotated[
        Path | None, typer.Argument(help="New data; those of the run if left out.")
    ] = None,
    *,
    until: Annotated[float | None, typer.Option(help="Forecast until this time.")] = None,
    times: Annotated[
        str | None, typer.Option(help="Forecast at N times from A to B.", metavar="A:B:N")
    ] = None,
    learner: Annotated[
        str, typer.Option(help="hybrid, expert_only, network_only or another of the run.")
    ] = "hybrid",
    inference: Annotated[str | None, typer.Option(help="refined (default) or amortised.")] = None,
    expert: Expert = None,
    columns: options.Columns,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Infer the system from the window of new data, or of the run's own, and forecast it."""
    how = columns.reading()
    from hybridgen.cli.forecasts import Wanted, check_target, forecast, write
    from hybridgen.cli.trained import trained

    wanted = Wanted.of(until, times)
    check_target(out, overwrite)
    with trained(run, learner, expert) as found, options.as_options():
        predicted = forecast(found, data, how, wanted, inference)
        path = write(predicted.assign_attrs(command=shlex.join(command())), out)
    show(f"predicted {path}")
