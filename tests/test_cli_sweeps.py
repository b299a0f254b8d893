"""The commands that sweep: simulate, augment and verify, with their options."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hybridgen.simulators import pendulum
from typer.testing import CliRunner

from hybridgen.cli import app
from hybridgen.io import to_batch
from hybridgen.models import APHYNITY, Convolutional
from hybridgen.reading.formats import read_group
from hybridgen.store import write_store
from hybridgen.sweeping import verify

PLANT = """
import numpy as np
import torch
from hybridgen import GaussianNoise, ODEExpert, Param, Simulator, State
from hybridgen.simulators import pendulum
from helper import rate

def tank(t, y, z):
    return rate(z.k)[..., None] * y

truth = ODEExpert(tank, states=(State("h", "m"),), params=(Param("k", "1/s", 0.0, 1.0),))
simulator = Simulator(
    truth=truth,
    expert=truth,
    support={"k": (0.0, 1.0), "h": (1.0, 2.0)},
    times=np.linspace(0.0, 1.0, 5),
    noise=GaussianNoise(0.1),
)
"""

runner = CliRunner()


def invoke(*arguments):
    return runner.invoke(app, list(map(str, arguments)))


def works(*arguments):
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def fails(message, *arguments, code=2):
    result = invoke(*arguments)
    assert result.exit_code == code, result.output
    assert message in " ".join(result.output.split()), result.output


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("my plant")
    (folder / "plant.py").write_text(PLANT)
    (folder / "helper.py").write_text("def rate(k):\n    return -k\n")
    return folder


def test_a_simulator_of_ones_own_is_swept_verified_and_repaired(here, tmp_path, monkeypatch):
    """Its file travels to the workers, with what it imports from beside it."""
    store, target = tmp_path / "a", f"{here}/plant.py:simulator"
    draw = ("simulate", target, "-n", 40, "--seed", 3, "--out", store, "--workers", 1)
    said = works(*draw)
    assert said.splitlines() == [f"group train of {store}", "40 members: 40 ok"]
    data = read_group(store)
    assert data.attrs["simulator"] == target
    assert data["k"].attrs["units"] == "1/s"
    assert "intact" in works("verify", store)
    fails("is there already; give another path, or write --resume", *draw)
    works(*draw, "--resume")
    fails("seed: 3 -> 4", *draw, "--resume", "--seed", 4)
    fails("--overwrite and --resume exclude each other", *draw, "--resume", "--overwrite")
    chunk = store / "train/y/c/0/0/0"
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:-1])
    fails(f"has {len(whole) - 1} bytes instead of {len(whole)}", "verify", store, code=1)
    fails(f"to repair it, write --from {here}/plant.py:simulator", "verify", store, "--repair")
    assert "intact" in works("verify", store, "--repair", "--from", target, "--workers", 0)
    assert chunk.read_bytes() == whole
    works(*draw, "--overwrite")
    assert read_group(tmp_path / "a.old-1").sizes["sample"] == 40


def test_a_simulator_of_this_package_is_repaired_by_its_name(tmp_path):
    store = tmp_path / "a"
    draw = ("simulate", "pendulum", "--shift", "far", "--out", store, "--workers", 0)
    works(*draw, "-n", 4, "--float32")
    assert read_group(store)["y"].dtype == np.float32
    (store / "ood/far/omega0/c/0").unlink()
    assert "is missing" in works("verify", store, "--repair", "--workers", 0)
    assert verify(store).intact
    works("simulate", "pendulum", "-n", 3, "--out", store, "--resume", "--workers", 0)
    assert works("verify", store).count("intact") == 2
    assert works("verify", store, "--group", "train").count("intact") == 1


def test_an_augmented_store_is_a_sweep(tmp_path):
    train = pendulum.simulator.sample(10, seed=0)
    model = APHYNITY(pendulum.expert, encoder=Convolutional(width=4, hidden=16))
    model.bind(to_batch(train, pendulum.expert).to(model.state_sd), 20)
    from hybridgen.checkpoint import save_model

    save_model(tmp_path / "run/models/aphynity", model)
    write_store(tmp_path / "run/data.zarr", {"train": train})
    store = tmp_path / "a"
    draw = ("augment", tmp_path / "run", "-n", 5, "--range", "omega0=1:2", "--out", store)
    works(*draw, "--workers", 0)
    fails(
        "ranges.omega0.1: 2.0 -> 3.0", *draw, "--resume", "--workers", 0, "--range", "omega0=1:3"
    )
    (store / "augmented/omega0/c/0").write_bytes(b"")
    fails("write --from", "verify", store, "--repair")
    again = ("verify", store, "--repair", "--from", tmp_path / "run", "--workers", 0)
    assert "intact" in works(*again)


def test_progress_as_lines(tmp_path):
    said = works(
        "simulate", "pendulum", "-n", 3, "--out", tmp_path / "a", "--workers", 0, "--json"
    )
    lines = [json.loads(line) for line in said.splitlines()]
    assert lines[0]["event"] == "progress"
    assert lines[-2]["ok"] == lines[-2]["step"] == lines[-2]["total"] == 3
    assert lines[-2]["failed"] == lines[-2]["retried"] == 0
    assert lines[-1] == {
        "event": "finished", "out": str(tmp_path / "a"), "group": "train", "ok": 3,
    }  # fmt: skip


def test_nobody_answers(tmp_path):
    draw = ("simulate", "pendulum", "-n", 3, "--out", tmp_path / "a")
    fails("no dask scheduler answers at nonsense", *draw, "--scheduler", "nonsense")
    fails("there is no folder", "simulate", "pendulum", "-n", 3, "--out", "no/such/folder")
    fails("holds no sweep", "verify", tmp_path)


def test_an_interruption_says_how_to_go_on(tmp_path):
    store = tmp_path / "a"
    command = [sys.executable, "-m", "hybridgen", "simulate", "pendulum", "-n", "500000"]
    process = subprocess.Popen(
        [*command, "--out", str(store), "--workers", "1"], stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + 60
    while not (store / "train/status/c/0").exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert f"go on with: hybridgen simulate pendulum -n 500000 --out {store}" in said
    assert said.rstrip().endswith("--resume")
