"""A sweep at work: hands, tasks, what comes in, and when to stop."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from hybridgen.batch import Sampler
from hybridgen.errors import ConfigError, UnsupportedError
from hybridgen.progress import Progress, bar
from hybridgen.provenance import processors
from hybridgen.sweeping.crew import gpu_environment, receipts
from hybridgen.sweeping.culprits import Fault
from hybridgen.sweeping.hands import Hand, LocalHand, ProcessHand
from hybridgen.sweeping.layout import folder_of, materialise
from hybridgen.sweeping.outcome import SweepResult, SweepStoppedError, Tally
from hybridgen.sweeping.place import check_space
from hybridgen.sweeping.planning import Plan
from hybridgen.sweeping.progressing import COMPLETE, conclude, finished_tasks, read_completion
from hybridgen.sweeping.records import Receipt
from hybridgen.sweeping.shipping import packed
from hybridgen.sweeping.stopping import Interruption
from hybridgen.sweeping.tasks import complete

__all__ = ["Job", "Options", "run", "sendable"]

# of fewer members a share says little
_MANY = 1000


@dataclass(frozen=True)
class Options:
    """What `sweep` takes beside its main arguments.

    Arguments:
        task_members: How many members a task has; None to fill chunks of 16 MB.
        wall_limit: How long drawing a task may take before those to blame are searched for, and
            a member alone before it is given up, in s; None for as long as it takes.
        max_failed: The share of failed members at which to stop, once there are 1000.
        dtype: `"float32"` or `"float64"` for what is stored; None as it is drawn.
        device: The torch device to compute on; of several GPUs each worker has one.
        attrs: Attributes for the data set.
        origin: Where the sampler comes from, for whoever is to make it again.

    Raises:
        ConfigError: If a value is out of range.
    """

    task_members: int | None = None
    wall_limit: float | None = None
    max_failed: float = 0.5
    dtype: str | None = None
    device: str = "cpu"
    attrs: Mapping[str, Any] = field(default_factory=dict)
    origin: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.task_members is not None and self.task_members < 1:
            raise ConfigError(f"task_members is {self.task_members}; give a positive number.")
        if self.wall_limit is not None and not self.wall_limit > 0.0:
            raise ConfigError(f"wall_limit is {self.wall_limit}; give a positive number of s.")
        if not 0.0 <= self.max_failed <= 1.0:
            raise ConfigError(f"max_failed is {self.max_failed}; give a share from 0 to 1.")
        if self.dtype not in (None, "float32", "float64"):
            raise ConfigError(f"dtype is {self.dtype!r}; write 'float32', 'float64' or None.")


@dataclass(frozen=True)
class Job:
    """A sweep on its way.

    Arguments:
        sampler: What is drawn from.
        store: The folder of the store.
        client: A cluster to work on, or None.
        workers: How many processes; None for as many as there are processors or GPUs.
        options: The rest.

    Raises:
        ConfigError: If the number of workers is negative, or they cannot do what is asked.
    """

    sampler: Sampler
    store: Path
    client: Any = None
    workers: int | None = None
    options: Options = field(default_factory=Options)

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 0:
            raise ConfigError(f"workers is {self.workers}; give a positive number, or 0.")
        guarded = self.options.wall_limit is not None or self.client is not None
        if self.workers == 0 and guarded:
            raise ConfigError(
                "with workers=0 the members are drawn in this process, which neither a wall limit "
                "nor a cluster can reach; write workers=1."
            )

    @contextlib.contextmanager
    def hands(self, payload: bytes, seed: int) -> Iterator[list[Hand]]:
        """Yield hands of this machine, which start when they are first used."""
        where, device, count = self.store, self.options.device, self.workers
        if count is None:
            count = _gpus() if device.startswith("cuda") else processors()
        hands: list[Hand] = (
            [LocalHand(self.sampler, where, seed)]
            if self.workers == 0
            else [
                ProcessHand(payload, where, seed, gpu_environment(device, k))
                for k in range(max(1, count))
            ]
        )
        try:
            yield hands
        finally:
            for hand in hands:
                hand.close()


def run(
    job: Job,
    plan: Plan,
    payload: bytes,
    hands: list[Hand],
    again: frozenset[int],
    progress: bool | Callable[[Progress], None] | None,
) -> SweepResult:
    """Do the tasks of a plan that are not done; the lock must be held.

    Arguments:
        job: The sweep.
        plan: Its plan.
        payload: The sampler, pickled.
        hands: Who works on this machine.
        again: Tasks to do again, whatever their records say.
        progress: As for `sweep`.
    """
    settings, tally = plan.settings, Tally()
    folder = folder_of(job.store, settings.group)
    done = finished_tasks(job.store, plan, tally, again)
    tasks = [k for k in range(plan.tasks) if not done[k]]
    if tasks or read_completion(folder) is None:
        (folder / COMPLETE).unlink(missing_ok=True)
        materialise(job.store, settings.group, plan.contents())
    remaining = sum(b - a for a, b in map(plan.bounds, tasks))
    check_space(job.store, plan.member_bytes * remaining)
    with (
        Interruption() as interruption,
        bar(progress, "sweep", group=settings.group) as tell,
        contextlib.closing(_work(job, plan, payload, hands, tasks, interruption)) as coming,
    ):
        tell(Progress(tally.done, settings.n, tally.figures()))
        try:
            for receipt in coming:
                tally.add(receipt)
                tell(Progress(tally.done, settings.n, tally.figures()))
                _check_failures(tally, job.options.max_failed)
        except SweepStoppedError as error:
            raise SweepStoppedError(f"{error}\n{_state(job, plan, tally)}") from error
    if tally.done < settings.n:
        raise KeyboardInterrupt(_state(job, plan, tally))
    conclude(job.store, plan, tally)
    return SweepResult(
        job.store, settings.group, settings.n, tally.named(), tally.reasons(), len(tasks)
    )


def _work(
    job: Job,
    plan: Plan,
    payload: bytes,
    hands: list[Hand],
    tasks: list[int],
    interruption: Interruption,
) -> Generator[Receipt]:
    """Yield the receipts of tasks, from this machine or from a cluster."""
    if job.client is not None:
        from hybridgen.sweeping.cluster import receipts_of

        order = {
            "label": f"hybridgen-{secrets.token_hex(8)}",
            "store": str(job.store.absolute()),
            "group": plan.settings.group,
            "seed": plan.settings.seed,
            "limit": job.options.wall_limit,
            "device": job.options.device,
        }
        yield from receipts_of(job.client, payload, order, tasks, interruption)
        return

    def do(hand: Hand, task: int) -> Receipt:
        bounds = plan.bounds(task)
        allowed = max(_MANY // 2, job.options.max_failed * (bounds[1] - bounds[0]))
        blamed = []

        def blame(member: int, fault: Fault) -> None:
            blamed.append(member)
            if len(blamed) > allowed:
                raise SweepStoppedError(
                    f"{len(blamed)} of members {bounds[0]} to {member} failed, the last one with "
                    f"{fault.kind}: {fault.message}."
                )

        return complete(hand, task, bounds, job.options.wall_limit, blame)

    used = hands[: max(1, len(tasks))]
    for hand in used:
        hand.obey(plan)
    yield from receipts(used, tasks, do, interruption)


def _check_failures(tally: Tally, max_failed: float) -> None:
    if tally.done >= _MANY and tally.failed > max_failed * tally.done:
        raise SweepStoppedError(
            f"{tally.failed:,} of {tally.done:,} members failed, a share above "
            f"max_failed={max_failed:g}; what fails is left out of the data, and such data are "
            "no fair sample any more."
        )


def _state(job: Job, plan: Plan, tally: Tally) -> str:
    """Return how far a sweep came, and how to go on."""
    result = SweepResult(
        job.store, plan.settings.group, tally.done, tally.named(), tally.reasons()
    )
    return (
        f"stored so far, of {plan.settings.n:,}: {result.summary}\n"
        "go on with the same call, resume=True (--resume)."
    )


def sendable(sampler: Any, device: str, workers: int | None) -> tuple[Any, bytes]:
    """Return a sampler on its device, and as bytes where it is to go to other processes.

    Raises:
        UnsupportedError: If it cannot be moved to the device, or be pickled.
    """
    if not device.startswith("cpu"):
        sampler = _on(sampler, device)
    return sampler, b"" if workers == 0 else packed(sampler)


def _on(sampler: Any, device: str) -> Any:
    if not hasattr(sampler, "on"):
        raise UnsupportedError(
            f"a {type(sampler).__name__} has no method on(device) that would move it to {device}; "
            "write one, or leave device out."
        )
    return sampler.on(device)


def _gpus() -> int:
    return max(1, torch.cuda.device_count())
