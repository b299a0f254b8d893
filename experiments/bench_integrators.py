"""Batched integrators against each other: time for a result of the same accuracy.

Pendulums and driven circuits on 101 times 0.1 s apart, fields of reaction and diffusion, circuits
of which one in a hundred is stiff, and what one bad member costs the others. How it is measured is
told by `hybridgen.experiments.benchmarking`, on what by `hybridgen.experiments.
benchmarking_problems`. `--set device=cuda --set members=1000000` measures a GPU, and
what part of what it could do at most is reached.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from hybridgen.experiments.benchmarking import (
    Absent,
    Contestant,
    Row,
    Ruler,
    chosen,
    contest,
    in_turn,
    result_row,
)
from hybridgen.experiments.benchmarking_peers import CONTESTANTS, entrants
from hybridgen.experiments.benchmarking_problems import bad_members, make_problem
from hybridgen.experiments.benchmarking_roofline import fractions

from hybridgen.config import config
from hybridgen.rundir import RunDir

__all__ = ["CONFIGS", "Config", "main"]

NAME = "bench_integrators"
RIVALS = ("hybridgen compiled", "hybridgen eager", "torchdiffeq dopri5")
FLAWS = {
    "": {"nan": False, "diverging": False},
    ", a NaN": {"nan": True, "diverging": False},
    ", a diverging member": {"nan": False, "diverging": True},
    ", one of each": {"nan": True, "diverging": True},
}
TOLERANCE = 1e-6

Work = Literal["pendulum", "rlc", "reaction_diffusion", "stiff", "bad_member"]


@config
class Config:
    """Settings of the benchmark.

    Arguments:
        works: What is to be done.
        members: How many pendulums and circuits.
        fields: How many fields.
        stiff: How many circuits, of which one in a hundred is stiff.
        bad: How many pendulums, of which one is bad; each number is a work of its own.
        times: How many save times.
        dt: The time between them, in s.
        dtypes: In which precisions; `stiff` and `bad_member` take the first alone.
        contestants: Names of contestants or libraries; all for none.
        target: The largest error of a contestant in float64.
        target_float32: The same in float32, whose rounding does not allow as much.
        target_stiff: The same for stiff circuits.
        rounds: How often everyone is measured.
        least_s: How long a measurement takes at least, in s.
        seed: The seed of the draw.
        device: Where the tensors are.
    """

    works: tuple[Work, ...] = ("pendulum", "rlc", "reaction_diffusion", "stiff", "bad_member")
    members: int = 10_000
    fields: int = 64
    stiff: int = 4096
    bad: tuple[int, ...] = (10_000, 256)
    times: int = 101
    dt: float = 0.1
    dtypes: tuple[Literal["float64", "float32"], ...] = ("float64", "float32")
    contestants: tuple[str, ...] = ()
    target: float = 2e-6
    target_float32: float = 2e-5
    target_stiff: float = 1e-5
    rounds: int = 5
    least_s: float = 0.1
    seed: int = 0
    device: str = "cpu"


CONFIGS: dict[str, dict[str, Any]] = {
    "small": {
        "members": 50,
        "fields": 2,
        "stiff": 200,
        "bad": (64,),
        "times": 11,
        "dtypes": ("float64",),
        "contestants": ("hybridgen eager", "torchdiffeq", "scipy"),
        "rounds": 2,
        "least_s": 0.0,
    }
}


def main(cfg: Config, run: RunDir) -> list[Row]:
    """Run the benchmark."""
    works: dict[tuple[str, str], Callable[[], list[Row]]] = {}
    for work in cfg.works:
        if work == "bad_member":
            for n in cfg.bad:
                works[f"bad_member of {n}", cfg.dtypes[0]] = partial(_bad, cfg, n)
            continue
        for dtype in cfg.dtypes[:1] if work == "stiff" else cfg.dtypes:
            works[work, dtype] = partial(_speed, cfg, work, dtype)
    return in_turn(run, works)


def _ruler(cfg: Config) -> Ruler:
    return Ruler(cfg.rounds, cfg.least_s, cfg.device)


def _speed(cfg: Config, work: str, dtype: str) -> list[Row]:
    """Return the rows of a work in one precision."""
    sizes = {"reaction_diffusion": cfg.fields, "stiff": cfg.stiff}
    size = sizes.get(work, cfg.members)
    problem = make_problem(work, size, cfg.times, cfg.dt, cfg.seed)
    target = cfg.target if dtype == "float64" else cfg.target_float32
    target = cfg.target_stiff if work == "stiff" else target
    who = entrants(problem, dtype, cfg.device, cfg.contestants)
    same = {"experiment": NAME, "work": work, "dtype": dtype}
    rows = contest(who, _ruler(cfg), target, size=size, **same)
    return rows + fractions(rows, cfg.times)


def _bad(cfg: Config, members: int) -> list[Row]:
    """Return what bad members cost, and how many others they change in any bit."""
    same = {"experiment": NAME, "work": f"bad_member of {members}", "dtype": cfg.dtypes[0]}
    rows = []
    for name in [n for n in chosen(CONTESTANTS, cfg.contestants) if n in RIVALS]:
        found: list[Contestant | Absent] = []
        outcomes: dict[str, Any] = {}
        for what, flaws in FLAWS.items():
            problem = bad_members(members, cfg.times, cfg.dt, cfg.seed, **flaws)
            (one,) = entrants(problem, cfg.dtypes[0], cfg.device, [name])
            if isinstance(one, Contestant):
                title = f"{name}{what}"
                keep = partial(_keep, outcomes, title, one.error)
                one = dataclasses.replace(one, name=title, ladder=(TOLERANCE,), error=keep)
            found.append(one)
        rows += contest(found, _ruler(cfg), math.inf, **same)
        clean = outcomes.get(name)
        for title, outcome in outcomes.items():
            changed = (outcome != clean).reshape(len(outcome), -1).any(axis=1).sum()
            rows.append(result_row(
                **same, contestant=title, device=cfg.device, metric="others_changed",
                value=int(changed), unit="1",
            ))  # fmt: skip
    return rows


def _keep(
    outcomes: dict[str, Any], name: str, error: Callable[[Any], float], outcome: Any
) -> float:
    """Return the error of an outcome, and keep it by name."""
    outcomes[name] = outcome
    return error(outcome)
