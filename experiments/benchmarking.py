r"""The ruler of the benchmarks: who does a piece of work in which time, at which error.

A *contestant* does the work with a knob (a tolerance, or a number of substeps). Its ladder of
knobs goes from loose to tight, and it races with the loosest whose error is within the target:

.. math:: \max_{n, t, c} |y_{n,t,c} - y^{\mathrm{ref}}_{n,t,c}| \le \mathrm{target}.

All contestants run in one process, pinned to one core with one thread each, and take turns: each
round measures every one of them once, so that whatever else the machine does falls on all alike.
A measurement repeats short work until it takes `least_s` in all. On a CPU the time is that of the
processor, all threads together; on a GPU it is wall time from one idle device to the next. The
result is the median over the rounds; compilation and warming up are not in it, the first call
(wall time) is a figure of its own.

A row is one number: `work, contestant, knob, device, dtype, metric, value, low, high, unit, error,
ratio_to, ratio`, with the smallest and largest round as `low` and `high`, and `ratio` the value in
units of that of the contestant `ratio_to`. A contestant whose library is not installed has a row
without a value that says so.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from hybridgen.experiments.benchmarking_machine import one_core, synchronise

from hybridgen.errors import ConfigError, nearest
from hybridgen.progress import Progress, bar
from hybridgen.report.rows import BENCHMARK_COLUMNS
from hybridgen.rundir import RunDir

__all__ = [
    "Absent",
    "Contestant",
    "Ready",
    "Row",
    "Ruler",
    "chosen",
    "contest",
    "in_turn",
    "race",
    "result_row",
    "tune",
]

STRIDE = 4

Row = dict[str, Any]
Call = Callable[[], Any]


@dataclass(frozen=True)
class Ruler:
    """How is measured.

    Arguments:
        rounds: How often every contestant has its turn.
        least_s: How long a measurement takes at least, in s.
        device: The torch device of the work.
    """

    rounds: int = 5
    least_s: float = 0.1
    device: str = "cpu"

    @property
    def metric(self) -> str:
        """What the time is called: that of the processor, or on a GPU wall time."""
        return "cpu_time" if self.device == "cpu" else "wall_time"

    def clock(self) -> float:
        """Return the time in s, on a GPU after all work there is done."""
        if self.device == "cpu":
            return time.process_time()
        synchronise(self.device)
        return time.perf_counter()


@dataclass(frozen=True)
class Contestant:
    """Someone who can do a piece of work.

    Arguments:
        name: A library and what of it, such as `"torchdiffeq dopri5"`.
        prepare: Returns for a knob the call that does the work once; it returns only when all is
            done. What it keeps compiled belongs to that one call.
        outcome: What is compared, an array of float64, from what the call returned.
        error: The largest error of the outcome.
        ladder: The knobs, the loosest first.
        knob: What the knob is, such as `"rtol"`.
        search: Used instead of `prepare` to look for the knob, where that is quicker and must
            give the same error.
        scale: How much larger the work is than what the call does of it.
        remark: What else the row says beside the knob.
    """

    name: str
    prepare: Callable[[Any], Call]
    outcome: Callable[[Any], Any]
    error: Callable[[Any], float]
    ladder: Sequence[Any] = (None,)
    knob: str = ""
    search: Callable[[Any], Call] | None = None
    scale: float = 1.0
    remark: str = ""


@dataclass(frozen=True)
class Absent:
    """A contestant that cannot take part.

    Arguments:
        name: Its name.
        why: Why not.
    """

    name: str
    why: str


@dataclass(frozen=True)
class Ready:
    """A contestant with its knob, warmed up.

    Arguments:
        contestant: Who.
        call: Does the work once.
        knob: The knob, in words.
        error: The largest error.
        first_s: Wall time of the first call, in s.
    """

    contestant: Contestant
    call: Call
    knob: str
    error: float
    first_s: float


def tune(contestant: Contestant, target: float) -> Ready | Absent:
    """Return a contestant with the loosest knob whose error is within the target.

    The ladder is climbed four rungs at a time, then the gap is halved. Where no knob is good
    enough, it is the most accurate one, and its knob says so.

    Arguments:
        contestant: Who; a call that raises counts as an infinite error.
        target: The largest error allowed.

    Returns:
        The contestant, warmed up; absent if every knob raises.

    Example:
        >>> ladder = Contestant("toy", lambda m: lambda: 1.0 / m, float, abs, (1, 2, 4, 8, 16))
        >>> tune(ladder, 0.2).knob
        '8'
    """
    ladder, tried = contestant.ladder, dict[int, float]()
    reason = [""]
    search = contestant.search or contestant.prepare

    def error(i: int) -> float:
        if i not in tried:
            tried[i] = _attempt(contestant, search, ladder[i], reason)[0]
        return tried[i]

    low, high = -1, 0
    while error(high) > target and high < len(ladder) - 1:
        low, high = high, min(high + STRIDE, len(ladder) - 1)
    while error(high) <= target and high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if error(middle) <= target else (middle, high)
    last = high + STRIDE if error(high) <= target else 0
    if not last:
        high = min(tried, key=lambda i: (tried[i], i))
    best = None
    # what was looked for in another way may need a little more
    for knob in ladder[high : max(last, high + 1)]:
        found, call, first = _attempt(contestant, contestant.prepare, knob, reason)
        if call is not None and (best is None or found < best.error):
            words = _words(contestant, knob, met=found <= target)
            best = Ready(contestant, call, words, found, first)
        if found <= target:
            break
    return best or Absent(contestant.name, f"failed: {reason[0]}")


def _words(contestant: Contestant, knob: Any, *, met: bool) -> str:
    value = f"{knob:.2g}" if isinstance(knob, float) else str(knob)
    setting = "" if knob is None else f"{contestant.knob} {value}".strip()
    parts = [setting, contestant.remark, "" if met else "target not met"]
    return ", ".join(filter(None, parts))


def _attempt(
    contestant: Contestant, prepare: Callable[[Any], Call], knob: Any, reason: list[str]
) -> tuple[float, Call | None, float]:
    """Return error, call and wall time of the first call; a call that raises is infinitely off."""
    start = time.perf_counter()
    try:
        call = prepare(knob)
        result = call()
    except (ArithmeticError, AssertionError, RuntimeError, TypeError, ValueError) as raised:
        # a solver's way to say that it cannot: the row of a contestant that never can tells it
        reason[0] = f"{type(raised).__name__}: {str(raised).strip().partition(chr(10))[0]:.120}"
        return math.inf, None, 0.0
    first = time.perf_counter() - start
    found = contestant.error(contestant.outcome(result))
    return (found if math.isfinite(found) else math.inf), call, first


def race(contestants: Sequence[Ready], ruler: Ruler) -> list[list[float]]:
    """Return the times of each contestant, in s for one piece of work, `rounds` of them.

    Arguments:
        contestants: Who, warmed up.
        ruler: How to measure.
    """
    repeats = [_repeats(one.call, ruler) for one in contestants]
    found: list[list[float]] = [[] for _ in contestants]
    for i in range(ruler.rounds):
        order = [(i + j) % len(contestants) for j in range(len(contestants))]
        for j in order:
            start = ruler.clock()
            for _ in range(repeats[j]):
                contestants[j].call()
            spent = ruler.clock() - start
            found[j].append(spent / repeats[j] * contestants[j].contestant.scale)
    return found


def _repeats(call: Call, ruler: Ruler) -> int:
    start = ruler.clock()
    call()
    return max(1, math.ceil(ruler.least_s / max(ruler.clock() - start, 1e-6)))


def chosen(names: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Return the contestants that are wanted, in their own order; all for none.

    Arguments:
        names: All names.
        wanted: Names, or libraries, such as `"torchdiffeq"` for all of it.

    Raises:
        ConfigError: If a wanted one is none of the names.
    """
    for want in wanted:
        if not any(_matches(name, want) for name in names):
            raise ConfigError(f"no contestant {want!r}; {nearest(want, names)}")
    return [n for n in names if not wanted or any(_matches(n, want) for want in wanted)]


