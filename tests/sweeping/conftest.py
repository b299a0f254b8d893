"""Simulators of simple decay, some of whose members make trouble."""

import hashlib
import os
import time

import numpy as np
import pytest
import torch

from hybridgen import ODEExpert, Param, Simulator, State
from hybridgen.noise import GaussianNoise


def _trouble(what):
    if what == "raise":
        raise ValueError("no luck")
    if what == "exit":
        os._exit(7)
    if what == "kill":
        os.kill(os.getpid(), 9)
    if what == "hang":
        time.sleep(1000.0)


def decaying(what="", above=2.0, seconds=0.0, times=11):
    """A simulator of y' = -k y with k in (0, 1); where k is above a bound something happens."""

    def decay(t, y, z):
        if seconds:
            time.sleep(seconds)
        bad = z.k > above
        if what == "nan":
            return torch.where(bad[..., None], torch.nan, -z.k[..., None] * y)
        if bool(bad.any()):
            _trouble(what)
        return -z.k[..., None] * y

    truth = ODEExpert(decay, states=(State("y", "V"),), params=(Param("k", "1/s", 0.0, 1.0),))
    return Simulator(
        truth=truth,
        expert=truth,
        support={"k": (0.0, 1.0), "y": (1.0, 2.0)},
        times=np.linspace(0.0, 1.0, times),
        noise=GaussianNoise(0.01),
        problem="decay",
    )


@pytest.fixture(scope="session")
def simulator():
    """What makes simulators."""
    return decaying


def chunk_sums(store):
    """The hash of every file of a store but records and plan, which say who did what, and how."""
    return {
        p.relative_to(store).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(store.rglob("*"))
        if p.is_file() and not p.name.startswith(("done-", "plan."))
    }


@pytest.fixture
def sums():
    """What hashes a store."""
    return chunk_sums
