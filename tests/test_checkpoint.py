"""A damaged, incomplete or foreign checkpoint is refused with a sentence."""

import json

import pytest
import torch
from hybridgen.simulators import pendulum

from hybridgen.checkpoint import load_model, load_state, save_model, save_state
from hybridgen.errors import CheckpointError
from hybridgen.expert import ODEExpert
from hybridgen.io import to_batch
from hybridgen.models import APHYNITY, Convolutional
from hybridgen.params import Param

SMALL = Convolutional(width=2, hidden=4)


@pytest.fixture
def folder(tmp_path):
    return save_state(tmp_path / "c", {"a": torch.arange(6.0)}, {"step": 3})


def test_round_trip(folder):
    tensors, meta = load_state(folder)
    assert torch.equal(tensors["a"], torch.arange(6.0))
    assert meta == {"step": 3}


def test_every_flipped_byte_is_seen(folder):
    for path in folder.iterdir():
        whole = path.read_bytes()
        for i in range(len(whole)):
            path.write_bytes(whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :])
            # a flip of white space between tokens changes nothing that is stored
            try:
                tensors, meta = load_state(folder)
            except CheckpointError:
                continue
            assert torch.equal(tensors["a"], torch.arange(6.0))
            assert meta == {"step": 3}
            assert path.suffix == ".json"
        path.write_bytes(whole)


def test_a_flipped_byte_is_a_sentence(folder):
    path = next(folder.glob("*.safetensors"))
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(CheckpointError, match="is damaged: its checksum is not the one"):
        load_state(folder)


def test_missing_files(folder):
    next(folder.glob("*.safetensors")).unlink()
    with pytest.raises(CheckpointError, match="is missing; copy the whole folder"):
        load_state(folder)
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        load_state(folder / "elsewhere")


def test_the_path_of_the_tensors_cannot_leave_the_folder(folder):
    import hashlib

    body = json.loads((folder / "checkpoint.json").read_text())
    body.pop("self")
    body["tensors"] = "../secret"
    body["self"] = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    (folder / "checkpoint.json").write_text(json.dumps(body))
    with pytest.raises(CheckpointError, match="damaged"):
        load_state(folder)


def test_only_the_newest_tensors_are_kept(folder):
    save_state(folder, {"a": torch.zeros(3)}, {"step": 4})
    assert len(list(folder.glob("*.safetensors"))) == 1
    assert load_state(folder)[1] == {"step": 4}


def bound(expert):
    model = APHYNITY(expert, encoder=SMALL)
    model.bind(to_batch(pendulum.simulator.sample(4, seed=0)).to(model.state_sd), window=50)
    return model


def test_own_expert_must_be_passed_and_is_compared(tmp_path):
    own = ODEExpert(
        lambda t, y, z_e: pendulum.undamped(t, y, z_e),
        pendulum.expert.states,
        pendulum.expert.params,
    )
    save_model(tmp_path / "m", bound(own))
    with pytest.raises(CheckpointError, match=r"pass it: load_model\(path, expert=...\)"):
        load_model(tmp_path / "m")
    assert load_model(tmp_path / "m", expert=own).expert is own
    other = ODEExpert(own.field, own.states, (Param("omega0", "rad/s", 0.5, 9.0),))
    with pytest.raises(CheckpointError, match="was trained with params"):
        load_model(tmp_path / "m", expert=other)


def test_shipped_expert_is_found_by_name(tmp_path):
    save_model(tmp_path / "m", bound(pendulum.expert))
    assert load_model(tmp_path / "m").expert is pendulum.expert


def test_a_training_state_is_no_model(folder):
    with pytest.raises(CheckpointError, match="state of a training run, not a model"):
        load_model(folder)
