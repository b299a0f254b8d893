"""What a sampler is, as text that can be compared: so that two halves of a sweep are of one thing.

A fingerprint lists, by path, everything that a sampler's numbers depend on: numbers as they are,
arrays and networks by a hash, functions by the code they were compiled to, with what they close
over and the functions of their own module that they call. Beside it stand the versions of the
packages and a hash of the source code of this one.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from hybridgen.provenance import versions

__all__ = ["code_versions", "differences", "fingerprint"]

_PACKAGES = ("python", "hybridgen", "torch", "numpy")
# what no number depends on
_ASIDE = ("cli", "diagnostics", "report", "reading", "plots", "plots_fit", "plots_sweep")


def fingerprint(sampler: Any) -> dict[str, str]:
    """Return what a sampler's numbers depend on.

    Arguments:
        sampler: A `Sampler`.

    Returns:
        Short texts by path.

    Example:
        >>> from hybridgen.simulators import pendulum
        >>> fingerprint(pendulum.simulator)["support.omega0.0"]
        '1.5'
    """
    found = dict(_walk("", sampler, frozenset()))
    return dict(sorted({k or "sampler": v for k, v in found.items()}.items()))


def code_versions() -> dict[str, str]:
    """Return the versions that numbers depend on, and a hash of the source of this package."""
    installed = versions()
    return {name: installed[name] for name in _PACKAGES} | {"hybridgen source": _source()}


@functools.cache
def _source() -> str:
    folder = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        name = path.relative_to(folder).as_posix()
        if name.removesuffix(".py").split("/")[0] not in _ASIDE:
            digest.update(name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return a line for each entry in which two mappings differ.

    Example:
        >>> differences({"seed": 0, "n": 5}, {"seed": 1, "n": 5})
        ['seed: 0 -> 1']
    """
    names = [*before, *(k for k in now if k not in before)]
    missing = "nothing"
    return [
        f"{k}: {before.get(k, missing)} -> {now.get(k, missing)}"
        for k in names
        if before.get(k, missing) != now.get(k, missing)
    ]


def _walk(path: str, value: Any, above: frozenset[int]) -> Iterator[tuple[str, str]]:
    """Yield path and text of all that a value is made of; `above` holds what it is part of."""
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        yield path, repr(value)
        return
    if id(value) in above:
        return
    above = above | {id(value)}
    if (digest := _digest(value)) is not None:
        yield path, digest
        return
    if isinstance(value, set | frozenset):
        yield path, _plain(value)
        return
    if isinstance(value, types.ModuleType | type):
        yield path, getattr(value, "__qualname__", value.__name__)
        return
    for name, part in _parts(value):
        yield from _walk(f"{path}.{name}" if path else name, part, above)
    yield path, type(value).__name__


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from ((str(k), v) for k, v in value.items())
    elif isinstance(value, list | tuple):
        yield from ((str(i), v) for i, v in enumerate(value))
    elif isinstance(value, functools.partial):
        yield from (("func", value.func), ("args", value.args), ("keywords", value.keywords))
    elif isinstance(value, types.MethodType):
        yield from (("self", value.__self__), ("function", value.__func__))
    elif isinstance(value, types.FunctionType):
        yield from _function(value)
    elif isinstance(value, torch.nn.Module):
        yield "network", repr(value)
        yield from value.state_dict().items()
        plain = {k: v for k, v in vars(value).items() if not k.startswith("_")}
        yield from plain.items()
    elif dataclasses.is_dataclass(value):
        yield from ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
    else:
        yield from getattr(value, "__dict__", {}).items()


def _function(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield the code of a function, what it closes over and what it uses of its own module."""
    code = function.__code__
    yield "code", _of_code(code)
    yield "defaults", function.__defaults__
    yield "kwdefaults", function.__kwdefaults__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        yield name, cell.cell_contents
    for name in sorted(_names(code)):
        used = function.__globals__.get(name)
        if isinstance(used, types.FunctionType) and used.__module__ != function.__module__:
            continue  # of a package, which has a version
        if not isinstance(used, types.ModuleType | type | None):
            yield name, used


def _names(code: types.CodeType) -> set[str]:
    inner = [c for c in code.co_consts if isinstance(c, types.CodeType)]
    return set(code.co_names).union(*map(_names, inner))


def _of_code(code: types.CodeType) -> str:
    constants = [
        _of_code(c) if isinstance(c, types.CodeType) else _plain(c) for c in code.co_consts
    ]
    parts = (code.co_code.hex(), repr(code.co_names), repr(code.co_varnames), *constants)
    return _sha("\n".join(parts).encode())


def _plain(value: Any) -> str:
    """Return the text of a constant; that of a set does not depend on the order of its members."""
    return repr(sorted(map(repr, value)) if isinstance(value, set | frozenset) else value)


def _digest(value: Any) -> str | None:
    """Return the text of an array of numbers; None for what is no array."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, xr.DataArray):
        value = value.values
    if isinstance(value, np.generic | np.ndarray):
        raw = np.ascontiguousarray(value)
        return f"{raw.dtype} {raw.shape} {_sha(raw.tobytes())}"
    return None


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
