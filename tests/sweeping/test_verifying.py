"""Whatever happens to a byte of a sweep, verification finds it, or it does not matter."""

import shutil

import numpy as np
import pytest

from hybridgen.errors import DataError, OutputExistsError
from hybridgen.store import open_store, write_store
from hybridgen.sweeping import groups_of, repair, sweep, verify


@pytest.fixture(scope="module")
def made(tmp_path_factory, simulator):
    store = tmp_path_factory.mktemp("made") / "a"
    made = simulator("raise", 0.9, times=3)
    sweep(made, 12, store, seed=11, workers=0, task_members=6, group="ood/far")
    return store, made


@pytest.fixture
def store(made, tmp_path):
    shutil.copytree(made[0], tmp_path / "a")
    return tmp_path / "a"


def test_each_byte_flipped(made, store, sums):
    """Every byte of every file; what is not found changes neither the data nor the sweep."""
    whole, harmless = sums(store), []
    data = open_store(store)["ood/far"].to_dataset().load()
    for path in sorted(p for p in store.rglob("*") if p.is_file()):
        content = path.read_bytes()
        name = path.relative_to(store).as_posix()
        # metadata are compared, and a plan is checksummed, as a whole: there bytes are all alike
        step = 97 if "plan" in name else 7 if name.endswith("zarr.json") else 1
        for place in range(0, len(content), step):
            path.write_bytes(
                content[:place] + bytes([content[place] ^ 0x21]) + content[place + 1 :]
            )
            if verify(store).intact:
                harmless.append((name, place))
                same = open_store(store)["ood/far"].to_dataset().load()
                assert same.identical(data), (name, place)
        path.write_bytes(content)
    assert verify(store).intact
    # what is left is the metadata of the groups above, which others may add attributes to
    assert {name for name, _ in harmless} <= {"zarr.json", "ood/zarr.json"}
    assert sums(store) == whole


@pytest.mark.parametrize(
    "name",
    [
        "ood/far/y/c/1/0/0",
        "ood/far/status/c/0",
        "ood/far/time/c/0",
        "ood/far/y/zarr.json",
        "ood/far/zarr.json",
        "zarr.json",
        "ood/zarr.json",
        "ood/far/status/sweep/plan.json",
        "ood/far/status/sweep/plan.copy.json",
        "ood/far/status/sweep/complete.json",
        "records",
    ],
)
@pytest.mark.parametrize("how", ["flipped", "cut", "deleted"])
def test_what_is_damaged_is_found_and_made_again(made, store, sums, name, how):
    whole, simulator = sums(store), made[1]
    path = store / name
    if name == "records":
        path = next((store / "ood/far/status/sweep").glob("done-*"))
    content = path.read_bytes()
    if how == "deleted":
        path.unlink()
    else:
        broken = bytes([content[0] ^ 1]) + content[1:] if how == "flipped" else content[:-3]
        path.write_bytes(broken)
    found = verify(store)
    if name.endswith("complete.json") and how == "deleted":
        assert found.intact  # as if it had been broken off just before the end
    else:
        assert not found.intact
        assert name == "records" or name in found.flaws[0]
    result = repair(simulator, store, found, workers=0)
    assert result.tasks == len(found.damaged) <= (2 if name == "records" else 1)
    assert verify(store).intact
    assert sums(store) == whole


def test_chunks_that_changed_places_are_found(store):
    a, b = (store / f"ood/far/k/c/{i}" for i in (0, 1))
    first, second = a.read_bytes(), b.read_bytes()
    a.write_bytes(second)
    b.write_bytes(first)
    assert verify(store).damaged == {0, 1}


def test_resuming_notices_what_is_plainly_gone(made, store, sums):
    whole = sums(store)
    (store / "ood/far/y/c/1/0/0").unlink()
    how = {"seed": 11, "workers": 0, "task_members": 6, "group": "ood/far"}
    assert sweep(made[1], 12, store, **how).tasks == 1
    assert sums(store) == whole


def test_both_plans_damaged(made, store):
    for name in ("plan.json", "plan.copy.json"):
        (store / "ood/far/status/sweep" / name).write_text("x")
    found = verify(store)
    assert "both copies are damaged" in found.flaws[0]
    with pytest.raises(DataError, match="both copies are damaged"):
        repair(made[1], store, found, workers=0)


def test_repair_needs_the_same_sampler(store, simulator):
    (store / "ood/far/y/c/1/0/0").unlink()
    with pytest.raises(OutputExistsError, match="begun with something else"):
        repair(simulator(times=3), store, verify(store), workers=0)


def test_groups(store, tmp_path, simulator):
    assert groups_of(store) == ["ood/far"]
    sweep(simulator(), 3, store, seed=0, workers=0)
    assert groups_of(store) == ["ood/far", "train"]
    with pytest.raises(DataError, match="name one: group='ood/far'"):
        verify(store)
    with pytest.raises(DataError, match="no sweep in group 'valid'"):
        verify(store, "valid")
    write_store(tmp_path / "b", {"train": simulator().sample(2, seed=0)})
    with pytest.raises(DataError, match="holds no sweep"):
        groups_of(tmp_path / "b")


def test_the_reasons_are_with_the_data(store):
    data = open_store(store)["ood/far"].to_dataset().load()
    assert "no luck" in data.attrs["failures"]
    assert (np.isnan(data["y"].values).all((1, 2)) == (data["status"].values == 5)).all()
