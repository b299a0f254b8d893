"""Broken off at any moment and gone on with, a sweep ends byte for byte as if nothing happened."""

import functools
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hybridgen.store import open_store
from hybridgen.sweeping import sweep, verify

SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from conftest import decaying
from hybridgen.sweeping import sweep
if __name__ == "__main__":
    try:
        how = dict(seed=2, workers=2, task_members=20)
        result = sweep(decaying(seconds=1e-4), 1600, sys.argv[2], **how)
    except KeyboardInterrupt as interruption:
        print("interrupted", interruption, flush=True)
        sys.exit(130)
    print(result.tasks, "tasks")
"""


def start(store):
    command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(store)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def records(store):
    found = (store / "train/status/sweep").glob("done-*.jsonl")
    return sum(p.read_bytes().count(b"\n") for p in found)


def _moved(store, before, process):
    return records(store) > before or process.poll() is not None


def wait_for(what, seconds=60.0):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    store = tmp_path_factory.mktemp("whole") / "a"
    process = start(store)
    assert process.communicate()[0] == "80 tasks\n"
    return store


@pytest.mark.timeout(600)
def test_six_times_killed_and_gone_on_with(tmp_path, whole, sums):
    rng, store, kills = random.Random(0), tmp_path / "a", 0
    while kills < 6:
        before = records(store)
        process = start(store)
        # three in the beginning, when there may not even be a plan, and three in the middle
        if kills < 3:
            time.sleep(rng.uniform(0.5, 4.0))
        else:
            wait_for(functools.partial(_moved, store, before, process))
            time.sleep(rng.uniform(0.0, 0.1))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        kills += 1
    process = start(store)
    output = process.communicate()[0]
    assert process.returncode == 0, output
    found = sums(store)
    assert found == sums(whole)
    assert not [name for name in found if "partial" in name or name.endswith(".part")]
    assert verify(store).intact
    assert open_store(store)["train"].sizes["sample"] == 1600


def test_interrupted_once_and_gone_on_with(tmp_path, whole, sums):
    store = tmp_path / "a"
    process = start(store)
    wait_for(lambda: records(store) > 2)
    os.kill(process.pid, signal.SIGINT)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 130, output
    assert "stored so far, of 1,600" in output
    assert not (store / "train/status/sweep/lock.json").exists()
    assert 0 < verify(store).unfinished < 80
    assert verify(store).intact
    process = start(store)
    assert process.communicate()[0].endswith(" tasks\n")
    assert sums(store) == sums(whole)


def test_interrupted_twice_leaves_at_once(tmp_path, simulator):
    """The task at hand would take for ever; the second interruption does not wait for it."""
    store = tmp_path / "a"
    code = SCRIPT.replace("decaying(seconds=1e-4), 1600", 'decaying("hang", 0.995), 1600').replace(
        "task_members=20", "task_members=400"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parent), str(store)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    wait_for(lambda: (store / "train/y/zarr.json").exists())
    time.sleep(1.0)
    os.kill(process.pid, signal.SIGTERM)
    time.sleep(0.7)
    assert process.poll() is None
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert verify(store).intact


def test_no_worker_outlives_the_sweep(tmp_path):
    """Workers of a sweep that was killed end, also one that hangs."""
    store = tmp_path / "a"
    code = SCRIPT.replace("decaying(seconds=1e-4)", 'decaying("hang", 0.5)').replace(
        "seed=2, workers=2", "seed=2, wall_limit=1000.0, workers=2"
    )
    mark = f"mark-{os.getpid()}-{time.time_ns()}"
    command = [sys.executable, "-c", code, str(Path(__file__).parent), str(store)]
    process = subprocess.Popen(command, env={**os.environ, "HYBRIDGEN_TEST_MARK": mark})
    wait_for(lambda: len(marked(mark)) >= 3)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: not marked(mark), 20.0)


def marked(mark):
    """The processes that have a mark in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


@pytest.mark.timeout(600)
def test_a_cluster_stores_the_same(tmp_path, whole, sums, simulator):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        how = {"seed": 2, "client": client, "task_members": 20}
        store = tmp_path / "a"
        assert sweep(simulator(seconds=1e-4), 1600, store, **how).tasks == 80
        bad = sweep(simulator("exit", 0.97), 100, tmp_path / "b", seed=1, client=client)
    assert sums(store) == sums(whole)
    assert bad.counts["error"] == int((simulator().sample(100, seed=1)["k"] > 0.97).sum()) > 0
