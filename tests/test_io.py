"""Data sets survive the way to xarray and back; faults are named."""

import numpy as np
import pytest
import torch
import xarray as xr
from hybridgen.simulators import pendulum

from hybridgen.batch import Batch
from hybridgen.errors import DataError
from hybridgen.expert import ODEExpert
from hybridgen.io import to_batch, to_dataset
from hybridgen.params import Param, State
from hybridgen.store import write_store


@pytest.fixture(scope="module")
def data():
    return pendulum.simulator.sample(4, seed=0)


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


def test_own_times_inputs_and_gaps_survive():
    t = torch.tensor([[0.0, 1.0, 2.0], [0.0, 1.5, 4.0]])
    y = torch.rand(2, 3, 2, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([True, False]).expand(2, 3, 2)
    batch = Batch(t=t, y=y, mask=mask, u=torch.ones(2, 3, 1))
    states = (State("theta", "rad"), State("omega", "rad/s"))
    data = to_dataset(batch, states=states, inputs=(State("torque", "N m"),), time_unit="min")
    assert data["t"].attrs["units"] == "min"
    assert data["input_unit"].values.tolist() == ["N m"]
    expert = ODEExpert(lambda t, y, z_e, u: y, states, (), inputs=(State("torque", "N m"),))
    back = to_batch(data, expert)
    assert torch.equal(back.t, t)
    assert torch.equal(back.mask, mask)
    assert torch.equal(back.u, batch.u)


def test_fields_are_one_variable_each():
    states = (State("u", "mol/L"), State("v", "mol/L"))
    batch = Batch(t=torch.arange(3.0), y=torch.arange(240.0).reshape(2, 3, 2, 4, 5))
    grid = {"y": np.arange(4.0), "x": xr.DataArray(np.arange(5.0), dims="x", attrs={"units": "m"})}
    data = to_dataset(batch, states=states, grid=grid)
    assert data["u"].dims == ("sample", "time", "y", "x")
    assert data["x"].attrs == {"axis": "X", "units": "m"}
    assert data["y"].attrs["units"] == "1"
    expert = ODEExpert(lambda t, y, z_e: y, states[::-1], (), space=2)
    assert torch.equal(to_batch(data, expert).y, batch.y.flip(2))


def test_states_without_data_come_back_hidden(data):
    hidden = State("current", "A", observed=False, low=-1.0, high=1.0)
    expert = ODEExpert(lambda t, y, z_e: y, (*pendulum.expert.states, hidden), ())
    batch = to_batch(data, expert)
    assert batch.y[..., 2].isnan().all()
    assert not batch.mask[..., 2].any()
    assert batch.mask[..., :2].all()


def test_a_missing_state_of_a_store_comes_back_hidden(data, tmp_path):
    """Words in a store are of a type without a missing value."""
    path = write_store(tmp_path / "s.zarr", {"train": data})
    stored = xr.open_dataset(path, engine="zarr", group="train", chunks=None, consolidated=False)
    hidden = State("current", "A", observed=False, low=-1.0, high=1.0)
    expert = ODEExpert(lambda t, y, z_e: y, (*pendulum.expert.states, hidden), ())
    assert to_batch(stored, expert).y[..., 2].isnan().all()


def test_known_parameters_are_read_without_labels(data):
    known = Param("omega0", "rad/s", 0.5, 3.5, known=True)
    expert = ODEExpert(pendulum.undamped, pendulum.expert.states, (known,))
    batch = to_batch(data, expert, labels=False)
    assert torch.equal(batch.z_e[:, 0], torch.from_numpy(data["omega0"].values))
    with pytest.raises(DataError, match="declared as known, but the data set does not give it"):
        to_batch(data.drop_vars("omega0"), expert)


def test_inputs_must_be_there_and_finite(data):
    expert = ODEExpert(
        lambda t, y, z_e, u: y, pendulum.expert.states, (), inputs=(State("torque", "N m"),)
    )
    with pytest.raises(DataError, match="has the inputs"):
        to_batch(data, expert)
    gap = np.ones((4, 201, 1))
    gap[2, 5] = np.nan
    driven = data.assign(inputs=(("sample", "time", "input"), gap)).assign_coords(
        input=["torque"], input_unit=("input", ["N m"])
    )
    with pytest.raises(DataError, match="inputs of sample 2 hold NaN"):
        to_batch(driven, expert)
