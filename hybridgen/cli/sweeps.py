"""What commands that sweep have in common, and the command that verifies what they wrote."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from hybridgen.cli.console import Interrupted, JsonLines, app, show
from hybridgen.cli.running import command
from hybridgen.errors import ConfigError, OutputExistsError, UnsupportedError

Store = Annotated[Path, typer.Option("--out", help="The zarr store to write.", metavar="STORE")]
Count = Annotated[int, typer.Option("-n", help="How many members.", min=1)]
Seed = Annotated[int, typer.Option(help="Seed of every draw.")]
Replace = Annotated[bool, typer.Option("--overwrite", help="Move an old store aside first.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with an interrupted sweep, or add a group.")
]
Force = Annotated[
    bool, typer.Option("--force", help="Take the lock of a process that is no longer at work.")
]
Workers = Annotated[
    int | None,
    typer.Option(help="Processes; one a processor if left out, 0 for this one, unguarded.", min=0),
]
Scheduler = Annotated[
    str | None, typer.Option(help="Address of a dask scheduler.", metavar="ADDRESS")
]
Limit = Annotated[
    float | None, typer.Option(help="Seconds after which a member is given up.", metavar="SECONDS")
]
Single = Annotated[bool, typer.Option("--float32", help="Store single precision.")]
Device = Annotated[str, typer.Option(help="Torch device, such as cpu or cuda.")]

__all__ = ["Way", "client_of", "fill"]


@dataclass(frozen=True)
class Way:
    """How a store is to be filled: the options of a command that sweeps.

    Arguments:
        out: The store.
        n: How many members.
        seed: The seed of every draw.
        resume: Whether to go on with what is there.
        overwrite: Whether to move it aside.
        force: Whether to take the lock of another process.
        workers: How many processes.
        scheduler: The address of a dask scheduler.
        wall_limit: Seconds after which a member is given up.
        float32: Whether to store single precision.
        device: The torch device.
        json: Whether to tell progress as lines of JSON.
    """

    out: Store
    n: Count
    seed: Seed = 0
    resume: Resume = False
    overwrite: Replace = False
    force: Force = False
    workers: Workers = None
    scheduler: Scheduler = None
    wall_limit: Limit = None
    float32: Single = False
    device: Device = "cpu"
    json: JsonLines = False

    def check(self) -> None:
        """Raise before the work rather than after it."""
        if self.resume and self.overwrite:
            raise ConfigError("--overwrite and --resume exclude each other; write one.")
        replaceable = self.overwrite and (self.out / "zarr.json").is_file()
        if self.out.exists() and not self.resume and not replaceable:
            how = ", or write --resume to go on with it, or --overwrite to move it aside"
            raise OutputExistsError(
                f"{self.out} is there already; give another path{'' if self.overwrite else how}."
            )
        if not self.out.absolute().parent.is_dir():
            raise OutputExistsError(
                f"there is no folder {self.out.parent} to write {self.out.name} into."
            )


def fill(sampler: Any, way: Way, attrs: Mapping[str, str], origin: Mapping[str, Any]) -> None:
    """Fill a store and say how that went.

    Arguments:
        sampler: What to draw from.
        way: How.
        attrs: What the data set says of where it comes from.
        origin: The same, for `hybridgen verify`.
    """
    from hybridgen.progress import json_lines
    from hybridgen.sweeping import move_aside, sweep

    if way.overwrite:
        move_aside(way.out)
    try:
        with client_of(way.scheduler) as client, _maybe(json_lines, way.json):
            result = sweep(
                sampler,
                way.n,
                way.out,
                seed=way.seed,
                client=client,
                workers=way.workers,
                force=way.force,
                wall_limit=way.wall_limit,
                dtype="float32" if way.float32 else None,
                device=way.device,
                attrs={**attrs, "command": shlex.join(command())},
                origin=origin,
            )
    except KeyboardInterrupt:
        again = [word for word in command() if word not in ("--overwrite", "--resume")]
        raise Interrupted(shlex.join([*again, "--resume"])) from None
    if way.json:
        _emit("finished", out=str(way.out), group=result.group, **result.counts)
    else:
        show(f"group {result.group} of {result.store}")
        show(result.summary)


@contextlib.contextmanager
def client_of(address: str | None) -> Iterator[Any]:
    """Yield a client of the dask cluster at an address; None without one.

    Raises:
        UnsupportedError: If dask is not installed.
        ConfigError: If nobody answers there.
    """
    if address is None:
        yield None
        return
    try:
        from distributed import Client
    except ImportError:
        raise UnsupportedError(
            'a dask cluster needs dask: pip install "hybridgen[dask]".'
        ) from None
    try:
        client = Client(address, timeout=30)
    except (OSError, ValueError) as error:
        raise ConfigError(f"no dask scheduler answers at {address}: {error}") from None
    with client:
        yield client


def _maybe(context: Any, wanted: bool) -> Any:
    return context() if wanted else contextlib.nullcontext()


def _emit(event: str, **facts: Any) -> None:
    from hybridgen.progress import emit

    emit(event, **facts)


@app.command("verify")
def _verify(
    store: Annotated[Path, typer.Argument(help="A store that `simulate` or `augment` wrote.")],
    group: Annotated[str | None, typer.Option(help="One of its groups; all if left out.")] = None,
    wanted: Annotated[
        bool, typer.Option("--repair", help="Do again what is damaged or not done yet.")
    ] = False,
    target: Annotated[
        str | None,
        typer.Option("--from", help="For --repair: your FILE.py:NAME, or the directory of a run."),
    ] = None,
    force: Force = False,
    workers: Workers = None,
    scheduler: Scheduler = None,
    wall_limit: Limit = None,
    json: JsonLines = False,
) -> None:
    """Look whether every byte of a sweep is as it was written; exit code 1 if not."""
    from hybridgen.cli.origins import sampler_of
    from hybridgen.progress import json_lines
    from hybridgen.sweeping import groups_of, origin_of, repair, verify

    well = True
    for name in [group] if group else groups_of(store):
        found = verify(store, name)
        for flaw in found.flaws:
            show(flaw)
        if not found.intact or (wanted and found.unfinished):
            if wanted:
                with (
                    sampler_of(origin_of(store, name), target, store) as sampler,
                    client_of(scheduler) as client,
                    _maybe(json_lines, json),
                ):
                    how = {"client": client, "workers": workers, "wall_limit": wall_limit}
                    repair(sampler, store, found, **how, force=force)
                found = verify(store, name)
            well = well and found.intact
        state = "intact" if found.intact else f"{len(found.flaws)} flaws"
        rest = f", {found.unfinished} tasks not done yet (--resume)" if found.unfinished else ""
        show(f"group {name} of {store}: {found.tasks} tasks, {state}{rest}")
    if not well:
        raise typer.Exit(1)
