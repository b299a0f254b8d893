"""Stores keep what was put in, and say when a byte of it has changed."""

import warnings

import numpy as np
import pytest
import torch
import xarray as xr
from hybridgen.simulators import pendulum

from hybridgen.errors import DataError, OutputExistsError
from hybridgen.io import to_batch
from hybridgen.store import open_store, write_store


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


def test_no_store_there(tmp_path):
    with pytest.raises(DataError, match="holds no zarr v3 store"):
        open_store(tmp_path)
