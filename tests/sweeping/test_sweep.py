"""A sweep stores what the sampler draws, whoever does it; what is not asked for is refused."""

import json
import logging

import numpy as np
import pytest
import torch
import xarray as xr
from hybridgen.simulators import pendulum, reaction_diffusion, rlc

from hybridgen.augmentation import expert_augment
from hybridgen.batch import Batch
from hybridgen.errors import ConfigError, ExpertError, OutputExistsError, UnsupportedError
from hybridgen.integrate import Status
from hybridgen.io import to_batch
from hybridgen.models import APHYNITY, Convolutional, Residual
from hybridgen.params import State
from hybridgen.store import open_store, write_store
from hybridgen.sweeping import SweepStoppedError, sweep
from hybridgen.sweeping.planning import Plan


def read(store, group="train"):
    return open_store(store)[group].to_dataset().load()


@pytest.mark.parametrize("module", [pendulum, rlc, reaction_diffusion], ids=lambda m: m.__name__)
def test_what_is_stored_is_what_is_drawn(module, tmp_path):
    result = sweep(module.simulator, 7, tmp_path / "a", seed=3, workers=0, task_members=3)
    assert result.counts == {"ok": 7}
    assert result.tasks == 3
    xr.testing.assert_identical(read(tmp_path / "a"), module.simulator.sample(7, seed=3))


def test_processes_store_the_same(tmp_path, sums):
    kinds = {"none": 0, "one": 1, "two": 2}
    for name, workers in kinds.items():
        how = {"seed": 3, "workers": workers, "task_members": 64}
        result = sweep(pendulum.simulator, 300, tmp_path / name, **how)
        assert result.tasks == 5
    found = {name: sums(tmp_path / name) for name in kinds}
    assert found["none"] == found["one"] == found["two"]
    assert len(found["one"]) > 40


def test_a_shifted_population_has_a_group_of_its_own(tmp_path):
    shifted = pendulum.simulator.under("far")
    sweep(pendulum.simulator, 3, tmp_path / "a", seed=0, workers=0)
    sweep(shifted, 2, tmp_path / "a", seed=0, workers=0)
    sweep(pendulum.simulator.under(split="valid"), 2, tmp_path / "a", seed=0, workers=0)
    tree = open_store(tmp_path / "a")
    assert set(tree.groups) == {"/", "/train", "/valid", "/ood", "/ood/far"}
    expected = pendulum.simulator.sample(2, seed=0, split="test", shift="far")
    xr.testing.assert_identical(read(tmp_path / "a", "ood/far"), expected)


def test_an_augmenter_is_swept_alike(tmp_path):
    train = pendulum.simulator.sample(10, seed=0)
    model = APHYNITY(
        pendulum.expert,
        residual=Residual(hidden=(8,)),
        encoder=Convolutional(width=4, hidden=16),
    )
    model.bind(to_batch(train).to(model.state_sd), window=20)
    augmenter = expert_augment(model, train, {"omega0": (0.5, 1.0)})
    sweep(augmenter, 6, tmp_path / "a", seed=1, workers=1)
    xr.testing.assert_identical(read(tmp_path / "a", "augmented"), augmenter.sample(6, seed=1))
    outline, drawn = (f(np.arange(6), 1) for f in (augmenter.outline, augmenter.draw))
    for name in ("t", "z_e", "z_a", "distance"):
        assert torch.equal(getattr(outline, name), getattr(drawn, name))


class Minimal:
    """A sampler that has nothing but what a sampler must have."""

    def draw(self, indices, root_seed):
        y = torch.as_tensor(indices, dtype=torch.float64)[:, None, None].repeat(1, 2, 1)
        return Batch(t=torch.arange(2.0), y=y + root_seed)

    def describe(self):
        return {"states": (State("y", "m"),), "attrs": {"split": "mine"}}


def test_any_sampler_can_be_swept(tmp_path):
    sweep(Minimal(), 5, tmp_path / "a", seed=1, workers=0, task_members=2)
    data = read(tmp_path / "a", "mine")
    assert data["y"].values[:, 0, 0].tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert data["status"].values.tolist() == [0] * 5


def test_single_precision(tmp_path):
    sweep(pendulum.simulator, 3, tmp_path / "a", seed=0, workers=0, dtype="float32")
    data, full = read(tmp_path / "a"), pendulum.simulator.sample(3, seed=0)
    assert data["y"].dtype == data["omega0"].dtype == np.float32
    assert np.array_equal(data["y"].values, full["y"].values.astype(np.float32))
    assert data["status"].dtype == np.int8


