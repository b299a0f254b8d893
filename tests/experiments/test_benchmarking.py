"""The ruler of the benchmarks measures what it says, and its problems are those of the library."""

import itertools
import math
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import torch
from hybridgen.experiments import benchmarking, benchmarking_machine
from hybridgen.experiments.benchmarking import (
    Absent,
    Contestant,
    Ruler,
    chosen,
    contest,
    in_turn,
    race,
    result_row,
    tune,
)
from hybridgen.experiments.benchmarking_machine import Family, one_core, peak_memory
from hybridgen.experiments.benchmarking_problems import (
    PROBLEMS,
    bad_members,
    make_problem,
    reference,
)
from hybridgen.simulators import pendulum, reaction_diffusion, rlc

from hybridgen.errors import ConfigError
from hybridgen.report.rows import BENCHMARK_COLUMNS


def toy(name="toy", ladder=tuple(range(1, 20)), error=lambda m: 1.0 / m, **more):
    """A contestant whose call returns its knob."""
    return Contestant(name, lambda m: lambda: m, lambda m: m, error, ladder, **more)


@pytest.mark.parametrize("target", [1.0, 0.5, 0.3, 0.11, 0.07, 1 / 19])
def test_the_loosest_knob_within_the_target_is_found(target):
    ready = tune(toy(), target)
    best = next(m for m in range(1, 20) if 1.0 / m <= target)
    assert (ready.knob, ready.error, ready.call()) == (str(best), 1.0 / best, best)


def test_few_knobs_are_tried():
    tried = []
    tune(toy(error=lambda m: tried.append(m) or 1.0 / m), 0.11)
    assert len(tried) <= 7


def test_a_target_that_is_not_met_is_told():
    ready = tune(toy(), 0.01)
    assert ready.knob == "19, target not met"
    assert ready.error == 1.0 / 19


def test_a_knob_that_raises_is_passed_over():
    def prepare(m):
        if m < 6:
            raise AssertionError("underflow in dt")
        return lambda: m

    ready = tune(Contestant("toy", prepare, float, lambda m: 1.0 / m, tuple(range(1, 20))), 0.5)
    assert ready.knob == "6"


def test_a_contestant_that_always_raises_is_absent_with_the_reason():
    def prepare(m):
        raise RuntimeError("no such luck\nand more")

    gone = tune(Contestant("toy", prepare, float, float, (1, 2)), 0.5)
    assert gone == Absent("toy", "failed: RuntimeError: no such luck")


def test_an_error_that_is_no_number_is_infinite():
    assert tune(toy(error=lambda m: math.nan), 1.0).error == math.inf


def test_what_only_seemed_good_enough_in_the_search_is_tightened():
    looser = toy(error=lambda m: abs(m), search=lambda m: lambda: 0.8 / m)
    ready = tune(
        Contestant(
            "toy", lambda m: lambda: 1.0 / m, float, abs, looser.ladder, search=looser.search
        ),
        0.1,
    )
    assert (ready.knob, ready.error) == ("10", 0.1)


class Ticking(Ruler):
    """A ruler whose clock is told the time by the work."""

    now = 0.0

    def clock(self):
        return Ticking.now


def working(name, seconds, log, scale=1.0):
    def call():
        log.append(name)
        Ticking.now += seconds

    return Contestant(name, lambda _: call, lambda _: 0.0, abs, scale=scale)


def test_a_race_takes_turns_repeats_what_is_short_and_scales_what_is_partial():
    log = []
    a, b = (tune(working(*x, log), 1.0) for x in (("a", 0.25), ("b", 1.0)))
    c = tune(working("c", 0.5, log, scale=10.0), 1.0)
    log.clear()
    times = race([a, b, c], Ticking(rounds=3, least_s=1.0))
    assert times == [[0.25] * 3, [1.0] * 3, [5.0] * 3]
    turns = "".join(name for name, _ in itertools.groupby(log[3:]))
    assert turns == "abcbcacab"
    assert log[3:].count("a") == 3 * 4
    assert log[3:].count("c") == 3 * 2


