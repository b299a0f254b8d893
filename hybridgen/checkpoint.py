"""Checkpoints: tensors as safetensors, everything else as JSON, both behind a checksum.

A checkpoint is a folder with `tensors.safetensors` and `checkpoint.json`; the JSON holds the
sha256 of the tensors, and of itself. Nothing read from a file is unpickled or imported, except
that `load_model` finds experts that ship with hybridgen by their name.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from hybridgen.config import from_mapping
from hybridgen.errors import CheckpointError
from hybridgen.expert import AnyExpert, Expert, ODEExpert
from hybridgen.files import write_bytes_atomic, write_text_atomic
from hybridgen.models import (
    APHYNITY,
    Convolutional,
    GlobalParameters,
    HybridModel,
    HybridVAE,
    NeuralODE,
    Regularisers,
    Residual,
)
from hybridgen.noise import GaussianNoise, LogNormalNoise
from hybridgen.params import State
from hybridgen.version import __version__

__all__ = ["describe_model", "load_model", "load_state", "save_model", "save_state"]

# what the settings of a model are made of
_SETTINGS: dict[str, type] = {
    c.__name__: c for c in (Convolutional, GlobalParameters, Regularisers, Residual)
}
_PLAIN: dict[str, type] = {c.__name__: c for c in (GaussianNoise, LogNormalNoise, State)}


def save_state(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], meta: Mapping[str, Any]
) -> Path:
    """Write tensors and JSON-able facts; a crash leaves the old checkpoint or the new one.

    Tensors go to a file named by their checksum, then the JSON that names it is renamed into
    place, then older tensors are removed.

    Arguments:
        path: The folder of the checkpoint.
        tensors: Tensors by name.
        meta: Facts that JSON can hold.

    Returns:
        The path.
    """
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    data = save_tensors({k: v.detach().cpu().contiguous() for k, v in tensors.items()})
    digest = hashlib.sha256(data).hexdigest()
    name = f"tensors-{digest[:12]}.safetensors"
    write_bytes_atomic(folder / name, data)
    body = {"tensors": name, "sha256": digest, "hybridgen": __version__, "meta": dict(meta)}
    body["self"] = _digest(body)
    write_text_atomic(folder / "checkpoint.json", json.dumps(body, indent=1))
    for old in folder.glob("tensors-*.safetensors"):
        if old.name != name:
            old.unlink()
    return folder


def load_state(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint and check it byte for byte.

    Arguments:
        path: The folder of the checkpoint.

    Returns:
        Tensors by name, and the facts.

    Raises:
        CheckpointError: If a file is missing or a byte differs from what was written.
    """
    folder = Path(path)
    try:
        body = json.loads((folder / "checkpoint.json").read_bytes())
        stated = body.pop("self")
        name, digest = body["tensors"], body["sha256"]
        intact = stated == _digest(body) and Path(name).name == name
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{folder} holds no checkpoint (no checkpoint.json in it)."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(_damaged(folder / "checkpoint.json")) from error
    if not intact:
        raise CheckpointError(_damaged(folder / "checkpoint.json"))
    try:
        data = (folder / name).read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder / name} is missing; copy the whole folder.") from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise CheckpointError(_damaged(folder / name))
    try:
        return load_tensors(data), body["meta"]
    except SafetensorError as error:
        raise CheckpointError(_damaged(folder / name)) from error


def _damaged(path: Path) -> str:
    return (
        f"{path} is damaged: its checksum is not the one it was written with; "
        "restore it from a copy, or train again."
    )


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def save_model(path: str | os.PathLike[str], model: HybridModel) -> Path:
    """Write a trained model.

    Arguments:
        path: The folder of the checkpoint.
        model: The model.

    Returns:
        The path.
    """
    return save_state(path, model.state_dict(), {"model": describe_model(model)})


def describe_model(model: HybridModel) -> dict[str, Any]:
    """Return the class, settings and expert of a model, as JSON holds them."""
    settings = {
        k: tuple(map(_kind, v)) if isinstance(v, tuple) else _kind(v)
        for k, v in model.config.items()
    }
    described = {
        "class": type(model).__name__,
        "learner": model.learner,
        "dtype": str(model.state_sd.dtype).removeprefix("torch."),
        "settings": settings,
        "states": [asdict(s) for s in model.states],
        "expert": None if model.expert is None else _declaration(model.expert),
    }
    return json.loads(json.dumps(described))