def test_what_is_not_done_says_so(tmp_path, monkeypatch):
    """An unfinished store opens, and its members say that they are not written."""
    from hybridgen.sweeping import job

    def one(hands, tasks, do, interruption):
        yield do(hands[0], tasks[1])
        raise SweepStoppedError("enough.")

    monkeypatch.setattr(job, "receipts", one)
    how = {"seed": 0, "workers": 0, "task_members": 2}
    with pytest.raises(SweepStoppedError, match=r"enough\.\nstored so far, of 6: 2 members: 2 ok"):
        sweep(pendulum.simulator, 6, tmp_path / "a", **how)
    data = read(tmp_path / "a")
    assert data["status"].values.tolist() == [-1, -1, 0, 0, -1, -1]
    assert np.isnan(data["y"].values[[0, 1, 4, 5]]).all()
    monkeypatch.undo()
    assert sweep(pendulum.simulator, 6, tmp_path / "a", **how).tasks == 2
    xr.testing.assert_identical(read(tmp_path / "a"), pendulum.simulator.sample(6, seed=0))
    assert sweep(pendulum.simulator, 6, tmp_path / "a", **how).tasks == 0


def test_another_sweep_is_not_gone_on_with(tmp_path):
    how = {"workers": 0, "attrs": {"note": "a", "command": "x"}}
    sweep(pendulum.simulator, 3, tmp_path / "a", seed=0, **how)
    sweep(pendulum.simulator, 3, tmp_path / "a", seed=0, workers=0, attrs={"note": "a"})
    for change, line in (
        ({"n": 4}, "n: 3 -> 4"),
        ({"seed": 1}, "seed: 0 -> 1"),
        ({"sampler": rlc.simulator, "group": "train"}, "expert.field.code: '"),
        ({"attrs": {"note": "b"}}, "note: a -> b"),
        ({"dtype": "float32"}, "dtype: None -> float32"),
        ({"task_members": 2}, "task_members: None -> 2"),
    ):
        new = {"sampler": pendulum.simulator, "n": 3, "seed": 0, **how, **change}
        with pytest.raises(OutputExistsError, match="was begun with something else") as caught:
            sweep(store=tmp_path / "a", **new)
        assert line in str(caught.value)
    with pytest.raises(OutputExistsError, match="is there already; write resume=True"):
        sweep(pendulum.simulator, 3, tmp_path / "a", seed=0, resume=False, **how)
    sweep(pendulum.simulator, 4, tmp_path / "a", seed=1, overwrite=True, **how)
    assert read(tmp_path / "a").sizes["sample"] == 4
    assert read(tmp_path / "a.old-1").sizes["sample"] == 3


def test_other_versions_are_not_mixed(tmp_path, monkeypatch):
    from hybridgen.sweeping import running

    sweep(pendulum.simulator, 2, tmp_path / "a", seed=0, workers=0)
    monkeypatch.setattr(
        running, "code_versions", lambda: {"torch": "0.1", "hybridgen source": "new"}
    )
    with pytest.raises(OutputExistsError, match=r"torch: \S+ -> 0\.1"):
        sweep(pendulum.simulator, 2, tmp_path / "a", seed=0, workers=0)


def test_what_is_there_is_left_alone(tmp_path):
    write_store(tmp_path / "a", {"train": pendulum.simulator.sample(2, seed=0)})
    with pytest.raises(OutputExistsError, match="holds something else in the place of group"):
        sweep(pendulum.simulator, 2, tmp_path / "a", seed=0, workers=0)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(OutputExistsError):
            sweep(
                pendulum.simulator,
                2,
                tmp_path / "b",
                seed=0,
                group="thesis.tex" if overwrite else None,
                workers=0,
                overwrite=overwrite,
            )
    assert [p.name for p in (tmp_path / "b").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 0}, "n is 0"),
        ({"workers": -1}, "workers is -1"),
        ({"workers": 0, "wall_limit": 1.0}, "write workers=1"),
        ({"wall_limit": 0.0}, "wall_limit is 0.0"),
        ({"max_failed": 2.0}, "max_failed is 2.0"),
        ({"dtype": "float16"}, "dtype is 'float16'"),
        ({"task_members": 0}, "task_members is 0"),
        ({"wall_limits": 3}, "no option 'wall_limits'; did you mean 'wall_limit'"),
    ],
)
def test_mistakes(change, message, tmp_path):
    how = {"sampler": pendulum.simulator, "n": 2, "store": tmp_path / "a", "seed": 0} | change
    with pytest.raises(ConfigError, match=message):
        sweep(**how)
    assert not (tmp_path / "a").exists()


def test_a_sampler_that_cannot_be_drawn_leaves_nothing_behind(tmp_path, simulator):
    with pytest.raises(ExpertError, match=r"ValueError at conftest\.py:\d+: no luck"):
        sweep(simulator("raise", above=-1.0), 9, tmp_path / "a", seed=0, workers=0)
    assert not (tmp_path / "a").exists()


def test_a_sampler_of_chance_is_refused(tmp_path):
    generator = np.random.default_rng(0)

    class Chance(Minimal):
        def draw(self, indices, root_seed):
            batch = super().draw(indices, root_seed)
            return batch.replace(y=batch.y + float(generator.normal()))

    with pytest.raises(ExpertError, match="drawn twice, the same members are not the same"):
        sweep(Chance(), 9, tmp_path / "a", seed=0, workers=0)


