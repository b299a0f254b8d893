"""Errors that a user can cause, each a sentence: what was given, what was expected, what to write.

Every class is a ``ValueError`` or a ``TypeError`` as well, so code that knows nothing of
hybridgen can still catch it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "ExpertError",
    "GradientError",
    "HybridgenError",
    "OutputExistsError",
    "ParameterError",
    "ShapeError",
    "ShiftError",
    "TrainingError",
    "UnsupportedError",
    "nearest",
]


class HybridgenError(Exception):
    """Base of every error raised on purpose by hybridgen."""


class ParameterError(HybridgenError, ValueError):
    """An expert parameter is misspelt, missing, out of range or not finite."""


class ShapeError(HybridgenError, ValueError):
    """A tensor has the wrong shape."""


class ExpertError(HybridgenError, TypeError):
    """A user's expert function does not keep its contract."""


class GradientError(HybridgenError, TypeError):
    """A gradient was asked of an expert that has none: a black box, or one written in numpy."""


class ShiftError(HybridgenError, ValueError):
    """A shift is empty, unknown, or leaves the range where the expert is valid."""


class DataError(HybridgenError, ValueError):
    """A data set lacks something, or holds something that it must not."""


class ConfigError(HybridgenError, ValueError):
    """A configuration has an unknown key or a value of the wrong type."""


class OutputExistsError(HybridgenError, ValueError):
    """The output is there already and overwriting was not asked for."""


class CheckpointError(HybridgenError, ValueError):
    """A checkpoint is damaged, incomplete or was written for another model."""


class TrainingError(HybridgenError, ValueError):
    """Training cannot go on: the loss is not finite, or the data do not suit the objective."""


class UnsupportedError(HybridgenError, TypeError):
    """The object cannot do what was asked; the message names what can."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint that names the closest of `known`, or lists them all.

    Example:
        >>> nearest("omega", ["omega0", "alpha"])
        "did you mean 'omega0'?"
        >>> nearest("q", ["omega0", "alpha"])
        "known: 'omega0', 'alpha'"
    """
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return "known: " + (", ".join(map(repr, known)) or "none")
