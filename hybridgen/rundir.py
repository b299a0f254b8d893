"""Run directories: what was asked for, where it ran, and what came out.

A run directory holds `config.toml` and `provenance.json` from its first moment and `results.json`,
a list of rows, as soon as there are any. A file in it is whole or absent. Nothing is overwritten:
an old run is moved aside, or gone on with.
"""

from __future__ import annotations

import difflib
import json
import math
import time
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from hybridgen.config import to_toml
from hybridgen.errors import DataError, OutputExistsError
from hybridgen.files import write_text_atomic
from hybridgen.provenance import git_revision, machine, versions

__all__ = ["RunDir"]

_CONFIG, _PROVENANCE, _RESULTS = "config.toml", "provenance.json", "results.json"


@dataclass(frozen=True)
class RunDir:
    """The directory of one run; a context manager that notes the run time when it is left.

    Arguments:
        path: The directory.
        provenance: What `provenance.json` says when the run starts.

    Example:
        >>> import tempfile
        >>> from hybridgen.config import config
        >>> @config
        ... class Config:
        ...     seeds: tuple[int, ...] = (0, 1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with RunDir.create(
        ...         f"{folder}/a", experiment="a", config=Config(), command=["a"]
        ...     ) as run:
        ...         _ = run.write_rows([{"value": 1.0}])
        ...     run.read_rows()
        [{'value': 1.0}]
    """

    path: Path
    provenance: Mapping[str, Any]
    _start: float = field(default_factory=time.perf_counter, repr=False)

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        experiment: str,
        config: object,
        command: Sequence[str],
        device: str = "cpu",
        overwrite: bool = False,
        resume: bool = False,
    ) -> RunDir:
        """Make the directory, or take up an old one.

        Arguments:
            path: The directory.
            experiment: The name of the experiment.
            config: Its configuration.
            command: The command that started it, as a list of words.
            device: The torch device it runs on.
            overwrite: Whether an old run may be moved aside, to `<name>.old-1` and so on.
            resume: Whether to go on with an old run, if there is one.

        Returns:
            The run directory, with `config.toml` and `provenance.json` in it.

        Raises:
            OutputExistsError: If there is something at `path`, and neither was asked for; if it
                is no run that could be moved aside; or if the run that should go on had another
                configuration or other versions.
        """
        path = Path(path)
        if overwrite and resume:
            raise OutputExistsError("--overwrite and --resume exclude each other; write one.")
        text = to_toml(config)
        provenance: dict[str, Any] = {
            "experiment": experiment,
            "command": list(command),
            "seeds": _seeds(config),
            "versions": versions(),
            "git_revision": git_revision(),
            "machine": machine(device),
            "started": _now(),
            "run_time_s": 0.0,
            "finished": None,
        }
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            if resume and (path / _CONFIG).is_file():
                provenance = _resumed(path, text, provenance)
            elif overwrite:
                _move_aside(path)
            else:
                raise OutputExistsError(_exists(path))
        path.mkdir(parents=True, exist_ok=True)
        write_text_atomic(path / _CONFIG, text)
        write_text_atomic(path / _PROVENANCE, _json(provenance))
        return cls(path, provenance)

    def write_rows(self, rows: Iterable[Mapping[str, Any]]) -> Path:
        """Write all rows so far to `results.json`; a number that is not finite becomes null.

        Arguments:
            rows: The rows, each a mapping from column to a number, a text or None.

        Returns:
            The path of the file.
        """
        plain = [{k: _plain(v) for k, v in row.items()} for row in rows]
        return write_text_atomic(self.path / _RESULTS, _json(plain))

    def read_rows(self) -> list[dict[str, Any]]:
        """Return the rows that are there, none in a new run.

        Raises:
            DataError: If `results.json` is damaged.
        """
        path = self.path / _RESULTS
        return _read(path) if path.is_file() else []

    def __enter__(self) -> RunDir:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # an interrupted run keeps its run time too, so that a resumed one can add to it
        spent = self.provenance["run_time_s"] + time.perf_counter() - self._start
        ended = {"run_time_s": round(spent, 3), "finished": _now() if kind is None else None}
        write_text_atomic(self.path / _PROVENANCE, _json({**self.provenance, **ended}))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _seeds(config: object) -> list[int]:
    """Return the seeds that a configuration names in `seeds` or `seed`."""
    if hasattr(config, "seeds"):
        return list(config.seeds)
    return [config.seed] if hasattr(config, "seed") else []


def _exists(path: Path) -> str:
    if path.is_file():
        return f"{path} is a file; give the path of a directory."
    if not (path / _CONFIG).is_file():
        return f"{path} is there already and holds no run; give another directory with --out."
    return (
        f"{path} holds a run already; write --resume to go on with it, --overwrite to move it "
        "aside first, or give another directory with --out."
    )


def _move_aside(path: Path) -> None:
    if not (path / _CONFIG).is_file() or Path.cwd().is_relative_to(path.resolve()):
        raise OutputExistsError(
            f"{path} holds no run, or is the current directory, and is not moved aside; "
            "give another directory with --out."
        )
    n = 1
    while (aside := path.with_name(f"{path.name}.old-{n}")).exists():
        n += 1
    path.rename(aside)


def _resumed(path: Path, text: str, now: Mapping[str, Any]) -> dict[str, Any]:
    """Return the old provenance with a note, if a run with this configuration may go on."""
    old = (path / _CONFIG).read_text(encoding="utf-8")
    if tomllib.loads(old) != tomllib.loads(text):
        lines = difflib.unified_diff(
            old.splitlines(), text.splitlines(), "as it was", "as it would be", n=0, lineterm=""
        )
        raise OutputExistsError(
            f"{path} was run with another configuration; drop the changed options to resume it, "
            "or write --overwrite.\n" + "\n".join(lines)
        )
    then: dict[str, Any] = _read(path / _PROVENANCE)
    before, after = then["versions"], now["versions"]
    changed = [f"{k} {before[k]} -> {after.get(k)}" for k in before if before[k] != after.get(k)]
    if changed:
        raise OutputExistsError(
            f"{path} was run with other versions ({', '.join(changed)}), so new rows could not be "
            "compared with its own; install those again to resume it, or write --overwrite."
        )
    again = {k: now[k] for k in ("started", "git_revision")}
    return {**then, "finished": None, "resumed": [*then.get("resumed", ()), again]}


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); start anew with --overwrite.") from None


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _plain(value: Any) -> Any:
    """Return a number of numpy or torch as Python's, and one that is not finite as None."""
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
