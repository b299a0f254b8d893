"""A run directory as it was left: rows, configuration, provenance and diagnostics.

Only `results.json` must be there. Whatever else is missing is None, and the report says so.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridgen.errors import DataError
from hybridgen.report.rows import check_rows

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Run", "facts", "read_run"]

# What a group of the diagnostics must hold to be drawn.
NEEDS = {
    "parameters": ("inferred", "true"),
    "rollouts": ("predicted", "observed"),
    "residual": ("f_a", "support"),
    "status": ("status",),
    "forecast": ("predicted", "observed"),
}


@dataclass(frozen=True)
class Run:
    """What a run directory holds.

    Arguments:
        path: The directory.
        rows: The result rows, checked.
        config: The text of `config.toml`, or None.
        provenance: The mapping of `provenance.json`, or None.
        groups: Data sets of the first seed by group, in memory; only those that are there.
        absent: For each group that cannot be drawn, why not.
        history: The training history by learner.
        identifiability: What the data say of each parameter, by learner.
    """

    path: Path
    rows: list[dict[str, Any]]
    config: str | None
    provenance: dict[str, Any] | None
    groups: Mapping[str, xr.Dataset]
    absent: Mapping[str, str]
    history: Mapping[str, xr.Dataset]
    identifiability: Mapping[str, xr.Dataset] = field(default_factory=dict)

    @property
    def experiment(self) -> str:
        """The name of the experiment."""
        return str(self.rows[0]["experiment"])


def read_run(path: str | Path, *, diagnostics: bool = True) -> Run:
    """Read a run directory.

    Arguments:
        path: The directory, with `results.json` in it.
        diagnostics: Whether to read `diagnostics.zarr` as well.

    Raises:
        DataError: There is no `results.json`, or a file is not what it should be.
    """
    path = Path(path)
    if not (path / "results.json").is_file():
        raise DataError(
            f"no results.json in {str(path)!r}; expected the directory of a finished run"
        )
    rows = check_rows(_json(path / "results.json"))
    if len(experiments := {str(r["experiment"]) for r in rows}) > 1:
        raise DataError(
            f"results.json speaks of {sorted(experiments)}; expected one experiment a run"
        )
    config, provenance = path / "config.toml", path / "provenance.json"
    found = _json(provenance) if provenance.is_file() else None
    if found is not None and not isinstance(found, dict):
        raise DataError(f"provenance.json holds a {type(found).__name__}; expected a mapping")
    parts: tuple[Any, ...] = ({}, {}, {}, {})
    if diagnostics:
        parts = _diagnostics(path / "diagnostics.zarr")
    text = config.read_text(encoding="utf-8") if config.is_file() else None
    return Run(path, rows, text, found, *parts)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path.name} is not JSON: {error}; write it again") from error


def _diagnostics(
    path: Path,
) -> tuple[dict[str, xr.Dataset], dict[str, str], dict[str, xr.Dataset], dict[str, xr.Dataset]]:
    """Return the groups that can be drawn, why others cannot, and the groups by learner."""
    if not (path / "zarr.json").is_file():
        why = "the run directory holds no diagnostics.zarr"
        return {}, dict.fromkeys([*NEEDS, "history", "identifiability"], why), {}, {}
    import xarray as xr

    with xr.open_datatree(path, engine="zarr", consolidated=False) as tree:
        groups, absent = {}, {}
        for name, needs in NEEDS.items():
            if name not in tree.children:
                absent[name] = f"diagnostics.zarr has no group “{name}”"
            elif lacks := [v for v in needs if v not in tree[name].data_vars]:
                absent[name] = f"the group “{name}” of diagnostics.zarr lacks {', '.join(lacks)}"
            else:
                groups[name] = tree[name].to_dataset().load()
        history, identifiability = (
            _by_learner(tree, name) for name in ("history", "identifiability")
        )
    if not history:
        absent["history"] = "diagnostics.zarr has no training history"
    return groups, absent, history, identifiability


def _by_learner(tree: xr.DataTree, group: str) -> dict[str, xr.Dataset]:
    parts = tree[group].children if group in tree.children else {}
    return {str(k): v.to_dataset().load() for k, v in parts.items() if v.data_vars}


def _pairs(value: dict[str, Any]) -> str:
    return ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in value.items())


def facts(provenance: dict[str, Any] | None) -> list[tuple[str, str]]:
    """Return provenance as pairs of words, nested mappings on one line."""
    known = {"git_revision": "git revision", "run_time_s": "run time"}
    found = []
    for key, value in (provenance or {}).items():
        if isinstance(value, dict):
            text = _pairs(value)
        elif isinstance(value, list | tuple):
            words = [_pairs(v) if isinstance(v, dict) else str(v) for v in value]
            text = shlex.join(words) if key == "command" else ", ".join(words)
        elif key == "run_time_s" and isinstance(value, int | float):
            text = f"{value:.0f} s" if value < 120 else f"{value / 60:.1f} min"
        else:
            text = "unknown" if value is None else str(value)
        found.append((known.get(key, key.replace("_", " ")), text))
    return found
