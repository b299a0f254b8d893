"""Options that several commands share, declared once: as the fields of a dataclass.

Typer reads the options of a command from the signature of its function. A function that is
`grouped` has one parameter, annotated with the dataclass, for all of its fields:

    @app.command("simulate")
    @grouped
    def _simulate(name: str, *, way: Way) -> None: ...
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from inspect import Parameter
from typing import Any, TypeVar, get_type_hints

__all__ = ["grouped"]


T = TypeVar("T")


def grouped(command: Callable[..., T]) -> Callable[..., T]:
    """Return a command with the fields of a dataclass in the place of a parameter that is one.

    Arguments:
        command: A function; a parameter that is annotated with a dataclass, whose fields are
            annotated as options, becomes these.

    Returns:
        The function that typer reads.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Way:
        ...     out: str
        ...     seed: int = 0
        >>> def simulate(name: str, *, way: Way, split: str = "train") -> str:
        ...     return f"{name} to {way.out}, seed {way.seed}, {split}"
        >>> grouped(simulate)(name="pendulum", out="a.zarr", seed=3)
        'pendulum to a.zarr, seed 3, train'
    """
    given = inspect.signature(command, eval_str=True).parameters
    groups: dict[str, Any] = {
        name: p.annotation for name, p in given.items() if is_dataclass(p.annotation)
    }

    @functools.wraps(command)
    def unfolded(**values: Any) -> T:
        for name, group in groups.items():
            own = {f.name: values.pop(f.name) for f in fields(group) if f.name in values}
            values[name] = group(**own)
        return command(**values)

    parameters = [p for name in given for p in _parameters(given[name])]
    unfolded.__annotations__ = {p.name: p.annotation for p in parameters}
    unfolded.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return unfolded


def _parameters(parameter: Parameter) -> Iterator[Parameter]:
    """Yield the fields of a parameter that is a dataclass; any other as it is."""
    kind, group = Parameter.KEYWORD_ONLY, parameter.annotation
    if not is_dataclass(group):
        yield parameter.replace(kind=kind)
        return
    hints = get_type_hints(group, include_extras=True)
    for f in fields(group):
        default = Parameter.empty if f.default is MISSING else f.default
        yield Parameter(f.name, kind, default=default, annotation=hints[f.name])
