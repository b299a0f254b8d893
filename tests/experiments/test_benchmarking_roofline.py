"""Bounds of a GPU, and which rows are compared with them."""

import pytest
import torch
from hybridgen.experiments import bench_integrators
from hybridgen.experiments.benchmarking import result_row
from hybridgen.experiments.benchmarking_roofline import GPUS, OPERATIONS, fractions, most


def test_the_bound_is_arithmetic_or_memory():
    peak = GPUS["H200"]
    arithmetic = peak.operations["float64"] / (OPERATIONS["pendulum"] * 100)
    assert most("pendulum", "float64", 101, "NVIDIA H200 NVL") == pytest.approx(arithmetic)
    # Of a single interval, writing both save times takes longer.
    assert most("rlc", "float32", 2, "NVIDIA H200") == peak.bytes / 16
    assert most("reaction_diffusion", "float64", 101, "NVIDIA H200") is None


def test_throughputs_on_a_known_gpu_are_compared(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    bound = most("pendulum", "float64", 101, "NVIDIA H200")
    row = result_row(
        experiment=bench_integrators.NAME, work="pendulum", contestant="x", device="cuda:0",
        dtype="float64", metric="throughput", value=bound / 4, low=bound / 5, high=bound / 2,
        unit="1/s",
    )  # fmt: skip
    others = [{**row, "metric": "wall_time"}, {**row, "work": "stiff"}, {**row, "device": "cpu"}]
    (found,) = fractions([row, *others], 101)
    assert [found[k] for k in ("value", "low", "high")] == pytest.approx([0.25, 0.2, 0.5])
    assert (found["metric"], found["unit"]) == ("of_the_bound", "1")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "an abacus")
    assert fractions([row], 101) == []
