"""How many threads small computations take: one, since handing out the work costs more than it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["one_thread"]


@contextmanager
def one_thread(wanted: bool = True) -> Iterator[None]:
    """Let torch compute on one thread; afterwards it takes as many as before.

    A hundred states a step are too few to share: on a busy machine threads that wait for each
    other make a training five times slower.

    Arguments:
        wanted: Whether to; False leaves everything as it is.

    Example:
        >>> with one_thread():
        ...     torch.get_num_threads()
        1
    """
    before = torch.get_num_threads()
    if wanted:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
