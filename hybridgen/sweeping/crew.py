"""A crew: hands on this machine that share the tasks, a thread waiting for each of them."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Sequence

import torch

from hybridgen.sweeping.hands import Dismissed, Hand
from hybridgen.sweeping.records import Receipt
from hybridgen.sweeping.stopping import Interruption

__all__ = ["gpu_environment", "receipts"]


def gpu_environment(device: str, worker: int) -> dict[str, str]:
    """Return what makes a worker see one GPU, its own: to it that is `cuda:0`.

    It has to be set before the worker's torch starts.

    Arguments:
        device: The torch device of the sweep.
        worker: The number of the worker.

    Example:
        >>> gpu_environment("cpu", 0)
        {}
    """
    if not device.startswith("cuda"):
        return {}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    known = range(torch.cuda.device_count()) if visible is None else visible.split(",")
    names = [str(name).strip() for name in known] or ["0"]
    return {"CUDA_VISIBLE_DEVICES": names[worker % len(names)]}


def receipts(
    hands: Sequence[Hand],
    tasks: Iterable[int],
    do: Callable[[Hand, int], Receipt],
    interruption: Interruption,
) -> Generator[Receipt]:
    """Yield receipts as they come in; on the way out, whatever the reason, all hands are closed.

    Arguments:
        hands: Who does the tasks.
        tasks: Their numbers.
        do: Does one with a hand.
        interruption: Once it is wished, no task is begun any more.

    Raises:
        Exception: What `do` raised, for the first task where it did.
    """
    todo, guard = iter(tasks), threading.Lock()
    done: queue.SimpleQueue[Receipt | BaseException | None] = queue.SimpleQueue()
    ended = threading.Event()

    def serve(hand: Hand) -> None:
        try:
            while not (interruption.wished or ended.is_set()):
                with guard:
                    task = next(todo, None)
                if task is None:
                    break
                done.put(do(hand, task))
        except Dismissed:
            pass
        except BaseException as error:  # to be raised where the receipts are waited for
            done.put(error)
        done.put(None)

    threads = [threading.Thread(target=serve, args=(hand,), daemon=True) for hand in hands]
    try:
        for thread in threads:
            thread.start()
        at_work = len(threads)
        while at_work:
            try:
                found = done.get(timeout=0.5)  # so that an interruption is heard
            except queue.Empty:
                continue
            if found is None:
                at_work -= 1
            elif isinstance(found, BaseException):
                raise found
            else:
                yield found
    finally:
        ended.set()
        for hand in hands:
            hand.close()
        for thread in threads:
            if thread.is_alive():
                thread.join(timeout=10.0)
