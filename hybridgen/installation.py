"""What hybridgen needs of a machine, and whether it is there; no network is asked."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from hybridgen.provenance import machine, processors, versions

__all__ = ["examine"]

Finding = tuple[str, bool, str]


def examine(folder: str | os.PathLike[str] = ".") -> list[Finding]:
    """Examine the packages, the device, the threads, the compiler and the output directory.

    Arguments:
        folder: Where runs are to be written.

    Returns:
        For each thing looked at its name, whether all is well, and what was seen.
    """
    return [_python(), *_packages(), *_device(), _compiler(), _writable(Path(folder))]


def _python() -> Finding:
    ok = sys.version_info >= (3, 11)
    return "python", ok, versions()["python"] + ("" if ok else "; install 3.11 or newer")


def _packages() -> list[Finding]:
    found = {k: v for k, v in versions().items() if k not in ("python", "hybridgen")}
    return [
        (name, version != "not installed", version)
        if version != "not installed"
        else (name, False, f"not installed; pip install {name}")
        for name, version in found.items()
    ]


def _device() -> list[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        # a broken installation of torch is what this command is there to find
        return [("device", False, f"torch cannot be imported: {error}")]
    names = ["cpu"]
    if torch.cuda.is_available():
        names += [
            f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())
        ]
    value = torch.linalg.solve(torch.eye(2), torch.ones(2, 1)).sum().item()
    threads, usable = torch.get_num_threads(), processors()
    advice = "" if threads <= usable else f"; write OMP_NUM_THREADS={usable}"
    return [
        ("device", value == 2.0, f"{', '.join(names)}; {machine()['cpu']}"),
        ("threads", not advice, f"{threads} of torch on {usable} processors{advice}"),
    ]


def _compiler() -> Finding:
    names = [os.environ.get("CXX", ""), "c++", "g++", "clang++", "cl"]
    found = next((n for n in names if n and shutil.which(n)), None)
    if found:
        return "compiler", True, found
    # torch.compile needs one; without it the same code runs uncompiled
    return "compiler", True, "none: integration runs uncompiled, which is slower"


def _writable(folder: Path) -> Finding:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"hybridgen")
    except OSError as error:
        return "output", False, f"{error.strerror}: {folder}; go to a folder of your own"
    free = shutil.disk_usage(folder).free / 2**30
    return "output", True, f"the current folder can be written to, {free:.0f} GiB free"
