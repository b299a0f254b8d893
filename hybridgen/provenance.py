"""Where a result came from: versions, source revision and machine.

Nothing here names a host, a user or a path, so it can stand in a public file.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

__all__ = ["git_revision", "machine", "processors", "versions"]

PACKAGES = (
    "hybridgen",
    "torch",
    "torchdiffeq",
    "numpy",
    "scipy",
    "xarray",
    "zarr",
    "safetensors",
    "pydantic",
    "matplotlib",
)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide a result.

    Returns:
        Versions by name, as the package metadata state them, or `"not installed"`.

    Example:
        >>> "torch" in versions()
        True
    """
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def git_revision(folder: str | os.PathLike[str] | None = None) -> str | None:
    """Return the git revision of the checkout that the package lies in.

    Arguments:
        folder: A folder of tracked files; by default that of the package.

    Returns:
        The commit, with `+dirty` if files were changed or added since; None where the folder is
        no part of a checkout (an installed package), or there is no git.
    """
    here = Path(folder) if folder is not None else Path(__file__).parent
    # an installed package may lie inside a checkout of something else: is this folder tracked?
    if not _git(here, "ls-files", "--", "."):
        return None
    commit = _git(here, "rev-parse", "HEAD")
    return f"{commit}+dirty" if commit and _git(here, "status", "--porcelain") else commit


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        # no optional locks: reading a revision must not disturb a commit under way
        found = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=30,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return (found.stdout.strip() or None) if found.returncode == 0 else None


def machine(device: str = "cpu") -> dict[str, str | int]:
    """Return what the run time depends on.

    Arguments:
        device: The torch device of the run; for a CUDA device its model is asked of torch.

    Returns:
        Operating system, architecture, processor model, processors this process may use, device.
    """
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "cpu": _cpu_model(),
        "processors": processors(),
        "device": _device_model(device),
    }


def processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_model() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or "unknown"


def _device_model(device: str) -> str:
    if not device.startswith("cuda"):
        return device
    import torch

    return f"{device} ({torch.cuda.get_device_name(device)})"
