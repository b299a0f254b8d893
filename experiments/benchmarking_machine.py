"""What a benchmark asks of the machine: one core and one thread, and how much memory was taken."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from hybridgen.threads import one_thread

__all__ = ["Family", "one_core", "peak_memory", "synchronise"]

PROC = Path("/proc")
CACHES = "TORCHINDUCTOR_CACHE_DIR", "XDG_CACHE_HOME"
SINGLE = {
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "JAX_ENABLE_X64": "1",
}


def synchronise(device: str) -> None:
    """Wait until a GPU has done all its work; on a CPU there is nothing to wait for."""
    if device != "cpu":
        torch.cuda.synchronize(torch.device(device))


def peak_memory() -> float:
    """Return the largest resident memory that this process has had, in GB; NaN if unknown.

    Example:
        >>> 0.01 < peak_memory() < 1000 or math.isnan(peak_memory())
        True
    """
    # what `resource` tells on Linux includes the process that started this one
    own = _peak(PROC / "self" / "status")
    if own is not None or importlib.util.find_spec("resource") is None:
        return math.nan if own is None else own
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most * (1e-9 if sys.platform == "darwin" else 1024e-9)


def _peak(status: Path) -> float | None:
    """Return the largest resident memory of a process in GB, from its status on Linux."""
    with contextlib.suppress(OSError):
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024e-9
    return None


class Family:
    """Watches the processes that this one starts, and those that they start, in a thread.

    It looks ten times a second, since a process that is killed by another tells nobody what it
    took. It needs Linux; elsewhere it sees nobody, and what it found is NaN.

    Example:
        >>> with Family() as family:
        ...     total = sum(range(1000))
        >>> family.cpu == 0.0 or math.isnan(family.cpu)
        True
    """

    PAUSE_S = 0.1

    def __init__(self) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._seconds: dict[tuple[int, str], float] = {}
        self._peaks: list[float] = [0.0]
        self._sees = (PROC / "self" / "task" / str(os.getpid()) / "children").is_file()

    def __enter__(self) -> Family:
        if self._sees:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._sees:
            self._thread.join()

    @property
    def cpu(self) -> float:
        """The processor time of all of them, in s."""
        return sum(self._seconds.values()) if self._sees else math.nan

    @property
    def peak(self) -> float:
        """The largest resident memory of one of them, in GB."""
        return max(self._peaks) if self._sees else math.nan

    def _watch(self) -> None:
        while not self._over.wait(self.PAUSE_S):
            waiting = self._children(os.getpid())
            while waiting:
                pid = waiting.pop()
                waiting += self._children(pid)
                # who is gone by now was seen a moment ago
                with contextlib.suppress(OSError):
                    fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
                    spent = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
                    self._seconds[pid, fields[19]] = spent
                self._peaks.append(_peak(PROC / str(pid) / "status") or 0.0)

    def _children(self, pid: int) -> list[int]:
        found: list[int] = []
        with contextlib.suppress(OSError):
            for task in (PROC / str(pid) / "task").iterdir():
                with contextlib.suppress(OSError):
                    found += map(int, (task / "children").read_text().split())
        return found


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Keep this process to one core and one thread, with a new cache of compiled code.

    The variables of the environment are read by libraries when they are first imported; jax, in
    particular, must not have computed anything before.
    """
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    with contextlib.ExitStack() as stack:
        cache = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        wanted = {**SINGLE, **dict.fromkeys(CACHES, cache)}
        before = {name: os.environ.get(name) for name in wanted}
        stack.callback(_restore, before)
        os.environ.update(wanted)
        if cores:
            stack.callback(os.sched_setaffinity, 0, cores)
            os.sched_setaffinity(0, {max(cores)})
        stack.enter_context(one_thread())
        yield


def _restore(before: Mapping[str, str | None]) -> None:
    """Give variables of the environment the values that they had."""
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