def test_what_cannot_be_sent_is_named_before_anything_starts(tmp_path, simulator):
    with (tmp_path / "file").open("w") as file:
        made = simulator()
        object.__setattr__(made, "inputs", lambda t: file.write("x"))
        with pytest.raises(UnsupportedError, match=r"inputs\.file is the reason.*workers=0"):
            sweep(made, 3, tmp_path / "a", seed=0, workers=1)
    assert not (tmp_path / "a").exists()


def test_a_sampler_that_only_this_process_can_import_says_so(tmp_path, monkeypatch):
    import sys
    import types

    gone = types.ModuleType("gone")
    gone.Gone = type("Gone", (Minimal,), {"__module__": "gone"})
    monkeypatch.setitem(sys.modules, "gone", gone)
    with pytest.raises(UnsupportedError, match="cannot make the sampler again: ModuleNotFound"):
        sweep(gone.Gone(), 3, tmp_path / "a", seed=0, workers=1)


def test_progress_tells_ok_retried_and_failed(tmp_path):
    told = []
    how = {"seed": 0, "workers": 0, "task_members": 2, "progress": told.append}
    sweep(pendulum.simulator, 4, tmp_path / "a", **how)
    assert [(p.done, p.total) for p in told] == [(0, 4), (2, 4), (4, 4)]
    assert told[-1].figures == {"ok": 4, "retried": 0, "failed": 0}


def test_the_disk_is_looked_at_first(tmp_path, monkeypatch):
    import shutil
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 10_000))
    with pytest.raises(SweepStoppedError, match=r"needs up to .* GB, but .* has 1e-05 GB left"):
        sweep(pendulum.simulator, 1000, tmp_path / "a", seed=0, workers=0)
    assert not (tmp_path / "a").exists()


def test_a_full_disk_stops_the_sweep_and_loses_nothing(tmp_path, monkeypatch, sums):
    """The disk is full within the third task; what was written before is kept and gone on with."""
    import errno

    import zarr.storage._local as local

    how = {"seed": 0, "workers": 0, "task_members": 2}
    sweep(pendulum.simulator, 8, tmp_path / "whole", **how)
    plain, left = local._put, 40_000

    def put(path, value, exclusive=False):
        nonlocal left
        left -= len(value)
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return plain(path, value, exclusive)

    monkeypatch.setattr(local, "_put", put)
    with pytest.raises(SweepStoppedError, match=r"(?s)could not be written.*No space.*--resume"):
        sweep(pendulum.simulator, 8, tmp_path / "a", **how)
    written = (read(tmp_path / "a")["status"].values == Status.ok).sum()
    assert 0 < written < 8
    monkeypatch.undo()
    result = sweep(pendulum.simulator, 8, tmp_path / "a", **how)
    assert 0 < result.tasks < 4
    assert sums(tmp_path / "a") == sums(tmp_path / "whole")


def test_a_lock_keeps_a_second_sweep_out(tmp_path, caplog):
    how = {"seed": 0, "workers": 0}
    sweep(pendulum.simulator, 2, tmp_path / "a", **how)
    lock = tmp_path / "a/train/status/sweep/lock.json"
    lock.write_text(json.dumps({"host": "elsewhere", "pid": 1, "born": "", "time": "then"}))
    with pytest.raises(OutputExistsError, match="process 1 on elsewhere since then"):
        sweep(pendulum.simulator, 2, tmp_path / "a", **how)
    with caplog.at_level(logging.WARNING, "hybridgen"):
        sweep(pendulum.simulator, 2, tmp_path / "a", force=True, **how)
    assert "by force" in caplog.text


def test_a_task_fills_a_chunk_of_sixteen_megabytes(tmp_path):
    sweep(pendulum.simulator, 5, tmp_path / "a", seed=0, workers=0)
    plan = Plan.load(tmp_path / "a", "train")
    assert plan.task_members == 5
    from hybridgen.sweeping.planning import _task_members

    assert _task_members(3216.0, 1e-5) == 5184  # 16.7 MB
    assert _task_members(3216.0, 0.1) == 81
    assert _task_members(1e9, 1e-5) == 1


def test_one_gpu_a_worker(monkeypatch):
    from hybridgen.sweeping.crew import gpu_environment
    from hybridgen.sweeping.hands import environment

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 5")
    seen = [gpu_environment("cuda", k)["CUDA_VISIBLE_DEVICES"] for k in range(3)]
    assert seen == ["2", "5", "2"]
    assert gpu_environment("cpu", 1) == {}
    found = environment(gpu_environment("cuda", 1))
    assert found["CUDA_VISIBLE_DEVICES"] == "5"
    assert found["OMP_NUM_THREADS"] == "1"
    assert found["PATH"]