def test_rows_of_a_contest():
    log = []
    who = [working("a", 0.5, log), Absent("b", "not here"), working("c", 2.0, log)]
    rows = contest(who, Ticking(rounds=5), 1.0, size=10, experiment="e", work="w", dtype="float64")
    assert all(tuple(row) == BENCHMARK_COLUMNS for row in rows)
    by = {(r["contestant"], r["metric"]): r for r in rows}
    assert by["c", "cpu_time"]["value"] == 2.0
    assert (by["c", "cpu_time"]["ratio_to"], by["c", "cpu_time"]["ratio"]) == ("a", 4.0)
    assert by["a", "throughput"]["value"] == 20.0
    assert by["b", "cpu_time"]["value"] is None
    assert by["b", "cpu_time"]["knob"] == "not here"
    assert ("a", "first_call") in by
    assert {r["device"] for r in rows} == {"cpu"}


def test_nobody_to_race():
    rows = contest([Absent("b", "not here")], Ruler(), 1.0, work="w")
    assert [r["contestant"] for r in rows] == ["b"]


def test_contestants_are_chosen_by_name_or_library():
    names = ("ours compiled", "ours eager", "theirs")
    assert chosen(names, ()) == list(names)
    assert chosen(names, ["theirs", "ours"]) == list(names)
    assert chosen(names, ["ours eager"]) == ["ours eager"]
    with pytest.raises(ConfigError, match="no contestant 'oors'"):
        chosen(names, ["oors"])


def test_a_row_has_no_other_columns():
    with pytest.raises(ConfigError, match="no column 'wrok'; did you mean 'work'"):
        result_row(wrok="w")


class Kept:
    """A run directory in memory."""

    def __init__(self):
        self.rows = []

    def read_rows(self):
        return list(self.rows)

    def write_rows(self, rows):
        self.rows = list(rows)


def test_a_resumed_run_goes_on_with_the_first_work_without_rows():
    run, done = Kept(), []

    def work(name, dtype):
        def rows():
            done.append((name, dtype))
            if len(done) == 2:
                raise KeyboardInterrupt
            return [result_row(work=name, dtype=dtype, contestant="a")]

        return rows

    works = {key: work(*key) for key in (("a", "float64"), ("a", "float32"), ("b", "float64"))}
    with pytest.raises(KeyboardInterrupt):
        in_turn(run, works)
    rows = in_turn(run, works)
    assert done == [("a", "float64"), ("a", "float32"), ("a", "float32"), ("b", "float64")]
    assert [(r["work"], r["dtype"]) for r in rows] == list(works)
    assert run.rows == rows


def test_one_core_gives_everything_back(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    threads = torch.get_num_threads()
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    with one_core():
        assert os.environ["OMP_NUM_THREADS"] == "1"
        assert os.path.isdir(os.environ["XDG_CACHE_HOME"])
        assert torch.get_num_threads() == 1
        assert cores is None or len(os.sched_getaffinity(0)) == 1
        cache = os.environ["XDG_CACHE_HOME"]
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert "XLA_FLAGS" not in os.environ
    assert not os.path.exists(cache)
    assert torch.get_num_threads() == threads
    assert cores is None or os.sched_getaffinity(0) == cores


def test_peak_memory_grows_with_what_is_held():
    before = peak_memory()
    held = np.ones(60_000_000)
    assert peak_memory() - before > 0.2
    assert held.sum() == 60_000_000


def test_memory_of_a_new_process_is_its_own():
    held = np.ones(60_000_000)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        own = pool.submit(peak_memory).result()
    assert held.sum() == 60_000_000
    assert 0.01 < own < peak_memory() - 0.2


def test_memory_without_linux_is_what_the_system_tells(monkeypatch, tmp_path):
    known = peak_memory()
    monkeypatch.setattr(benchmarking_machine, "PROC", tmp_path)
    assert peak_memory() > 0.5 * known
    monkeypatch.setattr(benchmarking_machine.importlib.util, "find_spec", lambda name: None)
    assert math.isnan(peak_memory())
    with Family() as family:
        pass
    assert math.isnan(family.cpu)
    assert math.isnan(family.peak)


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="needs Linux")
def test_a_family_is_watched_to_its_end():
    # a grandchild that works for a second and is killed by its parent, who does not wait for it
    work = "import time; held = bytearray(200_000_000)\nwhile True: time.process_time()"
    parent = (
        "import subprocess, sys, time; "
        f"child = subprocess.Popen([sys.executable, '-S', '-c', {work!r}]); time.sleep(1.5); "
        "child.kill()"
    )
    with Family() as family:
        subprocess.run([sys.executable, "-S", "-c", parent], check=True)
    assert 0.2 < family.cpu < 3.0
    assert 0.2 < family.peak < 0.4


