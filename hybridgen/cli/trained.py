"""Trained models where a run left them, with the expert and the data they belong to."""

from __future__ import annotations

import contextlib
import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from hybridgen.checkpoint import load_model
from hybridgen.errors import DataError, nearest
from hybridgen.locating import expert_of, load_object
from hybridgen.models import HybridModel
from hybridgen.reading.formats import read_group
from hybridgen.version import __version__

__all__ = ["Trained", "trained"]

_WORDS = {"hybrid": "aphynity", "hybrid+": "aphynity+"}


@dataclass(frozen=True)
class Trained:
    """A trained model and where it comes from.

    Arguments:
        model: The model.
        folder: Its checkpoint.
        run: The run directory.
        expert: Its expert; of a network alone that of its run, if there is one.
        settings: What `config.toml` of the run says.
    """

    model: HybridModel
    folder: Path
    run: Path
    expert: Any
    settings: Mapping[str, Any]

    def _store(self) -> Path | None:
        """Return the store that keeps the data: of the seed, or of the run."""
        folders = (self.folder.parents[1] / "data.zarr", self.run / "data.zarr")
        return next((f for f in folders if (f / "zarr.json").is_file()), None)

    def data(self, *groups: str) -> xr.Dataset | None:
        """Return the first of some groups of data that the run keeps; None if it keeps none."""
        store = self._store()
        if store is None:
            return None
        name = next((g for g in groups if (store / g).is_dir()), None)
        return None if name is None else read_group(store, name)

    def train(self) -> xr.Dataset:
        """Return the training data.

        Raises:
            DataError: If the run does not keep them.
        """
        data = self.data("train")
        if data is None:
            raise DataError(
                f"{self.run} keeps no training data (data.zarr with a group train), which expert "
                "augmentation takes its initial states from; run it again in a new directory."
            )
        return data

    def attrs(self) -> dict[str, str]:
        """Return what a file that was made with the model says of it."""
        stated = json.loads((self.folder / "checkpoint.json").read_text(encoding="utf-8"))
        return {
            "model": f"{self.run.name}/{self.folder.relative_to(self.run)}",
            "model_sha256": str(stated["sha256"]),
            "learner": self.model.learner,
            "hybridgen_version": __version__,
        }


@contextlib.contextmanager
def trained(run: Path, learner: str, target: str | None = None) -> Iterator[Trained]:
    """Read a trained model of a run; meanwhile the folder of its expert can be imported from.

    Arguments:
        run: The directory of a fit or of a study; of a study the first seed is taken.
        learner: `hybrid`, or the name of another learner.
        target: Where its expert is; None for what the run says.

    Raises:
        DataError: If there is no such run or learner.
        CheckpointError: If the model is damaged, or was trained with another expert.
    """
    folder = _find(run, _WORDS.get(learner, learner))
    config = run / "config.toml"
    settings = tomllib.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    target = target or settings.get("expert")
    with contextlib.ExitStack() as stack:
        expert = None
        if target:
            value = stack.enter_context(load_object(target))
            expert = expert_of(value, target.rpartition(":")[2])
        model = load_model(folder, expert)
        yield Trained(model, folder, run, expert or model.expert, settings)


def _find(run: Path, name: str) -> Path:
    if not run.is_dir():
        raise DataError(f"there is no directory {run}; give that of a fit or of a study.")
    found: dict[str, Path] = {}
    for models in (run / "models", *sorted(run.glob("seed-*/models"))):
        for folder in sorted(models.glob("*")):
            if (folder / "checkpoint.json").is_file():
                found.setdefault(folder.name, folder)
    if not found:
        raise DataError(f"{run} holds no trained models; give the directory of a finished run.")
    if name not in found:
        raise DataError(f"{run} has no learner {name!r}; {nearest(name, found)}")
    return found[name]
