"""Stopping in time: one interruption ends a sweep after the tasks at hand, a second one at once.

SIGTERM counts as an interruption, so that a batch system that warns before it kills finds the
store whole. Handlers are put in place for as long as the context lasts, and in the main thread
only: elsewhere Python does not allow it, and a sweep goes on until it is done.
"""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

__all__ = ["Interruption"]


class Interruption:
    """A context that turns the first interruption into a wish and the second into an exception."""

    _signals = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.wished = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._heard) for s in self._signals}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if self.wished:
            raise KeyboardInterrupt
        self.wished = True
        logging.getLogger("hybridgen").warning(
            "stopping when the tasks at hand are done; interrupt again to leave at once"
        )
