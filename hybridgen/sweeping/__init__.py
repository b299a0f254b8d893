"""Sweeps: simulations by the million, stored chunk by chunk, resumable and verified.

`sweep` fills a group of a zarr store from a `Simulator` or an `Augmenter`, on this machine or on a
dask cluster; `verify` finds what was damaged since and `repair` does it again; `failure_map` shows
where members fail.
"""

from hybridgen.sweeping.failing import failure_map
from hybridgen.sweeping.job import Options
from hybridgen.sweeping.outcome import SweepResult, SweepStoppedError
from hybridgen.sweeping.place import move_aside
from hybridgen.sweeping.running import sweep
from hybridgen.sweeping.verifying import Verification, groups_of, origin_of, repair, verify

__all__ = [
    "Options",
    "SweepResult",
    "SweepStoppedError",
    "Verification",
    "failure_map",
    "groups_of",
    "move_aside",
    "origin_of",
    "repair",
    "sweep",
    "verify",
]
