"""Samplers by the names that a command line has for them, now or in the plan of a sweep."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hybridgen.errors import DataError, ExpertError, nearest

__all__ = ["augmenter_of", "sampler_of", "simulator_of"]


@contextlib.contextmanager
def simulator_of(name: str, variant: str | None, split: str, shift: str | None) -> Iterator[Any]:
    """Yield a simulator; meanwhile the folder of its file can be imported from.

    Arguments:
        name: A simulator of `hybridgen list`, or where one of the user's own is.
        variant: One of its variants.
        split: The name of the data set.
        shift: One of its shifts.

    Raises:
        ExpertError: If there is none of that name.
    """
    from hybridgen.locating import load_object, simulators

    target = name
    if ":" not in name:
        known = simulators()
        if name not in known:
            raise ExpertError(
                f"no simulator {name!r}; {nearest(name, known)} (one of your own is FILE.py:NAME)"
            )
        target = f"hybridgen.simulators.{name}:{'variants' if variant else 'simulator'}"
    with load_object(target) as value:
        yield _chosen(value, name, variant).under(shift, split=split)


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


@contextlib.contextmanager
def augmenter_of(
    run: str, learner: str, expert: str | None, ranges: Mapping[str, tuple[float, float]]
) -> Iterator[tuple[Any, dict[str, str]]]:
    """Yield an augmenter and what a file that was made with it says of the model.

    Arguments:
        run: The directory of a fit, or of a study.
        learner: A hybrid of the run.
        expert: Where its expert is; None for what the run says.
        ranges: The interval of each parameter.
    """
    from hybridgen.augmentation import expert_augment
    from hybridgen.cli.trained import trained

    with trained(Path(run), learner, expert) as found:
        yield expert_augment(found.model, found.train(), ranges), found.attrs()


@contextlib.contextmanager
def sampler_of(origin: Mapping[str, Any], target: str | None, store: Path) -> Iterator[Any]:
    """Yield the sampler that a sweep drew from.

    What a file says is not imported: only a simulator of this package is, others must be named.

    Arguments:
        origin: What the plan says of it.
        target: What the user says instead: where a simulator is, or the directory of a run.
        store: The folder of the store, for error messages.

    Raises:
        DataError: If the user has to name it.
    """
    if "simulate" in origin:
        said = origin["simulate"]
        name = target or said["name"]
        if target is None and ":" in name:
            raise DataError(
                f"{store} was drawn from {name}; to repair it, write --from {name}, and that "
                "file is imported."
            )
        with simulator_of(name, said["variant"], said["split"], said["shift"]) as simulator:
            yield simulator
    elif "augment" in origin:
        said = origin["augment"]
        if target is None:
            raise DataError(
                f"{store} was drawn from the run {said['run']}; to repair it, write "
                f"--from {said['run']}."
            )
        ranges = {k: (float(a), float(b)) for k, (a, b) in said["ranges"].items()}
        with augmenter_of(target, said["learner"], said["expert"], ranges) as (augmenter, _):
            yield augmenter
    else:
        raise DataError(
            f"{store} does not say what it was drawn from; repair it in Python: "
            "hybridgen.sweeping.repair(sampler, store, verify(store))."
        )
