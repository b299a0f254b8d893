"""How a sweep lies on disk: a group of a zarr v3 store, its arrays made before anything is drawn.

The group is what `hybridgen.io.to_dataset` makes of all members, so xarray opens it as it opens
any data set. An array along `sample` is cut in chunks of as many members as a task has, so each
task owns whole chunks, and nobody reads what he writes. `status` is filled with `not_written`:
until a task is done its members say so. What does not depend on the members (times, names, units,
attributes) is a few small files, which the plan keeps a copy of.

Records, lock and plan are in a folder inside the array `status`, where a reader of zarr looks for
chunks only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
import zarr.codecs
from numpy.typing import NDArray
from zarr.storage import MemoryStore

from hybridgen.files import write_bytes_atomic
from hybridgen.integrate import Status

__all__ = ["Region", "chunk_file", "folder_of", "materialise", "parents_of", "static_files"]

_META = "zarr.json"


def folder_of(store: Path, group: str) -> Path:
    """Return the folder of the records, the lock and the plan of a group."""
    return store / group / "status" / "sweep"


def chunk_file(store: Path, group: str, array: str, axes: int, task: int) -> Path:
    """Return the file that holds the chunk of a task.

    Arguments:
        store: The folder of the store.
        group: The group.
        array: The name of an array along `sample`.
        axes: How many axes it has.
        task: The number of the task.
    """
    return store.joinpath(group, array, "c", str(task), *["0"] * (axes - 1))


def parents_of(group: str) -> tuple[str, ...]:
    """Return the metadata files of the groups above a group, from the root down.

    Example:
        >>> parents_of("ood/far")
        ('zarr.json', 'ood/zarr.json')
    """
    parts = group.split("/")
    return tuple("/".join([*parts[:i], _META]) for i in range(len(parts)))


def static_files(
    template: xr.Dataset, group: str, n: int, task_members: int
) -> tuple[dict[str, bytes], dict[str, int]]:
    """Return the files of a store that do not depend on what is drawn.

    Arguments:
        template: A data set of at least one member.
        group: The group to make of it.
        n: How many members there will be.
        task_members: How many of them a chunk has.

    Returns:
        The content of each file by its path in the store, and how many axes each of the arrays
        along `sample` has.
    """
    numbers = [str(k) for k, v in template.variables.items() if v.dtype.kind in "fiub"]
    codecs = (zarr.codecs.BloscCodec(cname="lz4", shuffle="shuffle"), zarr.codecs.Crc32cCodec())
    memory: dict[str, Any] = {}
    template.isel(sample=slice(1)).to_zarr(
        MemoryStore(memory),
        group=group,
        mode="w",
        consolidated=False,
        encoding={k: {"compressors": codecs} for k in numbers},
    )
    files = {name: buffer.to_bytes() for name, buffer in memory.items()}
    axes = {}
    for name in sorted(files):
        array = name.removesuffix(f"/{_META}").removeprefix(f"{group}/")
        described = json.loads(files[name]) if name.endswith(_META) else {}
        if (described.get("dimension_names") or [None])[0] != "sample":
            continue
        described["shape"][0] = n
        described["chunk_grid"]["configuration"]["chunk_shape"][0] = task_members
        if array == "status":
            described["fill_value"] = int(Status.not_written)
        axes[array] = len(described["shape"])
        files[name] = json.dumps(described, indent=2).encode()
    drawn = tuple(f"{group}/{array}/c/" for array in axes)
    return {k: v for k, v in sorted(files.items()) if not k.startswith(drawn)}, axes


def materialise(store: Path, group: str, files: Mapping[str, bytes]) -> None:
    """Write those of the files that are not there as they should be.

    The groups above, which may be another's, and the group itself, whose attributes tell more at
    the end, are made where there are none and else left alone.

    Arguments:
        store: The folder of the store.
        group: The group.
        files: Contents by path in the store, as `static_files` makes them.
    """
    above = (*parents_of(group), f"{group}/{_META}")
    for name, content in files.items():
        path = store / name
        if path.is_file() and (name in above or path.read_bytes() == content):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes_atomic(path, content)


class Region:
    """The arrays of a group, open for writing whole tasks.

    Arguments:
        store: The folder of the store.
        group: The group.
        axes: How many axes each of its arrays along `sample` has.
        n: How many members there are.
        task_members: How many of them a task has.
    """

    def __init__(
        self, store: Path, group: str, axes: Mapping[str, int], n: int, task_members: int
    ) -> None:
        self._store, self._group, self._axes = store, group, dict(axes)
        self._n, self._size = n, task_members
        # a chunk that is all fill value is written like any other, so that each task has its files
        self._arrays = {
            name: zarr.open_array(store / group / name, mode="r+").with_config(
                {"write_empty_chunks": True}
            )
            for name in axes
        }

    def bounds(self, task: int) -> tuple[int, int]:
        """Return the first member of a task, and the one after its last."""
        return task * self._size, min((task + 1) * self._size, self._n)

    def blank(self, task: int) -> dict[str, NDArray[Any]]:
        """Return the values of a task of which nothing is known: every array's fill value."""
        start, stop = self.bounds(task)
        return {
            name: np.full((stop - start, *a.shape[1:]), a.fill_value, dtype=a.dtype)
            for name, a in self._arrays.items()
        }

    def write(self, task: int, values: Mapping[str, NDArray[Any]]) -> dict[str, list[int]]:
        """Write all chunks of a task, and make them last through a power cut.

        Arguments:
            task: The number of the task.
            values: The values of each array along `sample`, `(N, ...)` for its N members.

        Returns:
            The stamp of each chunk file: its size in bytes and its checksum.
        """
        start, stop = self.bounds(task)
        stamps = {}
        for name, array in self._arrays.items():
            array[start:stop] = values[name]
        # all together, since the first takes most of the others along
        for name in self._arrays:
            path = chunk_file(self._store, self._group, name, self._axes[name], task)
            with open(path, "rb") as file:
                os.fsync(file.fileno())
                size = file.seek(-4, os.SEEK_END) + 4
                stamps[name] = [size, int.from_bytes(file.read(4), "little")]
        return stamps
