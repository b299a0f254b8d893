"""Build C++ into a library, once: kept in the process, and in the user's cache folder."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from hybridgen.integrate.recording import UnrecordableError
from hybridgen.integrate.tableaus import Tableau

__all__ = ["REAL", "braced", "build", "compiler", "kept", "part", "preamble"]

FLAGS = ("-O3", "-march=native", "-std=c++17", "-fno-math-errno", "-fno-trapping-math")
SHARED = ("-shared", "-fPIC", "-Wl,-z,defs")
REAL = {torch.float64: "double", torch.float32: "float"}
"""What numbers are called in C++."""


@cache
def compiler() -> str | None:
    """Return the C++ compiler: that of the environment variable CXX, or one on the path."""
    named = os.environ.get("CXX")
    for name in (named,) if named else ("g++", "clang++", "c++"):
        found = shutil.which(name)
        if found:
            return found
    return None


def preamble(
    dtype: torch.dtype, tableau: Tableau, counts: Mapping[str, int], vectors: str = "lanes.h"
) -> str:
    """Return what stands before all else: the type of numbers, a method, and counts.

    Arguments:
        dtype: That of the state.
        tableau: The method.
        counts: Further names and their values.
        vectors: What a vector of members is: `"lanes.h"`, or on a GPU `"thread.h"`.
    """
    stages = len(tableau.b)
    defined = {"REAL": REAL[dtype], "ORDER": float(tableau.order), "STAGES": stages, **counts}
    lines = [f"#define {name} {value}" for name, value in defined.items()]
    rows = [list(r) + [0.0] * (stages - len(r)) for r in tableau.a]
    tables = {"C": tableau.c, "B": tableau.b, "E": tableau.e or (0.0,), "A": rows}
    lines += [part(vectors), part("batch.h"), part("lookup.h")]
    for name, table in tables.items():
        size = f"[][{stages}]" if name == "A" else "[]"
        lines.append(f"static constexpr real TABLEAU_{name}{size} = {braced(table)};")
    return "\n".join(lines)


def part(name: str) -> str:
    """Return a file of C++ that comes with the package."""
    return resources.files("hybridgen.integrate").joinpath(name).read_text()


def braced(values: Any) -> str:
    """Return nested sequences of numbers in C++."""
    if isinstance(values, int | float):
        return repr(values)
    return "{" + ", ".join(map(braced, values)) + "}"


def build(text: str) -> ctypes.CDLL:
    """Return C++ as a library, compiled unless that was done before.

    Raises:
        UnrecordableError: If there is no compiler, or it fails.
    """
    found = compiler()
    if found is None:
        raise UnrecordableError("there is no C++ compiler here; install g++ or set CXX")
    path = kept([text, *FLAGS, found, _processor()], ".so", lambda p: _compile(found, text, p))
    library = ctypes.CDLL(str(path))
    library.lanes.restype = ctypes.c_int64
    if hasattr(library, "pilot"):
        library.pilot.restype = ctypes.c_int64
    return library


def kept(parts: Sequence[str], suffix: str, make: Callable[[Path], None]) -> Path:
    """Return a file in the user's cache folder, made unless it is there.

    Arguments:
        parts: All that it depends on.
        suffix: How its name ends.
        make: Writes it to the path that it is given.
    """
    path = _folder() / f"{hashlib.sha256(chr(10).join(parts).encode()).hexdigest()}{suffix}"
    if not path.is_file():
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            made = Path(folder) / f"field{suffix}"
            make(made)
            os.replace(made, path)  # at once, so that another process never sees half a file
    return path


def _compile(found: str, text: str, path: Path) -> None:
    source = path.with_suffix(".cpp")
    source.write_text(text)
    command = [found, *FLAGS, str(source), *SHARED, "-o", str(path), "-lm"]
    # An older C library lacks some vector functions, and others have none.
    for more in (["-DVECTOR_MATHS"], []):
        tried = subprocess.run([*command, *more], capture_output=True, text=True, check=False)
        if not tried.returncode:
            return
    raise UnrecordableError(f"{found} failed: {tried.stderr.strip()[:500]}")


@cache
def _folder() -> Path:
    """Return a folder for compiled kernels that only this user can write into."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(base) / "hybridgen" / "kernels"
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        about = path.stat()
        private = not about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        private = private and about.st_uid == os.getuid() and os.access(path, os.W_OK)
    except OSError:
        private = False  # a home that cannot be written to
    if private:
        return path
    # Elsewhere, kernels live as long as the process.
    _KEPT.append(tempfile.TemporaryDirectory(prefix="hybridgen-kernels-"))
    return Path(_KEPT[-1].name)


_KEPT: list[tempfile.TemporaryDirectory[str]] = []


@cache
def _processor() -> str:
    """Return what distinguishes processors for which a compiler writes different code."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    flags = [line for line in lines if line.startswith(("flags", "Features", "model name"))]
    return "\n".join([platform.machine(), platform.processor(), *flags[:2]])
