"""Configurations: frozen dataclasses that are checked, nested, and read from TOML.

A configuration stands beside what it configures:

    >>> @config
    ... class Fit:
    ...     steps: int = 1000
    ...     lr: float = 1e-3
    >>> @config
    ... class Study:
    ...     fit: Fit = Fit()
    ...     seeds: tuple[int, ...] = (0,)
    >>> study = with_overrides(Study(), ["fit.steps=200", "seeds=[0, 1]"])
    >>> study
    Study(fit=Fit(steps=200, lr=0.001), seeds=(0, 1))
    >>> from_mapping(Study, {"fit": {"stpes": 200}})
    Traceback (most recent call last):
    hybridgen.errors.ConfigError: Study: fit.stpes is unknown; did you mean 'fit.steps'?

A value must have the declared type: `"200"` is no number of steps and `1.0` is none either. TOML
has no null, so a value that is None is left out and comes back as the default.
"""

import difflib
import functools
import json
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, dataclass_transform, get_args

import pydantic.dataclasses
import tomli_w
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from hybridgen.errors import ConfigError

__all__ = ["config", "from_mapping", "load_toml", "to_mapping", "to_toml", "with_overrides"]

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def config(cls: type[T]) -> type[T]:
    """Make a class a frozen dataclass whose values are checked and whose keys are known.

    Arguments:
        cls: A class with annotated fields, as `dataclasses.dataclass` takes it. Fields may be
            configurations themselves. `__post_init__` may raise a ValueError.

    Returns:
        The dataclass; its constructor raises ConfigError.

    Example:
        >>> @config
        ... class Fit:
        ...     steps: int = 1000
        >>> Fit(steps="many")
        Traceback (most recent call last):
        hybridgen.errors.ConfigError: Fit: steps is 'many'; it should be a valid integer
    """
    made = pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid"))(cls)
    construct = made.__init__

    names = [f.name for f in fields(made)]

    @functools.wraps(construct)
    def __init__(self: Any, *args: Any, **values: Any) -> None:  # noqa: N807
        if len(args) > len(names):
            raise ConfigError(f"{cls.__name__} got {len(args)} values; it has {', '.join(names)}.")
        given = {**dict(zip(names, args, strict=False)), **values}
        try:
            construct(self, **given)
        except ValidationError as error:
            raise ConfigError(_explain(cls.__name__, made, given, error)) from None

    made.__init__ = __init__  # type: ignore[method-assign]
    return made  # type: ignore[return-value]


def from_mapping(cls: type[T], values: Mapping[str, Any], *, source: str | None = None) -> T:
    """Build a configuration from nested mappings, as TOML gives them.

    Arguments:
        cls: The configuration class.
        values: Values by field; what is absent takes its default.
        source: What the error message says the values came from, by default the class.

    Returns:
        The configuration.

    Raises:
        ConfigError: Listing every unknown key and every wrong value at once.
    """
    # JSON is the door where pydantic is strict about types but takes a list for a tuple.
    text = json.dumps(values, default=str)
    try:
        return TypeAdapter(cls).validate_json(text, strict=True)
    except ValidationError as error:
        raise ConfigError(_explain(source or cls.__name__, cls, values, error)) from None


def load_toml(cls: type[T], path: str | os.PathLike[str]) -> T:
    """Read a configuration from a TOML file.

    Arguments:
        cls: The configuration class.
        path: The file.

    Returns:
        The configuration.

    Raises:
        ConfigError: If there is no such file, it is not TOML, or a key or value is wrong.
    """
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; give a TOML file.") from None
    except ValueError as error:  # not UTF-8, or not TOML; the latter names line and column
        raise ConfigError(f"{path} is not TOML: {error}") from None
    return from_mapping(cls, values, source=path.name)


def with_overrides(cfg: T, overrides: Iterable[str]) -> T:
    """Return a copy with some values replaced, and everything checked anew.

    Arguments:
        cfg: The configuration.
        overrides: Each `"path=value"`: a dotted path, and a value in TOML. A word that is not
            TOML is a string, so quotes may be left out.

    Returns:
        The new configuration.

    Raises:
        ConfigError: If an override has no `=`, its path leads nowhere, or its value is wrong.

    Example:
        >>> @config
        ... class Fit:
        ...     device: str = "cpu"
        >>> with_overrides(Fit(), ["device=cuda"])
        Fit(device='cuda')
    """
    values = to_mapping(cfg)
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals or not path.strip():
            raise ConfigError(f"got {override!r}; write path=value, such as fit.steps=200.")
        values = _replaced(values, path.strip().split("."), _parse(override, text.strip()))
    return from_mapping(type(cfg), values, source="after the overrides")


def to_mapping(cfg: object) -> dict[str, Any]:
    """Return a configuration as nested mappings and lists of plain values.

    Arguments:
        cfg: The configuration.
    """
    return TypeAdapter(type(cfg)).dump_python(cfg, mode="json")


