"""One task from beginning to end: done whole, or, where that fails, without those to blame.

A task whose drawing raises, takes too long or ends its process is searched for culprits, and drawn
again without them. Should all pass alone and the whole still fail (it may have been too much at
once), it is drawn in the parts that passed. A task that then still fails is random, and stops the
sweep; so does a store that cannot be written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hybridgen.errors import ExpertError
from hybridgen.sweeping.culprits import Fault, find_culprits
from hybridgen.sweeping.hands import Hand
from hybridgen.sweeping.outcome import SweepStoppedError
from hybridgen.sweeping.planning import Plan, Settings
from hybridgen.sweeping.records import Receipt
from hybridgen.sweeping.working import Recipe

__all__ = ["complete", "plan_with"]

PILOT = 64
FEW = 16


def complete(
    hand: Hand,
    task: int,
    bounds: tuple[int, int],
    limit: float | None,
    blame: Callable[[int, Fault], Any] = lambda member, fault: None,
) -> Receipt:
    """Do a task.

    Arguments:
        hand: Who draws and writes.
        task: The number of the task.
        bounds: Its first member, and the one after its last.
        limit: How long a drawing may take, in s.
        blame: Told of each member that is given up, as it is found.

    Returns:
        The receipt.

    Raises:
        SweepStoppedError: If the store cannot be written, or the task fails at random.
    """
    receipt, fault = _store(hand, task, Recipe(), limit)
    if receipt is not None:
        return receipt
    found = find_culprits(_trial(hand, limit), *bounds, blame)
    for parts in ([], sorted(found.passing)):
        longer = None if limit is None else limit * max(1, len(parts))
        receipt, fault = _store(hand, task, Recipe(found.lost, parts), longer)
        if receipt is not None:
            return receipt
    why = f"{fault.kind}: {fault.message}" if fault else ""
    raise SweepStoppedError(
        f"members {bounds[0]} to {bounds[1] - 1} fail now and then ({why}), though each "
        "passes by itself; a sampler must not depend on chance or on its history."
    )


def _store(
    hand: Hand, task: int, recipe: Recipe, limit: float | None
) -> tuple[Receipt | None, Fault | None]:
    state, value = hand.call("store", task, recipe, limit=limit)
    if state == "store":
        raise SweepStoppedError(f"task {task} could not be written: {value}.")
    return (value, None) if state == "done" else (None, value)


def _trial(hand: Hand, limit: float | None) -> Callable[[int, int], Fault | None]:
    def trial(start: int, stop: int) -> Fault | None:
        state, value = hand.call("attempt", start, stop, limit=limit)
        return None if state == "done" else value

    return trial


def plan_with(hand: Hand, settings: Settings, origin: Any, limit: float | None) -> Plan:
    """Make the plan on the first members that can be drawn.

    Arguments:
        hand: Who measures.
        settings: What is asked for.
        origin: Where the sampler comes from.
        limit: How long a drawing may take, in s.

    Raises:
        ExpertError: If the first few cannot be drawn, with the reasons.
    """
    longer = None if limit is None else 4.0 * limit  # a plan draws them more than once
    members = np.arange(PILOT)

    def measure(chosen: Any) -> tuple[str, Any]:
        return hand.call("plan", settings, chosen, origin, limit=longer)

    state, value = measure(members)
    if state != "done":
        found = find_culprits(_sampled(measure, members), 0, PILOT)
        good = np.concatenate([members[a:b] for a, b in sorted(found.passing)])
        state, value = measure(good)
    if state != "done":
        raise ExpertError(f"the sampler fails now and then: {value.kind}: {value.message}")
    return value


def _sampled(
    measure: Callable[[Any], tuple[str, Any]], members: Any
) -> Callable[[int, int], Fault | None]:
    """Return a trial that gives up when the first few members all fail alone."""
    failed: dict[int, Fault] = {}
    passed = []

    def trial(start: int, stop: int) -> Fault | None:
        state, value = measure(members[start:stop])
        if state == "done":
            passed.append(start)
            return None
        if stop - start == 1:
            failed[start] = value
        if len(failed) == FEW and not passed:
            kinds = {fault.kind: fault.message for fault in failed.values()}
            raise ExpertError(
                f"the first {FEW} members cannot be drawn, so no sweep was begun: "
                + "; ".join(f"{kind}: {message}" for kind, message in kinds.items())
            )
        return value

    return trial
