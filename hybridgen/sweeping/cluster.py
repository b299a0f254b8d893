"""The same tasks on a dask cluster: each of its workers has hands of its own.

Tasks are sent in waves of four a worker, so that a scheduler never holds a graph of all, and what
comes back is receipts. The sampler travels once. A worker reads the plan from the store, which
all must see under the same path.

The hands are processes beside the worker's: a sampler that hangs or dies takes no worker of the
cluster along, and is found out as on one machine.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from hybridgen.errors import DataError
from hybridgen.sweeping.crew import gpu_environment
from hybridgen.sweeping.hands import ProcessHand
from hybridgen.sweeping.outcome import SweepStoppedError
from hybridgen.sweeping.planning import Plan
from hybridgen.sweeping.records import Receipt
from hybridgen.sweeping.stopping import Interruption
from hybridgen.sweeping.tasks import complete

__all__ = ["receipts_of"]

WAVE = 4
# hands of this process that are at rest, by sweep
_resting: dict[str, list[tuple[ProcessHand, Plan]]] = {}
_guard = threading.Lock()


def receipts_of(
    client: Any,
    payload: bytes,
    order: dict[str, Any],
    tasks: Sequence[int],
    interruption: Interruption,
) -> Generator[Receipt]:
    """Yield receipts as they come in.

    Arguments:
        client: A `distributed.Client`.
        payload: The sampler, pickled.
        order: What `_task` takes beside the sampler and the number of the task.
        tasks: The numbers of the tasks.
        interruption: Once it is wished, no task is begun any more.

    Raises:
        SweepStoppedError: If the cluster gave a task up.
    """
    from distributed import as_completed
    from distributed.scheduler import KilledWorker

    todo = iter(tasks)
    shipped = client.scatter(payload, broadcast=True, hash=False)

    def send() -> Any:
        task = None if interruption.wished else next(todo, None)
        if task is None:
            return None
        name = f"{order['label']}-{task}"
        return client.submit(_task, shipped, task, **order, key=name, pure=False)

    width = WAVE * max(1, len(client.scheduler_info(n_workers=-1)["workers"]))
    under_way = as_completed([f for f in (send() for _ in range(width)) if f is not None])
    try:
        for future in under_way:
            try:
                receipt = future.result()
            except KilledWorker as error:
                raise SweepStoppedError(f"the cluster lost its workers: {error}") from error
            future.release()
            if (more := send()) is not None:
                under_way.add(more)
            yield receipt
    finally:
        client.cancel(list(under_way.futures))
        client.run(_dismiss, order["label"])


def _task(
    payload: bytes,
    task: int,
    *,
    label: str,
    store: str,
    group: str,
    seed: int,
    limit: float | None,
    device: str,
) -> Receipt:
    """Do a task, on a worker of the cluster."""
    hand, plan = _take(payload, label, store, group, seed, device)
    try:
        receipt = complete(hand, task, plan.bounds(task), limit)
    except BaseException:
        hand.close()
        raise
    with _guard:
        _resting.setdefault(label, []).append((hand, plan))
    return receipt


def _take(
    payload: bytes, label: str, store: str, group: str, seed: int, device: str
) -> tuple[ProcessHand, Plan]:
    with _guard:
        if _resting.get(label):
            return _resting[label].pop()
    plan = Plan.load(Path(store), group)
    if plan is None:
        raise DataError(
            f"a worker of the cluster finds no sweep in {store}; the store must lie on a disk "
            "that all workers share, under the same path."
        )
    hand = ProcessHand(payload, Path(store), seed, gpu_environment(device, _number()))
    hand.obey(plan)
    return hand, plan


def _number() -> int:
    """Return the number of this worker of the cluster, if it has one for a name; otherwise 0."""
    from distributed import get_worker

    name = get_worker().name
    return name if isinstance(name, int) else 0


def _dismiss(label: str) -> None:
    with _guard:
        hands = _resting.pop(label, [])
    for hand, _ in hands:
        hand.close()