def _kind(value: Any) -> Any:
    """Return a setting as a table that says of which kind it is, or a plain value as it is."""
    if not is_dataclass(value) or isinstance(value, type):
        return value
    return {"kind": type(value).__name__, **asdict(value)}


def _declaration(expert: AnyExpert) -> dict[str, Any]:
    return {
        "name": expert.name,
        "where": _where(expert),
        "states": [asdict(s) for s in expert.states],
        "params": [asdict(p) for p in expert.params],
        "inputs": [asdict(i) for i in expert.inputs],
        "space": expert.space,
        "axis": None if isinstance(expert, ODEExpert) else asdict(expert.axis),
    }


def _where(expert: AnyExpert) -> str | None:
    """Return `module:attribute` of an expert that ships with hybridgen, else None."""
    name = getattr(expert.function, "__module__", "")
    if not name.startswith("hybridgen."):
        return None
    members = vars(sys.modules[name])
    found = [k for k, v in members.items() if isinstance(v, (Expert, ODEExpert)) and v == expert]
    simulators = members.get("variants", {})
    found += [f"variants.{k}" for k, v in simulators.items() if v.expert == expert]
    return f"{name}:{found[0]}" if found else None


def load_model(path: str | os.PathLike[str], expert: AnyExpert | None = None) -> HybridModel:
    """Read a trained model.

    Arguments:
        path: The folder of the checkpoint.
        expert: Your own expert, if the model was trained with one; experts that ship with
            hybridgen are found by their name.

    Returns:
        The model, ready to predict.

    Raises:
        CheckpointError: If the checkpoint is damaged, needs an expert that was not given, or
            was written for one that is declared differently.
    """
    tensors, meta = load_state(path)
    described = meta.get("model")
    if described is None:
        raise CheckpointError(f"{path} is the state of a training run, not a model.")
    settings = {k: _setting(path, v) for k, v in described["settings"].items()}
    if described["class"] == "NeuralODE":
        states = tuple(State(**s) for s in described["states"])
        model: HybridModel = NeuralODE(states, **settings)
    else:
        hybrid: Any = HybridVAE if described["class"] == "HybridVAE" else APHYNITY
        model = hybrid(_expert(path, described["expert"], expert), **settings)
    model = model.to(getattr(torch, described["dtype"]))
    model.learner = described["learner"]
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit its own description: {error}") from error
    return model


def _setting(path: str | os.PathLike[str], value: Any) -> Any:
    """Return a setting from its JSON form: tables say of which kind they are."""
    if isinstance(value, list):
        return tuple(_setting(path, v) for v in value)
    if not isinstance(value, dict):
        return value
    values = dict(value)
    kind = values.pop("kind", None)
    if kind in _PLAIN:
        return _PLAIN[kind](**values)
    if kind in _SETTINGS:
        return from_mapping(_SETTINGS[kind], values, source=str(path))
    raise CheckpointError(f"{path} has settings of an unknown kind {kind!r}.")


def _expert(path: str | os.PathLike[str], stated: dict[str, Any], given: AnyExpert | None) -> Any:
    if given is None:
        where = stated["where"]
        if where is None or not where.startswith("hybridgen."):
            raise CheckpointError(
                f"{path} was trained with your expert {stated['name']!r}; "
                "pass it: load_model(path, expert=...)."
            )
        module, attribute = where.split(":")
        members = vars(importlib.import_module(module))
        variant = attribute.removeprefix("variants.")
        given = members[attribute] if attribute == variant else members["variants"][variant].expert
    declared = json.loads(json.dumps(_declaration(given)))
    for key in ("states", "params", "inputs", "space", "axis"):
        if declared[key] != stated[key]:
            raise CheckpointError(
                f"{path} was trained with {key} {stated[key]}, but the expert declares "
                f"{declared[key]}; pass the expert that it was trained with."
            )
    return given