# -- the problems --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROBLEMS)
def test_all_libraries_have_the_same_right_hand_side(name):
    problem = make_problem(name, 4, 3, 0.1, seed=0)
    numpy = problem.rhs(np)(0.7, problem.y0, problem.z)
    tensors = (torch.tensor(problem.y0), tuple(torch.tensor(z) for z in problem.z))
    theirs = problem.rhs(torch)(torch.tensor(0.7), *tensors)
    np.testing.assert_allclose(theirs.numpy(), numpy, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize(
    ("name", "simulator"),
    [("pendulum", pendulum), ("rlc", rlc), ("reaction_diffusion", reaction_diffusion)],
)
def test_the_problems_are_those_of_the_simulators(name, simulator):
    problem = make_problem(name, 3, 11, 0.1, seed=5)
    truth = simulator.simulator
    data = truth.sample(3, seed=5)
    z = torch.tensor(np.stack([data[n].values for n in truth.truth.param_names], -1))
    u = None if truth.inputs is None else truth.inputs(torch.tensor([0.3]))[0]
    theirs = truth.truth(torch.tensor(0.3), torch.tensor(problem.y0), z, u)
    ours = problem.rhs(np)(0.3, problem.y0, problem.z)
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-12, atol=1e-12)
    if name == "pendulum":
        np.testing.assert_allclose(problem.reference, data.clean.values[:, :11], atol=1e-7)


def test_the_reference_of_a_circuit_is_its_closed_form():
    problem = make_problem("rlc", 20, 31, 0.1, seed=0)
    # y' = A y + b + g sin 2t is solved by a particular solution and the matrix exponential
    for i, (inductance, capacity, resistance) in enumerate(np.stack(problem.z, 1)):
        a = np.array([[0.0, 1 / capacity], [-1 / inductance, -resistance / inductance]])
        b, g = np.array([0.0, 1.0]) / inductance, np.array([0.0, 2.5]) / inductance
        phasor = np.linalg.solve(2j * np.eye(2) - a, g)
        constant = -np.linalg.solve(a, b)

        def particular(t, phasor=phasor, constant=constant):
            return constant + np.imag(phasor * np.exp(2j * t))

        values, vectors = np.linalg.eig(a.astype(complex))
        start = np.linalg.solve(vectors, problem.y0[i] - particular(0.0))
        for j, t in enumerate(problem.t):
            exact = particular(t) + np.real(vectors @ (np.exp(values * t) * start))
            np.testing.assert_allclose(problem.reference[i, j], exact, rtol=0, atol=2e-9)


def test_the_reference_is_tight():
    problem = make_problem("stiff", 200, 11, 0.1, seed=0)
    tighter = reference(problem, rtol=3e-14, atol=1e-14)
    assert np.abs(problem.reference - tighter).max() < 2e-9


def test_one_circuit_in_a_hundred_is_stiff_and_checked():
    problem = make_problem("stiff", 4096, 3, 0.1, seed=0)
    hard = np.flatnonzero(problem.z[0] < 1.0)
    assert len(hard) == 41
    assert problem.z[0][hard].min() > 0.003
    assert problem.z[0][hard].max() < 0.1
    assert len(problem.checked) == 1000
    assert set(hard) <= set(problem.checked)


def test_the_error_is_that_of_the_first_members_that_are_given():
    problem = make_problem("pendulum", 5, 4, 0.1, seed=0)
    off = problem.reference[:2].copy()
    off[1, 2, 0] += 0.5
    assert problem.error(off) == pytest.approx(0.5)
    off[0, 0, 0] = np.nan
    assert problem.error(off) == math.inf


def test_bad_members_are_two_in_the_middle():
    both = bad_members(10, 3, 0.1, 0, nan=True, diverging=True)
    assert np.isnan(both.z[0]).nonzero()[0].tolist() == [5]
    assert both.z[2].nonzero()[0].tolist() == [6]
    assert both.checked.tolist() == [0, 1, 2, 3, 4, 7, 8, 9]
    clean = bad_members(10, 3, 0.1, 0, nan=False, diverging=False)
    np.testing.assert_array_equal(clean.reference, both.reference)


def test_there_is_no_such_problem():
    with pytest.raises(ConfigError, match="no problem 'pendolum'; did you mean 'pendulum'"):
        make_problem("pendolum", 3, 3, 0.1, seed=0)


def test_times_are_those_of_the_processor_on_a_cpu():
    assert Ruler().metric == "cpu_time"
    assert Ruler(device="cuda").metric == "wall_time"
    assert benchmarking.Ruler().clock() > 0.0
