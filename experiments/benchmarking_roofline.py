r"""How many systems a GPU could do in a second at most, and what part of that was reached.

A system needs :math:`F` operations and writes :math:`M` bytes, of which nothing but the trajectory
has to leave the chip. With :math:`P` operations and :math:`W` bytes a second, the bound is

.. math:: \min(P / F,\; W / M).

:math:`F` is that of Tsitouras' method at one step a save interval: six stages of the field, with a
sine as 25 operations, and 140 for the sums of two states and their error. :math:`P` and
:math:`W` are data sheets' for vector arithmetic, and for memory what a copy was seen to reach.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from hybridgen.experiments.benchmarking import Row, result_row

__all__ = ["GPUS", "OPERATIONS", "Peak", "fractions", "most"]


class Peak(NamedTuple):
    """What a GPU can do in a second.

    Arguments:
        operations: In vectors, by dtype.
        bytes: To and from its memory.
    """

    operations: dict[str, float]
    bytes: float


GPUS = {"H200": Peak({"float64": 34e12, "float32": 67e12}, 4.3e12)}
"""By a part of the name that torch gives them."""

OPERATIONS = {"pendulum": 280.0, "rlc": 200.0}
"""For an interval of a system, by work; the circuit's drive is computed once for all systems."""

SIZES = {"float64": 8, "float32": 4}
STATES = 2


def most(work: str, dtype: str, times: int, gpu: str) -> float | None:
    """Return how many systems can be done in a second at most; `None` if that is not known.

    Arguments:
        work: The work.
        dtype: The precision.
        times: How many save times.
        gpu: The name of the GPU.

    Example:
        >>> f"{most('pendulum', 'float64', 101, 'NVIDIA H200'):.1e}"
        '1.2e+09'
        >>> most("pendulum", "float64", 101, "an abacus")
    """
    peak = next((peak for name, peak in GPUS.items() if name in gpu), None)
    if peak is None or work not in OPERATIONS:
        return None
    arithmetic = peak.operations[dtype] / (OPERATIONS[work] * (times - 1))
    return min(arithmetic, peak.bytes / (SIZES[dtype] * STATES * times))


def fractions(rows: Sequence[Row], times: int) -> list[Row]:
    """Return rows with what part of the bound each throughput is; none for a CPU.

    Arguments:
        rows: The rows of a contest.
        times: How many save times its work has.
    """
    found = []
    for row in rows:
        if row["metric"] != "throughput" or not str(row["device"]).startswith("cuda"):
            continue
        gpu = torch.cuda.get_device_name(row["device"])
        bound = most(row["work"], row["dtype"], times, gpu)
        if bound is not None:
            parts = {k: row[k] / bound for k in ("value", "low", "high")}
            found.append(result_row(**{**row, "metric": "of_the_bound", "unit": "1", **parts}))
    return found
