"""What a sweep costs: a million pendulums sampled, integrated and written, in parts and as one.

The parts are measured one by one over the same members, chunk by chunk as the sweep does them:
*sampling* (parameters, initial states and noise), *integrating*, and *writing* (naming the arrays,
compressing, checksums, the files). What a sweep adds to them is its plan, its processes, its
records. Times are wall time, and processor time of all processes together; the memory is the peak
of the largest process. Every measurement has fresh processes with one thread each, and they take
turns.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import xarray as xr
import zarr
import zarr.codecs
from hybridgen.experiments.benchmarking import Row, in_turn, result_row
from hybridgen.experiments.benchmarking_machine import Family, peak_memory
from hybridgen.experiments.benchmarking_problems import members
from hybridgen.simulators import pendulum

from hybridgen.config import config
from hybridgen.integrate import solve
from hybridgen.io import to_dataset
from hybridgen.progress import Progress, bar
from hybridgen.rundir import RunDir
from hybridgen.simulator import Simulator
from hybridgen.sweeping import sweep
from hybridgen.threads import one_thread

__all__ = ["CONFIGS", "Config", "main", "parts", "swept"]

NAME = "bench_sweep"
PARTS = ("sampling", "integrating", "writing")
SUM = "the parts, summed"
Spent = dict[str, tuple[float, float]]


@config
class Config:
    """Settings of the benchmark.

    Arguments:
        members: How many pendulums; each number is a work of its own, so that memory can be
            compared.
        workers: With how many processes the sweep is done; 0 is this process, unguarded.
        times: How many save times, 0.1 s apart.
        rounds: How often everything is measured.
        seed: The seed of the draw.
    """

    members: tuple[int, ...] = (1_000_000, 100_000)
    workers: tuple[int, ...] = (0, 1, 2)
    times: int = 201
    rounds: int = 3
    seed: int = 0


CONFIGS: dict[str, dict[str, Any]] = {
    "small": {"members": (2000,), "workers": (1,), "times": 21, "rounds": 1}
}


def main(cfg: Config, run: RunDir) -> list[Row]:
    """Run the benchmark."""
    works = {(f"sweep of {n}", "float64"): partial(_work, cfg, n, run.path) for n in cfg.members}
    return in_turn(run, works, pinned=False)


def _work(cfg: Config, n: int, folder: Path) -> list[Row]:
    """Return the rows of a sweep of `n` members."""
    found: dict[str, list[dict[str, Any]]] = {}
    chunk = 0
    with bar(None, f"sweep of {n}") as tell:
        for i in range(cfg.rounds):
            for j, workers in enumerate(cfg.workers):
                one = _apart(swept, cfg, n, workers, folder)
                chunk = one["chunk"]
                found.setdefault(_name(workers), []).append(one)
                tell(Progress(i * len(cfg.workers) + j, cfg.rounds * len(cfg.workers)))
            pieces = _apart(parts, cfg, n, chunk, folder)
            for name, (wall, cpu) in pieces.items():
                found.setdefault(name, []).append({"wall": wall, "cpu": cpu})
    order = [*PARTS, SUM, *map(_name, cfg.workers)]
    same = {"experiment": NAME, "work": f"sweep of {n}", "dtype": "float64", "device": "cpu"}
    rows: list[Row] = []
    for metric, key in (("wall_time", "wall"), ("cpu_time", "cpu")):
        whole = median(one[key] for one in found[SUM])
        for name in order:
            values = [one[key] for one in found[name]]
            rows.append(result_row(
                **same, contestant=name, metric=metric, value=median(values), low=min(values),
                high=max(values), unit="s", ratio_to=SUM, ratio=median(values) / whole,
                knob=f"tasks of {chunk}" if name.startswith("hybridgen") else None,
            ))  # fmt: skip
    for name in map(_name, cfg.workers):
        peak = max(one["peak"] for one in found[name])
        rows.append(result_row(
            **same, contestant=name, metric="peak_memory", value=peak, unit="GB"
        ))  # fmt: skip
    return rows


def _name(workers: int) -> str:
    if workers == 0:
        return "hybridgen sweep, in this process"
    return f"hybridgen sweep, {workers} worker{'s' * (workers > 1)}"


def _apart(measure: Callable[..., Any], cfg: Config, n: int, how: int, folder: Path) -> Any:
    """Return what a measurement finds in a process of its own."""
    spawn = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory(dir=folder) as place,
        ProcessPoolExecutor(1, mp_context=spawn) as pool,
    ):
        return pool.submit(measure, n, how, cfg.times, cfg.seed, place).result()


def _simulator(times: int) -> Simulator:
    return dataclasses.replace(pendulum.simulator, times=0.1 * np.arange(times))


def _now() -> tuple[float, float]:
    """Return wall time and the processor time of this process."""
    return time.perf_counter(), time.process_time()


def swept(n: int, workers: int, times: int, seed: int, folder: str) -> dict[str, Any]:
    """Measure a sweep, in this process and the workers that it starts.

    Arguments:
        n: How many members.
        workers: How many processes; 0 for this one.
        times: How many save times.
        seed: The seed of the draw.
        folder: Where the store may be.

    Returns:
        `wall` and `cpu` in s; `peak`, the memory of the largest process in GB; `chunk`, how many
        members a task had.
    """
    store = Path(folder) / "sweep.zarr"
    with one_thread(), Family() as family:
        start = _now()
        sweep(_simulator(times), n, store, seed=seed, workers=workers, progress=False)
        wall, cpu = np.subtract(_now(), start).tolist()
    chunk = zarr.open_array(store, path="train/y", mode="r").chunks[0]
    peak = max(peak_memory(), family.peak)
    return {"wall": wall, "cpu": cpu + family.cpu, "peak": peak, "chunk": int(chunk)}


def parts(n: int, chunk: int, times: int, seed: int, folder: str) -> Spent:
    """Measure sampling, integrating and writing one by one, in this process.

    Arguments:
        n: How many members.
        chunk: How many of them are done at a time.
        times: How many save times.
        seed: The seed of the draw.
        folder: Where the store may be.

    Returns:
        Wall time and processor time of each part and of their sum, in s.
    """
    plain = _simulator(times)
    simulator = plain.paced(plain.pace(np.arange(64), n))
    t = torch.from_numpy(simulator.times)
    names = simulator.truth.param_names
    writer = _Writer(Path(folder) / "parts.zarr", n, chunk)
    spent: dict[str, list[float]] = {name: [0.0, 0.0] for name in PARTS}
    with one_thread():
        for first in range(0, n, chunk):
            indices = np.arange(first, min(first + chunk, n))
            with _noted(spent["sampling"]):
                known = simulator.outline(indices, seed)
            y0, z = members(plain, indices, seed, names)
            x0, parameters = torch.from_numpy(y0), torch.from_numpy(np.stack(z, axis=1))
            with _noted(spent["integrating"]):
                solution = solve(
                    simulator.truth, x0, t, parameters,
                    rtol=simulator.rtol, atol=simulator.atol,
                    substeps=simulator.schedule, compile=simulator.compile,
                )  # fmt: skip
            with _noted(spent["sampling"]):
                y = simulator.noise.add(
                    solution.y, root_seed=seed, stream="benchmark", indices=indices, space=0
                )
            with _noted(spent["writing"]):
                batch = known.replace(
                    y=y, clean=solution.y, status=solution.status, t_reached=solution.t_reached
                )
                writer.write(to_dataset(batch, **simulator.describe(), seed=seed), first)
    spent[SUM] = [sum(spent[name][k] for name in PARTS) for k in (0, 1)]
    return {name: (wall, cpu) for name, (wall, cpu) in spent.items()}


@contextmanager
def _noted(spent: list[float]) -> Iterator[None]:
    """Add what is spent to wall time and processor time."""
    start = _now()
    yield
    for k, (a, b) in enumerate(zip(start, _now(), strict=True)):
        spent[k] += b - a


class _Writer:
    """Arrays of a zarr store, written a chunk at a time.

    Arguments:
        store: Its folder.
        n: How many members there will be.
        chunk: How many of them a chunk has.
    """

    def __init__(self, store: Path, n: int, chunk: int) -> None:
        self._group = zarr.open_group(store, mode="w")
        self._n, self._chunk = n, min(chunk, n)
        self._arrays: dict[str, zarr.Array] = {}

    def write(self, data: xr.Dataset, first: int) -> None:
        """Write what a data set has along `sample`, from a member on."""
        for key, variable in data.variables.items():
            if variable.dims[:1] == ("sample",) and variable.dtype.kind in "fib":
                name = str(key)
                if name not in self._arrays:
                    self._arrays[name] = self._create(name, variable)
                self._arrays[name][first : first + len(variable)] = variable.values

    def _create(self, name: str, variable: xr.Variable) -> zarr.Array:
        blosc = zarr.codecs.BloscCodec(cname="lz4", clevel=5, shuffle="shuffle")
        return self._group.create_array(
            name,
            shape=(self._n, *variable.shape[1:]),
            chunks=(self._chunk, *variable.shape[1:]),
            dtype=variable.dtype,
            compressors=[blosc, zarr.codecs.Crc32cCodec()],
        )
