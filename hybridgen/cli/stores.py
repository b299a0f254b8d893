"""Commands that write data sets: expert augmentation of a trained hybrid, and simulations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hybridgen.cli import options
from hybridgen.cli.console import Expert, app
from hybridgen.cli.grouping import grouped
from hybridgen.cli.sweeps import Way, fill
from hybridgen.errors import ConfigError


@app.command("augment")
@grouped
def _augment(
    run: Annotated[Path, typer.Argument(help="The directory of a fit, or of a study.")],
    *,
    way: Way,
    ranges: Annotated[
        list[str] | None,
        typer.Option(
            "--range",
            help="Where to draw a parameter; its valid range if left out; repeatable.",
            metavar="NAME=LOW:HIGH",
        ),
    ] = None,
    learner: Annotated[str, typer.Option(help="A hybrid of the run.")] = "hybrid",
    expert: Expert = None,
) -> None:
    """Simulate a trained hybrid over wider ranges: an augmented data set for other methods."""
    wanted = {name: _interval(name, text) for name, text in _ranges(ranges).items()}
    way.check()
    from hybridgen.cli.origins import augmenter_of

    origin: dict[str, Any] = {
        "run": str(run),
        "learner": learner,
        "expert": expert,
        "ranges": wanted,
    }
    with augmenter_of(**origin) as (augmenter, attrs):
        fill(augmenter, way, attrs, {"augment": origin})


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
@grouped
def _simulate(
    name: Annotated[
        str,
        typer.Argument(help="A simulator of `hybridgen list`, FILE.py:NAME or MODULE:NAME."),
    ],
    *,
    way: Way,
    shift: Annotated[str | None, typer.Option(help="One of its shifts.")] = None,
    split: Annotated[str, typer.Option(help="train, valid or test: streams of their own.")] = (
        "train"
    ),
    variant: Annotated[str | None, typer.Option(help="One of its variants.")] = None,
) -> None:
    """Draw a data set from a simulator: noisy observations with the true parameters."""
    from hybridgen.cli.origins import simulator_of

    origin: dict[str, Any] = {
        "name": options.absolute(name),
        "variant": variant,
        "split": split,
        "shift": shift,
    }
    with simulator_of(**origin) as simulator:
        way.check()
        fill(simulator, way, {"simulator": name}, {"simulate": origin})
