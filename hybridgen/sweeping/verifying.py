"""Verification: is every byte of a sweep still what was written, and if not, do that again.

Every chunk is read and compared with the size and checksum in the record of its task, every file
that does not depend on the draws with the plan's copy of it, and the plan and the records with
checksums of their own. What may change unseen means nothing: a line of the records whose task has
another, blanks in the metadata of a group above, and attributes that someone added there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridgen.batch import Sampler
from hybridgen.errors import DataError
from hybridgen.progress import Progress
from hybridgen.sweeping.fingerprints import code_versions, fingerprint
from hybridgen.sweeping.job import Job, Options, run, sendable
from hybridgen.sweeping.layout import folder_of, parents_of
from hybridgen.sweeping.locks import locked
from hybridgen.sweeping.outcome import SweepResult, Tally
from hybridgen.sweeping.planning import COPIES, Plan
from hybridgen.sweeping.progressing import COMPLETE, described, flaws, read_completion
from hybridgen.sweeping.records import read_records, unsealed

if TYPE_CHECKING:
    import os

__all__ = ["Verification", "groups_of", "origin_of", "repair", "verify"]


@dataclass(frozen=True)
class Verification:
    """What was found in a group.

    Arguments:
        group: The group.
        tasks: How many tasks it has.
        flaws: What is not as it was written, a line each.
        damaged: The tasks to do again.
        files: The files that do not depend on the draws and are to be written again.
        unfinished: How many tasks have not been done yet.
    """

    group: str
    tasks: int
    flaws: tuple[str, ...]
    damaged: frozenset[int] = frozenset()
    files: tuple[str, ...] = ()
    unfinished: int = 0

    @property
    def intact(self) -> bool:
        """Whether all that was written is as it was."""
        return not self.flaws


def groups_of(store: str | os.PathLike[str]) -> list[str]:
    """Return the groups of a store that a sweep wrote.

    Raises:
        DataError: If there are none.
    """
    store = Path(store)
    found = sorted(p.parents[1].relative_to(store) for p in store.rglob("status/sweep"))
    if not found:
        raise DataError(
            f"{store} holds no sweep, so there are no records to compare it with; zarr compares "
            "the checksums of other stores when their data are read."
        )
    return [path.as_posix() for path in found]


def origin_of(store: str | os.PathLike[str], group: str) -> Mapping[str, Any]:
    """Return what the plan of a group says of where its sampler came from."""
    plan = Plan.load(Path(store), group)
    return {} if plan is None else plan.origin


def verify(store: str | os.PathLike[str], group: str | None = None) -> Verification:
    """Compare what a sweep wrote with its records.

    Arguments:
        store: The folder of the store.
        group: The group; None for the only one.

    Returns:
        What was found.

    Raises:
        DataError: If there is no such sweep, or there are several and none was named.

    Example:
        >>> import tempfile
        >>> from hybridgen.simulators import pendulum
        >>> from hybridgen.sweeping import sweep
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = sweep(pendulum.simulator, 9, folder, seed=0, workers=0, task_members=3)
        ...     (Path(folder) / "train/y/c/1/0/0").write_bytes(b"")
        ...     verify(folder).damaged
        0
        frozenset({1})
    """
    store, group = Path(store), _only(Path(store), group)
    try:
        plan = Plan.load(store, group)
    except DataError as error:
        return Verification(group, 0, (str(error),))
    if plan is None:
        return Verification(group, 0, ())
    folder, tally = folder_of(store, group), Tally()
    found = [f"{group}/status/sweep/{name} is missing or damaged" for name in _copies(folder)]
    ended = (folder / COMPLETE).is_file()
    if ended and read_completion(folder) is None:
        found.append(f"{group}/status/sweep/{COMPLETE} is damaged")
    recorded, damaged = bytearray(plan.tasks), set()
    wrong: list[str] = []
    for receipt in read_records(folder):
        if isinstance(receipt, Path) or recorded[receipt.task]:
            continue
        recorded[receipt.task] = 1
        tally.add(receipt)
        if flawed := flaws(store, plan, receipt, thorough=True):
            damaged.add(receipt.task)
            wrong += flawed
    missing = [k for k in range(plan.tasks) if not recorded[k]]
    if ended:
        damaged |= set(missing)
        wrong += [f"task {k} of {group} has lost its record" for k in missing]
    files = _static(store, plan, tally, whole=not missing)
    found += [f"{name} is missing or damaged" for name in files] + wrong
    return Verification(
        group=group,
        tasks=plan.tasks,
        flaws=tuple(found),
        damaged=frozenset(damaged),
        files=tuple(files),
        unfinished=0 if ended else len(missing),
    )


def _only(store: Path, group: str | None) -> str:
    groups = groups_of(store)
    if group is None and len(groups) > 1:
        raise DataError(f"{store} holds sweeps in {groups}; name one: group={groups[0]!r}.")
    if group is not None and group not in groups:
        raise DataError(f"{store} holds no sweep in group {group!r}, but in {groups}.")
    return group or groups[0]


def _copies(folder: Path) -> list[str]:
    """Return the copies of the plan that cannot be read."""
    paths = {name: folder / name for name in COPIES}
    return [k for k, p in paths.items() if not p.is_file() or unsealed(p.read_bytes()) is None]


def _static(store: Path, plan: Plan, tally: Tally, *, whole: bool) -> list[str]:
    """Return those of the files that do not depend on the draws that are not as they should be.

    The reasons of failures, from the records, are in the metadata of the group at the end, or not
    yet; where records are lost, `whole` is false and nobody can say.
    """
    group, wrong = plan.settings.group, []
    for name, content in plan.contents().items():
        path = store / name
        found = path.read_bytes() if path.is_file() else b""
        if found == content:
            continue
        own = name == f"{group}/zarr.json"
        if own and whole and found == described(plan, tally.reasons()):
            continue
        if (name in parents_of(group) or (own and not whole)) and _is_group(found):
            continue
        wrong.append(name)
    return wrong


def _is_group(content: bytes) -> bool:
    """Return whether a file is the metadata of a zarr group, which others may have added to."""
    try:
        value = json.loads(content)
    except ValueError:
        return False
    return (
        isinstance(value, dict)
        and value.get("zarr_format") == 3
        and value.get("node_type") == "group"
        and isinstance(value.get("attributes"), dict)
        and set(value) <= {"zarr_format", "node_type", "attributes", "consolidated_metadata"}
    )


def repair(
    sampler: Sampler,
    store: str | os.PathLike[str],
    found: Verification,
    *,
    client: Any = None,
    workers: int | None = None,
    wall_limit: float | None = None,
    force: bool = False,
    progress: bool | Callable[[Progress], None] | None = None,
) -> SweepResult:
    """Do again what is damaged, and what was not done yet.

    Arguments:
        sampler: What the sweep drew from.
        store: The folder of the store.
        found: What `verify` found.
        client: As for `sweep`.
        workers: As for `sweep`.
        wall_limit: As for `sweep`.
        force: As for `sweep`.
        progress: As for `sweep`.

    Returns:
        Counts by status; `tasks` is how many were done again.

    Raises:
        OutputExistsError: If the sampler, or the code, is not what it was.
        DataError: If both copies of the plan are damaged.
    """
    store = Path(store)
    plan = Plan.load(store, found.group)
    if plan is None:
        raise DataError(f"{store} holds no plan in group {found.group!r}; sweep it anew.")
    device = plan.settings.fingerprint["device"].strip("'")
    now = replace(
        plan.settings, fingerprint=fingerprint(sampler) | {"device": device}, code=code_versions()
    )
    plan.check(now)
    sampler, payload = sendable(sampler, device, workers)
    options = Options(wall_limit=wall_limit, max_failed=1.0, device=device)
    job = Job(sampler, store, client, workers, options)
    folder = folder_of(store, found.group)
    with locked(folder, force=force), job.hands(payload, plan.settings.seed) as hands:
        plan.save(store)
        for name in found.files:
            (store / name).unlink(missing_ok=True)
        (folder / COMPLETE).unlink(missing_ok=True)
        return run(job, plan, payload, hands, found.damaged, progress)
