"""Commands that write data sets: expert augmentation of a trained hybrid, and simulations."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from hybridgen.cli import options
from hybridgen.cli.console import Expert, app, show
from hybridgen.cli.running import command
from hybridgen.errors import ConfigError, ExpertError, OutputExistsError, nearest

Store = Annotated[Path, typer.Option("--out", help="The zarr store to write.", metavar="STORE")]
Count = Annotated[int, typer.Option("-n", help="How many members.", min=1)]
Seed = Annotated[int, typer.Option(help="Seed of every draw.")]
Replace = Annotated[bool, typer.Option("--overwrite", help="Replace the store.")]


@app.command("augment")
def _augment(
    run: Annotated[Path, typer.Argument(help="The directory of a fit, or of a study.")],
    out: Store,
    n: Count,
    ranges: Annotated[
        list[str] | None,
        typer.Option(
            "--range",
            help="Where to draw a parameter; its valid range if left out; repeatable.",
            metavar="NAME=LOW:HIGH",
        ),
    ] = None,
    seed: Seed = 0,
    learner: Annotated[str, typer.Option(help="A hybrid of the run.")] = "hybrid",
    expert: Expert = None,
    overwrite: Replace = False,
) -> None:
    """Simulate a trained hybrid over wider ranges: an augmented data set for other methods."""
    wanted = {name: _interval(name, text) for name, text in _ranges(ranges).items()}
    _check_store(out, overwrite)
    from hybridgen.augmentation import expert_augment
    from hybridgen.cli.trained import trained

    with trained(run, learner, expert) as found:
        data = expert_augment(found.model, found.train(), wanted).sample(n, seed=seed)
    attrs = {**found.attrs(), "command": shlex.join(command())}
    _write(out, "augmented", data.assign_attrs(attrs), overwrite)


def _ranges(given: list[str] | None) -> dict[str, str]:
    return options.pairs(given, "--range NAME=LOW:HIGH, such as --range omega0=0.5:3.5")


def _interval(name: str, text: str) -> tuple[float, float]:
    try:
        low, high = map(float, text.split(":"))
    except ValueError:
        raise ConfigError(
            f"got the range {text!r} for {name!r}; write --range {name}=LOW:HIGH, two numbers."
        ) from None
    return low, high


@app.command("simulate")
def _simulate(
    name: Annotated[str, typer.Argument(help="A simulator of `hybridgen list`, or FILE.py:NAME.")],
    out: Store,
    n: Count,
    shift: Annotated[str | None, typer.Option(help="One of its shifts.")] = None,
    split: Annotated[str, typer.Option(help="train, valid or test: streams of their own.")] = (
        "train"
    ),
    variant: Annotated[str | None, typer.Option(help="One of its variants.")] = None,
    seed: Seed = 0,
    overwrite: Replace = False,
) -> None:
    """Draw a data set from a simulator: noisy observations with the true parameters."""
    from hybridgen.locating import load_object, simulators

    target = name
    if ":" not in name:
        known = simulators()
        if name not in known:
            raise ExpertError(
                f"no simulator {name!r}; {nearest(name, known)} (one of your own is FILE.py:NAME)"
            )
        target = f"hybridgen.simulators.{name}:{'variants' if variant else 'simulator'}"
    _check_store(out, overwrite)
    with load_object(target) as value:
        data = _chosen(value, name, variant).sample(n, seed=seed, split=split, shift=shift)
    group = f"ood/{shift}" if shift else split
    attrs = {"simulator": name, "command": shlex.join(command())}
    _write(out, group, data.assign_attrs(attrs), overwrite)


def _chosen(value: Any, name: str, variant: str | None) -> Any:
    """Return the simulator that an object is, or that a mapping of variants has."""
    from hybridgen.simulator import Simulator

    if variant and isinstance(value, dict):
        if variant not in value:
            raise ExpertError(f"{name} has no variant {variant!r}; {nearest(variant, value)}")
        value = value[variant]
    elif variant:
        raise ExpertError(f"{name} has no variants; leave --variant out.")
    if not isinstance(value, Simulator):
        raise ExpertError(f"{name} is a {type(value).__name__}; name a Simulator.")
    return value


def _check_store(out: Path, overwrite: bool) -> None:
    """Raise before the work rather than after it."""
    if out.exists() and not (overwrite and (out / "zarr.json").is_file()):
        raise OutputExistsError(
            f"{out} is there already; give another path"
            f"{'' if overwrite else ', or write --overwrite to replace a store'}."
        )
    if not out.absolute().parent.is_dir():
        raise OutputExistsError(f"there is no folder {out.parent} to write {out.name} into.")


def _write(out: Path, group: str, data: Any, overwrite: bool) -> None:
    from hybridgen.store import write_store

    show(f"group {group} of {write_store(out, {group: data}, overwrite=overwrite)}")
