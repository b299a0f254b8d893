"""A nursery and the workers it forks: each worker is sent a sampler, then jobs, and answers each.

To start Python and torch takes seconds, and the search for a member that ends its process starts
many. So one process imports everything and forks a worker whenever it is asked to. It runs nothing
of the sampler's, starts no threads and wakes no GPU, so that a fork of it is a clean beginning.

Nursery and workers end when the other end of their socket does: none outlives the sweep, however
that ended. An interruption from the keyboard is not for them: the sweep decides. What a sampler
prints goes to standard error.
"""

from __future__ import annotations

import faulthandler
import os
import pickle
import queue
import signal
import socket
import struct
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from hybridgen.sweeping.working import StoreFault, Workman, fault_of

__all__ = ["NUMBER", "answer", "nurse"]

# how numbers go over the nursery's socket
NUMBER = struct.Struct("<q")


def nurse() -> None:
    """Fork workers, and say how they ended, until the socket at standard input is closed.

    A message that brings a file descriptor asks for a worker at the other end of it, and is
    answered with its process number. One without is a process number, and is answered with the
    exit status of that worker.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    control = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, NUMBER.size, 1)
        if not data:
            return
        if not descriptors:
            _, status = os.waitpid(NUMBER.unpack(data)[0], 0)
            control.sendall(NUMBER.pack(os.waitstatus_to_exitcode(status)))
            continue
        worker = os.fork()
        if worker == 0:
            control.close()
            try:
                _serve(Connection(descriptors[0]))
            finally:
                os._exit(1)
        os.close(descriptors[0])
        control.sendall(NUMBER.pack(worker))


def _serve(peer: Connection) -> None:
    """Do jobs until there are no more."""
    todo: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(peer, todo), daemon=True).start()
    payload, store, seed = todo.get()
    try:
        workman = Workman(pickle.loads(payload), Path(store), seed)
    except BaseException as error:  # unpickling runs whatever the sampler's modules do
        peer.send(("raised", fault_of(error)))
        return
    peer.send(("done", None))
    while True:
        limit, name, arguments = todo.get()
        if limit is not None:
            # should the sweep be gone, and this process hang where no thread of it is served
            faulthandler.dump_traceback_later(2.0 * limit + 60.0, exit=True)
        state, value = answer(workman, name, arguments)
        faulthandler.cancel_dump_traceback_later()
        peer.send((state, value))


def answer(workman: Workman, name: str, arguments: tuple[Any, ...]) -> tuple[str, Any]:
    """Do a job.

    Arguments:
        workman: Who does it.
        name: Which one.
        arguments: What it takes.

    Returns:
        `"done"` and the result, `"raised"` and a `Fault`, or `"store"` and what the store said.
    """
    try:
        return "done", getattr(workman, name)(*arguments)
    except StoreFault as error:
        return "store", str(error)
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # a sampler may raise anything, SystemExit too
        return "raised", fault_of(error)


def _listen(peer: Connection, todo: queue.SimpleQueue[Any]) -> None:
    """Pass jobs on; when there will be no more, end the process, whatever it is at."""
    try:
        while True:
            todo.put(peer.recv())
    except (EOFError, OSError):
        os._exit(0)
