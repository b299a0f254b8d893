"""How an experiment is configured and run in its directory."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridgen.cli.console import Interrupted, show
from hybridgen.errors import ConfigError, nearest

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["command", "configure", "execute"]


def command() -> list[str]:
    """Return the command that this process was started with, as words."""
    return ["hybridgen", *sys.argv[1:]]


def configure(
    module: ModuleType,
    name: str,
    file: Path | None,
    preset: str | None,
    overrides: list[str],
    values: Mapping[str, Any] | None = None,
) -> Any:
    """Return the configuration: a file or a preset or the defaults, values, then the overrides.

    Arguments:
        module: The experiment.
        name: Its name.
        file: A TOML file, or None.
        preset: The name of one of its presets, or None.
        overrides: Each `"path=value"`.
        values: Nested values that replace those of the file or the preset.
    """
    from hybridgen.config import from_mapping, load_toml, to_mapping, with_overrides

    if file and preset:
        raise ConfigError("--config and --preset exclude each other; write one.")
    presets: Mapping[str, Mapping[str, Any]] = getattr(module, "CONFIGS", {})
    if preset and preset not in presets:
        raise ConfigError(
            f"experiment {name!r} has no preset {preset!r}; {nearest(preset, presets)}"
        )
    if file:
        cfg = load_toml(module.Config, file)
    else:
        cfg = from_mapping(module.Config, presets[preset] if preset else {})
    if values:
        merged = _merged(to_mapping(cfg), values)
        cfg = from_mapping(module.Config, merged, source="the options")
    return with_overrides(cfg, overrides)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested mappings as one; where both have a value that of `above` counts."""
    found = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(found.get(key), Mapping)
        found[key] = _merged(found[key], value) if both else value
    return found


def _usable(device: str) -> str:
    """Return a device after making sure that there is such a one."""
    import torch

    try:
        torch.zeros(1, device=device).sum()
    except (RuntimeError, AssertionError) as error:
        # torch says so with an error of either kind, at length
        why = str(error).partition("\n")[0]
        raise ConfigError(
            f"device {device!r} cannot be used here ({why}); `hybridgen doctor` lists what can."
        ) from None
    return device


def execute(
    module: ModuleType,
    name: str,
    cfg: Any,
    out: Path,
    *,
    overwrite: bool,
    resume: bool,
    json: bool = False,
) -> None:
    """Run an experiment in its directory, then show the table and write the report.

    Where its configuration names an `expert` of the user's, `main(cfg, run, expert)` is given it.
    An experiment may have `check(cfg, ...)`, which raises what can be said of its settings before
    anything is written.

    Arguments:
        module: The experiment.
        name: Its name.
        cfg: Its configuration.
        out: The directory.
        overwrite: Whether an old run may be moved aside.
        resume: Whether to go on with an old run.
        json: Whether to write lines of JSON instead of a table.
    """
    from hybridgen.progress import json_lines
    from hybridgen.report import write_report
    from hybridgen.rundir import RunDir

    device = _usable(getattr(cfg, "device", "cpu"))
    with _arguments(cfg) as given, json_lines() if json else contextlib.nullcontext():
        # data that a run keeps need not be where they were
        if hasattr(module, "check") and not (resume and (out / "data.zarr").is_dir()):
            module.check(cfg, *given)
        run = RunDir.create(
            out,
            experiment=name,
            config=cfg,
            command=command(),
            device=device,
            overwrite=overwrite,
            resume=resume,
        )
        if json:
            _emit("started", experiment=name, out=str(out))
        try:
            with run:
                run.write_rows(module.main(cfg, run, *given))
        except KeyboardInterrupt:
            again = ["hybridgen", "run", name, "--out", str(out), "--resume"]
            raise Interrupted(shlex.join(again)) from None
    report = write_report(run.path)
    if json:
        _emit("finished", experiment=name, out=str(out), report=str(report))
    else:
        _summarise(run.read_rows())
        show(f"report {report}")


@contextlib.contextmanager
def _arguments(cfg: Any) -> Iterator[tuple[Any, ...]]:
    """Yield what an experiment is given beside its settings: the expert they name, if any."""
    target = getattr(cfg, "expert", None)
    if target is None:
        yield ()
        return
    from hybridgen.locating import expert_of, load_object

    with load_object(target) as value:
        yield (expert_of(value, target.rpartition(":")[2]),)


def _emit(event: str, **facts: Any) -> None:
    from hybridgen.progress import emit

    emit(event, **facts)


def _summarise(rows: list[dict[str, Any]]) -> None:
    """Print the rows as tables, and in sentences where they are of a fit."""
    from hybridgen.report import summary_of, table

    show(table(rows))
    for sentence in summary_of(rows):
        show(sentence)