def to_toml(cfg: object) -> str:
    """Write a configuration as TOML, which `load_toml` reads back as an equal one.

    Arguments:
        cfg: The configuration.

    Returns:
        The text; values that are None by default and None here are left out.

    Raises:
        ConfigError: If a value is None though its default is not, or None stands in a list.

    Example:
        >>> @config
        ... class Fit:
        ...     steps: int = 1000
        ...     stop: float | None = None
        >>> print(to_toml(Fit()), end="")
        steps = 1000
    """
    values = _without_none(to_mapping(cfg))
    text = tomli_w.dumps(values)
    if from_mapping(type(cfg), tomllib.loads(text)) != cfg:
        raise ConfigError(
            f"{cfg!r} does not survive TOML, which has no null and no nan that equals itself: "
            "let a value that may be None be None by default."
        )
    return text


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_none(v) for v in value if v is not None]
    return value


def _parse(override: str, text: str) -> Any:
    """Read a TOML value; a bare word is a string."""
    try:
        document = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError as error:
        if not text or text[0] in "[{\"'":
            raise ConfigError(f"{override!r}: the value is not TOML ({error}).") from None
        return text
    if set(document) != {"value"}:
        raise ConfigError(f"{override!r} holds more than one value; write one override for each.")
    return document["value"]


def _replaced(here: Any, path: Sequence[str], value: Any, above: str = "") -> Any:
    """Return `here` with the value at a path replaced; tables go by key and lists by index."""
    if not path:
        return value
    key, rest = path[0], path[1:]
    below = f"{above}.{key}" if above else key
    if isinstance(here, list):
        if not key.isdigit() or int(key) >= len(here):
            raise ConfigError(f"{above} is a list of {len(here)} values; {below} is not in it.")
        changed = list(here)
        changed[int(key)] = _replaced(here[int(key)], rest, value, below)
        return changed
    if here is not None and not isinstance(here, dict):
        raise ConfigError(f"{above} is {here!r}, which has no parts; {below} is unknown.")
    table = here or {}
    return {**table, key: _replaced(table.get(key), rest, value, below)}


def _explain(source: str, cls: type, values: Any, error: ValidationError) -> str:
    """Say everything that is wrong, a line each if there are several."""
    lines: dict[str, list[str]] = {}
    for item in error.errors():
        path = _path(item, values)
        if item["type"] == "unexpected_keyword_argument":
            lines[f"{path} is unknown; {_suggest(path, cls)}"] = []
        elif item["type"] == "missing":
            lines[f"{path} is missing"] = []
        elif item["type"] == "value_error":
            lines[": ".join(filter(None, [path, str(item["ctx"]["error"])]))] = []
        else:
            # the members of a union each have their say; they share one line
            start = f"{path} is {item['input']!r:.80}; it should "
            lines.setdefault(start, []).append(_expected(item["type"], item["msg"]))
    text = [start + " or ".join(expected) for start, expected in lines.items()]
    if len(text) == 1:
        return f"{source}: {text[0]}"
    return f"{source}: {len(text)} errors\n  " + "\n  ".join(text)


def _expected(kind: str, message: str) -> str:
    if kind == "dataclass_type":
        return "be a table"
    return re.sub(r"^Input should |, unable to parse .*", "", message)


def _path(item: ErrorDetails, values: Any) -> str:
    """Return the dotted path of an error, without pydantic's labels for the members of a union."""
    absent = item["type"] in ("missing", "unexpected_keyword_argument")
    parts: list[str] = []
    here = values
    for i, key in enumerate(item["loc"]):
        try:
            here = here[key]
        except (LookupError, TypeError):
            if not (absent and i == len(item["loc"]) - 1):
                continue
        parts.append(str(key))
    return ".".join(parts)


def _suggest(path: str, cls: type) -> str:
    """Return a hint that names the nearest key, a sibling of the wrong one if two are as near."""
    *above, name = path.split(".")
    level = [p for p in above if not p.isdigit()]
    known = {k.rpartition(".")[2]: k for k in reversed(list(_keys(cls)))}
    siblings = {
        k[-1]: path.removesuffix(name) + k[-1]
        for k in (k.split(".") for k in _keys(cls))
        if k[:-1] == level
    }
    known |= siblings
    if close := difflib.get_close_matches(name, known, n=1):
        return f"did you mean {known[close[0]]!r}?"
    return "known: " + (", ".join(map(repr, siblings.values())) or "none")


def _keys(annotation: Any, above: str = "") -> Iterator[str]:
    """Yield the dotted paths of every field of the configurations that a type speaks of."""
    if is_dataclass(annotation) and isinstance(annotation, type):
        for name, field in annotation.__pydantic_fields__.items():  # type: ignore[attr-defined]
            yield above + name
            yield from _keys(field.annotation, f"{above}{name}.")
    for part in get_args(annotation):
        yield from _keys(part, above)