def _matches(name: str, want: str) -> bool:
    return name == want or name.startswith(f"{want} ")


def result_row(**values: Any) -> Row:
    """Return a row with the columns in order and None for what is not given.

    Example:
        >>> row = result_row(work="pendulum", metric="cpu_time", value=0.5, unit="s")
        >>> row["work"], row["ratio"]
        ('pendulum', None)
    """
    unknown = set(values) - set(BENCHMARK_COLUMNS)
    if unknown:
        raise ConfigError(
            f"no column {min(unknown)!r}; {nearest(min(unknown), BENCHMARK_COLUMNS)}"
        )
    return {column: values.get(column) for column in BENCHMARK_COLUMNS}


def contest(
    entrants: Sequence[Contestant | Absent],
    ruler: Ruler,
    target: float,
    *,
    size: int = 0,
    **same: Any,
) -> list[Row]:
    """Tune and race the contestants, and return their rows.

    Arguments:
        entrants: Who; the first one that finishes is what the others are compared with.
        ruler: How to measure.
        target: The largest error allowed.
        size: How many systems the work has; with it rows say how many are done in a second.
        **same: Columns that are the same for all: `experiment`, `work`, `dtype`.

    Returns:
        For each contestant its time, its throughput and its first call.
    """
    ready, absent = [], list[Absent]()
    with bar(None, f"{same.get('work', 'benchmark')} {same.get('dtype') or ''}") as tell:
        for i, entrant in enumerate(entrants):
            found = tune(entrant, target) if isinstance(entrant, Contestant) else entrant
            if isinstance(found, Absent):
                absent.append(found)
            else:
                ready.append(found)
            tell(Progress(i + 1, len(entrants) + 1))
        times = race(ready, ruler)
        tell(Progress(len(entrants) + 1, len(entrants) + 1))
    same = {**same, "device": ruler.device}
    rows = []
    for one, spent in zip(ready, times, strict=True):
        name, value = one.contestant.name, median(spent)
        who = {**same, "contestant": name, "knob": one.knob, "error": one.error}
        base = median(times[0])
        ratio = {"ratio_to": ready[0].contestant.name, "ratio": value / base if base else None}
        low, high = min(spent), max(spent)
        rows.append(result_row(
            **who, metric=ruler.metric, value=value, low=low, high=high, unit="s", **ratio
        ))  # fmt: skip
        if size:
            per = [size / max(v, 1e-9) for v in (value, high, low)]
            bounds = dict(zip(("value", "low", "high"), per, strict=True))
            rows.append(result_row(**who, metric="throughput", unit="1/s", **bounds))
        rows.append(result_row(**who, metric="first_call", value=one.first_s, unit="s"))
    for gone in absent:
        who = {**same, "contestant": gone.name, "knob": gone.why}
        rows.append(result_row(**who, metric=ruler.metric, unit="s"))
    return rows


def in_turn(
    run: RunDir,
    works: Mapping[tuple[str, str], Callable[[], list[Row]]],
    *,
    pinned: bool = True,
) -> list[Row]:
    """Do one work after the other; a resumed run goes on with the first that has no rows.

    Arguments:
        run: Where the rows are kept.
        works: What returns the rows, by their `work` and `dtype`.
        pinned: Whether to keep to one core.
    """
    rows = run.read_rows()
    done = {(row["work"], row["dtype"]) for row in rows}
    with one_core() if pinned else contextlib.nullcontext():
        for key, work in works.items():
            if key not in done:
                rows += work()
                run.write_rows(rows)
    return rows
