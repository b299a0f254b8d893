"""Data sets survive the way to xarray, to disk and back; faults are named."""

import warnings

import numpy as np
import pytest
import torch
import xarray as xr
from hybridgen.simulators import pendulum

from hybridgen.batch import Batch
from hybridgen.errors import DataError, OutputExistsError
from hybridgen.io import open_store, to_batch, to_dataset, write_store


@pytest.fixture(scope="module")
def data():
    return pendulum.simulator.sample(4, seed=0)


def test_store_round_trip(data, tmp_path):
    shifted = pendulum.simulator.sample(3, seed=0, split="test", shift="far")
    path = write_store(tmp_path / "study.zarr", {"train": data, "ood/far": shifted})
    tree = open_store(path)
    xr.testing.assert_identical(tree["train"].to_dataset().load(), data)
    back = tree["ood/far"].to_dataset()
    assert back.attrs["shift"] == "far"
    assert back["status"].dtype == np.int8
    assert back["omega0"].attrs["units"] == "rad/s"
    batch = to_batch(back, pendulum.expert)
    assert torch.equal(batch.y, torch.from_numpy(shifted["y"].values))
    assert torch.equal(batch.z_a[:, 0], torch.from_numpy(shifted["alpha"].values))


def test_text_coordinates_do_not_warn(tmp_path):
    named = xr.Dataset({"a": ("name", [1.0, 2.0])}, {"name": ["x", "yy"]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_store(tmp_path / "s", {"g": named})
    assert open_store(tmp_path / "s")["g"]["name"].values.tolist() == ["x", "yy"]


def test_a_flipped_byte_is_seen(data, tmp_path):
    path = write_store(tmp_path / "s", {"train": data})
    chunk = next(
        p for p in (path / "train" / "y").rglob("*") if p.is_file() and p.name != "zarr.json"
    )
    raw = bytearray(chunk.read_bytes())
    raw[len(raw) // 2] ^= 1
    chunk.write_bytes(raw)
    with pytest.raises(ValueError, match=r"(?i)checksum"):
        open_store(path)["train"].to_dataset().load()


def test_existing_store_is_kept(data, tmp_path):
    write_store(tmp_path / "s", {"train": data})
    with pytest.raises(OutputExistsError, match="is there already"):
        write_store(tmp_path / "s", {"train": data[{"sample": slice(1)}]})
    assert open_store(tmp_path / "s")["train"].sizes["sample"] == 4
    write_store(tmp_path / "s", {"train": data[{"sample": slice(1)}]}, overwrite=True)
    assert open_store(tmp_path / "s")["train"].sizes["sample"] == 1


def test_states_are_put_in_the_experts_order(data):
    swapped = data.isel(state=[1, 0])
    assert torch.equal(to_batch(swapped, pendulum.expert).y, to_batch(data, pendulum.expert).y)


def test_labels_can_be_left_out(data):
    batch = to_batch(data, pendulum.expert, labels=False)
    assert batch.z_e is None
    assert batch.clean is None


def test_a_batch_passes_through(data):
    batch = to_batch(data)
    assert to_batch(batch) is batch


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: d.drop_vars("y"), "it needs y with dims"),
        (lambda d: d.transpose("time", "sample", "state"), "it needs y with dims"),
        (lambda d: d.isel(state=[0]), "no state 'omega'"),
        (
            lambda d: d.assign_coords(unit=("state", ["deg", "rad/s"])),
            "'theta' is in deg in the data",
        ),
        (lambda d: d.y, "give an xarray Dataset or a Batch"),
    ],
)
def test_faulty_data_sets(data, spoil, message):
    with pytest.raises(DataError, match=message):
        to_batch(spoil(data), pendulum.expert)


def test_parameter_units_are_compared(data):
    wrong = data.copy()
    wrong["omega0"].attrs["units"] = "Hz"
    with pytest.raises(DataError, match="'omega0' is in Hz in the data but in rad/s"):
        to_batch(wrong, pendulum.expert)


def test_own_times_need_another_form():
    batch = Batch(t=torch.zeros(2, 3), y=torch.zeros(2, 3, 2))
    with pytest.raises(DataError, match="times \\(time,\\) shared by all samples"):
        to_dataset(batch, states=pendulum.expert.states)


def test_no_store_there(tmp_path):
    with pytest.raises(DataError, match="holds no zarr v3 store"):
        open_store(tmp_path)
