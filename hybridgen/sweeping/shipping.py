"""A sampler on its way to other processes: pickled once, by cloudpickle, before any is started.

Functions of a script or of a user's file, lambdas and local classes travel as they are. An open
file, a lock or a connection cannot; the error says which part of the sampler holds it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import types
from collections.abc import Iterator
from typing import Any

import cloudpickle

from hybridgen.errors import UnsupportedError

__all__ = ["packed"]


def packed(sampler: Any) -> bytes:
    """Return a sampler as bytes that another process can make it of.

    Arguments:
        sampler: A `Sampler`.

    Returns:
        A pickle; `pickle.loads` reads it where cloudpickle is installed.

    Raises:
        UnsupportedError: If it cannot be pickled, naming the part and what to do.
    """
    with _by_value():
        try:
            return bytes(cloudpickle.dumps(sampler))
        except Exception as error:  # pickling raises whatever the object's own code raises
            where, why = _guilty(sampler)
            raise UnsupportedError(
                f"the {type(sampler).__name__} cannot be sent to worker processes: {where}"
                f"{why or error}. Open files, locks and connections inside the function that "
                "needs them, or sweep in this process with workers=0."
            ) from error


def _guilty(value: Any, path: str = "") -> tuple[str, str]:
    """Return the path to the smallest part that cannot be pickled, and what pickle says."""
    for name, part in _parts(value):
        try:
            cloudpickle.dumps(part)
        except Exception as error:  # as above
            inner = f"{path}.{name}" if path else name
            deeper = _guilty(part, inner)
            return deeper if deeper[1] else (f"{inner} is the reason, ", str(error))
    return "", ""


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, types.FunctionType):
        cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        yield from ((name, cell.cell_contents) for name, cell in cells)
        used = value.__globals__
        yield from ((name, used[name]) for name in value.__code__.co_names if name in used)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
    elif isinstance(value, dict):
        yield from ((str(k), v) for k, v in value.items())
    elif isinstance(value, list | tuple):
        yield from ((str(i), v) for i, v in enumerate(value))
    elif not isinstance(value, type | types.ModuleType):
        yield from getattr(value, "__dict__", {}).items()


@contextlib.contextmanager
def _by_value() -> Iterator[None]:
    """Let what is defined in modules that no other process could import travel by value."""
    registered = []
    for name, module in list(sys.modules.items()):
        if _is_local(name, module):
            cloudpickle.register_pickle_by_value(module)
            registered.append(module)
    try:
        yield
    finally:
        for module in registered:
            cloudpickle.unregister_pickle_by_value(module)


def _is_local(name: str, module: types.ModuleType) -> bool:
    """Return whether a module is of a user's file that nobody finds by the module's name."""
    file = getattr(module, "__file__", None)
    if not file or name == "__main__" or module.__name__ != name:
        return False
    if file.startswith((sys.prefix, sys.base_prefix)):
        return False
    top = name.partition(".")[0]
    # the finders themselves, since find_spec is content with what is in sys.modules
    return all(finder.find_spec(top, None) is None for finder in sys.meta_path)
