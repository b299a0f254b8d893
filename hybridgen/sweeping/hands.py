"""Hands: who does jobs, in a process that may die or hang, or in this one.

A worker is started when it is first needed, with one thread for every library that would take
more, and again after it died or was killed. It is forked from a nursery, a program of its own:
nothing of this process is shared with it, no script is run a second time, and it works inside the
daemonic processes of a dask cluster as well.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from hybridgen.errors import UnsupportedError
from hybridgen.integrate import Status
from hybridgen.sweeping.child import NUMBER, answer
from hybridgen.sweeping.culprits import Fault
from hybridgen.sweeping.planning import Plan
from hybridgen.sweeping.working import Workman
from hybridgen.threads import one_thread

__all__ = ["Dismissed", "Hand", "LocalHand", "ProcessHand", "environment"]

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_PROGRAM = (
    "import sys; sys.path[:] = {path!r}; from hybridgen.sweeping.child import nurse; nurse()"
)


class Dismissed(Exception):  # noqa: N818 not an error, and caught before a user sees it
    """The hand was told to stop at once."""


class Hand(Protocol):
    """Whoever does jobs."""

    def call(self, name: str, *arguments: Any, limit: float | None = None) -> tuple[str, Any]:
        """Do a job; `"done"` and the result, `"raised"` and a `Fault`, or `"store"` and a text."""
        ...

    def obey(self, plan: Plan) -> None:
        """Work by a plan from now on."""
        ...

    def close(self) -> None:
        """Stop at once."""
        ...


class LocalHand:
    """Does jobs in this process, where nothing guards against one that hangs or dies.

    Arguments:
        sampler: A `Sampler`.
        store: The folder of the store.
        seed: The root seed.
    """

    def __init__(self, sampler: Any, store: Path, seed: int) -> None:
        self._workman = Workman(sampler, store, seed)

    def call(self, name: str, *arguments: Any, limit: float | None = None) -> tuple[str, Any]:
        """Do a job; a limit is not heeded."""
        with one_thread():
            return answer(self._workman, name, arguments)

    def obey(self, plan: Plan) -> None:
        """Work by a plan from now on."""
        self._workman.obey(plan)

    def close(self) -> None:
        """Have nothing to stop."""


class ProcessHand:
    """Does jobs in a process of its own.

    Arguments:
        payload: The sampler, pickled.
        store: The folder of the store.
        seed: The root seed.
        extra: Environment variables for the process.
    """

    def __init__(
        self, payload: bytes, store: Path, seed: int, extra: Mapping[str, str] | None = None
    ) -> None:
        self._hello = (payload, str(store), seed)
        self._nursery = _Nursery(environment(extra or {}))
        self._orders: list[tuple[Any, ...]] = []
        self._peer: Connection | None = None

    def obey(self, plan: Plan) -> None:
        """Send the plan, now and to every process that takes this one's place."""
        self._orders.append((None, "obey", (plan,)))
        if self._peer is not None:
            self._exchange(self._peer, self._orders[-1], None)

    def call(self, name: str, *arguments: Any, limit: float | None = None) -> tuple[str, Any]:
        """Do a job; after `limit` s the process is killed.

        Raises:
            Dismissed: If the hand was closed meanwhile.
            UnsupportedError: If the process cannot make the sampler again.
        """
        peer = self._peer or self._start()
        return self._exchange(peer, (limit, name, arguments), limit)

    def close(self) -> None:
        """Kill the process, whatever it is at; a call that waits for it raises `Dismissed`."""
        self._nursery.close()

    def _start(self) -> Connection:
        self._peer = peer = self._nursery.bear()
        for message in (self._hello, *self._orders):
            state, value = self._exchange(peer, message, None)
            if state != "done":
                raise UnsupportedError(
                    "a worker process cannot make the sampler again: "
                    f"{value.kind}: {value.message}. What it is made of must be importable there, "
                    "or be defined beside it; or sweep in this process with workers=0."
                )
        return peer

    def _exchange(self, peer: Connection, message: Any, limit: float | None) -> tuple[str, Any]:
        try:
            peer.send(message)
            if peer.poll(limit):
                return peer.recv()
            fault = Fault(Status.timeout, f"took longer than {limit:g} s", "")
            self._nursery.bury()
        except (EOFError, OSError):
            ending = self._nursery.bury(patience=5.0)
            fault = Fault(Status.error, f"process died: {ending}", "")
        peer.close()
        self._peer = None
        return "raised", fault


class _Nursery:
    """A process that starts workers, one at a time; see `hybridgen.sweeping.child.nurse`.

    Arguments:
        environment: Its environment variables.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._guard = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._worker = 0
        self._closed = False

    def bear(self) -> Connection:
        """Start a worker and return the connection to it.

        Raises:
            Dismissed: If the nursery was closed.
        """
        ours, its = socket.socketpair()
        with self._guard, its:
            if self._closed:
                ours.close()
                raise Dismissed
            if self._control is None:
                self._open()
            try:
                socket.send_fds(self._socket(), [NUMBER.pack(0)], [its.fileno()])
                self._worker = self._number()
            except OSError:
                ours.close()
                raise UnsupportedError(
                    "a worker process could not be started; what Python said is on standard error."
                ) from None
        return Connection(ours.detach())

    def bury(self, patience: float = 0.0) -> str:
        """End the worker and return how it ended, of itself if it does within `patience` s.

        Raises:
            Dismissed: If the nursery was closed.
        """
        with self._guard:
            if self._closed:
                raise Dismissed
            control, worker = self._socket(), self._worker
            with contextlib.suppress(OSError):
                control.sendall(NUMBER.pack(worker))
                with contextlib.suppress(TimeoutError):
                    return _ending(self._number(patience))
                os.kill(worker, signal.SIGKILL)
                return _ending(self._number())
        return "its parent died"

    def close(self) -> None:
        """End the worker and the nursery."""
        self._closed = True
        with self._guard:
            if self._process is None:
                return
            if self._worker:
                with contextlib.suppress(OSError):
                    os.kill(self._worker, signal.SIGKILL)
            self._socket().close()
            self._process.kill()
            self._process.wait()
            self._process = None

    def _open(self) -> None:
        self._control, its = socket.socketpair()
        path = [folder or os.getcwd() for folder in sys.path]
        with its:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM.format(path=path)],
                stdin=its.fileno(),
                stdout=subprocess.DEVNULL,
                env=dict(self._environment),
                start_new_session=True,  # the keyboard's interruption is for the sweep alone
            )

    def _socket(self) -> socket.socket:
        if self._control is None:
            raise Dismissed
        return self._control

    def _number(self, patience: float | None = None) -> int:
        """Return the next number that the nursery says, within `patience` s.

        Raises:
            OSError: If it has ended; a TimeoutError, which is one, if it says nothing in time.
        """
        control = self._socket()
        # a timeout of zero would mean something else
        control.settimeout(None if patience is None else patience + 1e-3)
        data = control.recv(NUMBER.size)
        if len(data) < NUMBER.size:
            raise OSError("the nursery has ended.")
        return int(NUMBER.unpack(data)[0])


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a worker: ours, one thread a library, and what is its own."""
    return {**os.environ, **dict.fromkeys(_THREADS, "1"), **extra}


def _ending(code: int) -> str:
    if code < 0:
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"
    return f"exit code {code}"
