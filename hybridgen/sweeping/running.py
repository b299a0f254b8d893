"""A sweep: as many simulations as wanted, to disk, in parallel, and to be gone on with.

The members are cut into tasks, a chunk of every array each. Workers draw a task, write its chunks
and then a record of it, and only the record is heard of here, so memory does not grow with the
number of members. A member depends on (root seed, stream, index) alone and a task on the plan in
the store, so it matters neither who did it nor when: a sweep that was broken off and resumed is,
chunk by chunk and byte by byte, the one that was not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridgen.batch import Sampler
from hybridgen.errors import ConfigError, nearest
from hybridgen.progress import Progress
from hybridgen.sweeping.fingerprints import code_versions, fingerprint
from hybridgen.sweeping.job import Job, Options, run, sendable
from hybridgen.sweeping.layout import folder_of
from hybridgen.sweeping.locks import locked
from hybridgen.sweeping.outcome import SweepResult
from hybridgen.sweeping.place import check_place, check_space, clean, move_aside
from hybridgen.sweeping.planning import Plan, Settings, group_of
from hybridgen.sweeping.tasks import plan_with

if TYPE_CHECKING:
    import os

__all__ = ["sweep"]


def sweep(
    sampler: Sampler,
    n: int,
    store: str | os.PathLike[str],
    *,
    seed: int,
    group: str | None = None,
    client: Any = None,
    workers: int | None = None,
    resume: bool = True,
    overwrite: bool = False,
    force: bool = False,
    progress: bool | Callable[[Progress], None] | None = None,
    **options: Any,
) -> SweepResult:
    """Draw members and store them, in parallel; a sweep that was broken off is gone on with.

    What is stored does not depend on who works. A member that cannot be drawn (its function
    raises, hangs or ends its process) has the status `error` or `timeout`, and harms no other.

    Arguments:
        sampler: A `Simulator`, also `under` a shift, an `Augmenter`, or another `Sampler`.
        n: How many members.
        store: The folder of the zarr store; other groups of it are left alone.
        seed: The seed of every draw.
        group: The group to write; by default the sampler's split, or `"ood/"` and its shift.
        client: A `distributed.Client`, to work on its cluster.
        workers: How many processes of this machine to use, 0 for this one, unguarded; None for
            one a processor, or one a GPU.
        resume: Whether to go on with a sweep that is there.
        overwrite: Whether to move a store aside in which the group is there.
        force: Whether to take the lock of another process, which must no longer be at work.
        progress: True for a bar, a function to be told, False for silence; None for a bar if
            standard error is a terminal.
        **options: `task_members, wall_limit, max_failed, dtype, device, attrs, origin`; what they
            mean is told by `hybridgen.sweeping.Options`.

    Returns:
        Counts by status, and why members failed.

    Raises:
        OutputExistsError: If another process is writing there, or something else is there.
        SweepStoppedError: If the disk is full or too many members failed; what is stored is kept.
        KeyboardInterrupt: If it was interrupted: once, after the tasks at hand; twice, at once.

    Example:
        >>> import tempfile
        >>> from hybridgen.simulators import pendulum
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     sweep(pendulum.simulator, 100, folder, seed=0, workers=0).summary
        '100 members: 100 ok'
    """
    rest, group = _options(options), group or group_of(sampler)
    settings = _settings(sampler, n, seed, group, rest)
    sampler, payload = sendable(sampler, rest.device, workers)
    job = Job(sampler, Path(store), client, workers, rest)
    if overwrite and (job.store / group).exists():
        move_aside(job.store)
    check_place(job.store, settings, resume=resume)
    return _at(job, settings, payload, force, progress)


def _at(
    job: Job,
    settings: Settings,
    payload: bytes,
    force: bool,
    progress: bool | Callable[[Progress], None] | None,
) -> SweepResult:
    """Sweep at the place of a job, holding its lock."""
    folder = folder_of(job.store, settings.group)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder, force=force), job.hands(payload, settings.seed) as hands:
            plan = Plan.load(job.store, settings.group)
            if plan is None:
                limit = job.options.wall_limit
                plan = plan_with(hands[0], settings, job.options.origin, limit)
                check_space(job.store, plan.member_bytes * settings.n)
                plan.save(job.store)
            plan.check(settings)  # somebody else may have begun meanwhile
            return run(job, plan, payload, hands, frozenset(), progress)
    finally:
        clean(folder, job.store)


def _options(given: dict[str, Any]) -> Options:
    known = [f.name for f in fields(Options)]
    for name in given:
        if name not in known:
            raise ConfigError(f"sweep has no option {name!r}; {nearest(name, known)}")
    return Options(**{k: v for k, v in given.items() if v is not None})


def _settings(sampler: Sampler, n: int, seed: int, group: str, options: Options) -> Settings:
    if n < 1:
        raise ConfigError(f"n is {n}; give at least one member.")
    return Settings(
        n=n,
        seed=seed,
        group=group,
        dtype=options.dtype,
        task_members=options.task_members,
        attrs={k: _plain(v) for k, v in options.attrs.items()},
        fingerprint=fingerprint(sampler) | {"device": options.device},
        code=code_versions(),
    )


def _plain(value: Any) -> Any:
    """Return an attribute as JSON has it."""
    return value if isinstance(value, str | int | float | bool) else str(value)
