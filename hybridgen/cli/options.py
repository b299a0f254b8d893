"""Options that say which column of a file holds what, and how the errors name them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from hybridgen.errors import ConfigError, DataError

__all__ = ["Columns", "absolute", "as_options", "pairs"]

_COLUMN = "NAME=COLUMN"

Time = Annotated[str | None, typer.Option(help="Column of the times.", metavar="COLUMN")]
StateColumn = Annotated[
    list[str] | None,
    typer.Option("--state", help="Column of a state; repeatable.", metavar=_COLUMN),
]
Sample = Annotated[
    str | None, typer.Option(help="Column that tells runs apart.", metavar="COLUMN")
]
Input = Annotated[
    list[str] | None,
    typer.Option("--input", help="Column of an input; repeatable.", metavar=_COLUMN),
]
Known = Annotated[
    list[str] | None,
    typer.Option("--known", help="Column of a known parameter; repeatable.", metavar=_COLUMN),
]
Unit = Annotated[
    list[str] | None,
    typer.Option("--unit", help="Unit of a state, input or parameter.", metavar="NAME=UNIT"),
]
Convert = Annotated[
    list[str] | None,
    typer.Option(
        "--convert", help="Factor, or factor,offset, to its unit.", metavar="NAME=FACTOR"
    ),
]
TimeUnit = Annotated[str | None, typer.Option(help="Unit of the times.", metavar="UNIT")]
MissingValue = Annotated[
    list[str] | None,
    typer.Option(
        "--missing",
        help="What stands for a missing value; repeatable; `none` if every number is a value.",
        metavar="VALUE",
    ),
]
Sort = Annotated[bool, typer.Option("--sort", help="Put rows in the order of their times.")]
Separator = Annotated[
    str | None, typer.Option("--sep", help="What separates cells: , or ; or tab.")
]
Decimal = Annotated[str | None, typer.Option(help="The decimal mark: . or ,")]
Group = Annotated[str | None, typer.Option(help="Group of a zarr store.")]


def pairs(given: Sequence[str] | None, option: str) -> dict[str, str]:
    """Split options of the form name=value.

    Arguments:
        given: The values of the option.
        option: Its name and form, for the error.

    Raises:
        ConfigError: If one has not this form.

    Example:
        >>> pairs(["theta=angle [deg]"], "--state NAME=COLUMN")
        {'theta': 'angle [deg]'}
    """
    found = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise ConfigError(f"got {text!r}; write {option}.")
        found[name.strip()] = value.strip()
    return found


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _factor(text: str) -> Any:
    parts = [_number(part) for part in text.split(",")]
    if len(parts) > 2 or any(isinstance(part, str) for part in parts):
        raise ConfigError(f"got the factor {text!r}; write --convert NAME=FACTOR, or =FACTOR,ADD.")
    return parts[0] if len(parts) == 1 else parts


@dataclass(frozen=True)
class Columns:
    """Which column of a file holds what: the options of a command that reads one.

    Each is as `hybridgen.reading.formats.Reading` has it, names and values still as one text.
    """

    time: Time = None
    state: StateColumn = None
    sample: Sample = None
    input: Input = None
    known: Known = None
    unit: Unit = None
    convert: Convert = None
    time_unit: TimeUnit = None
    missing: MissingValue = None
    sort: Sort = False
    sep: Separator = None
    decimal: Decimal = None
    group: Group = None

    def reading(self) -> dict[str, Any]:
        r"""Return what the options say as values of `hybridgen.reading.formats.Reading`.

        Only what was given is in it.

        Example:
            >>> Columns(state=["theta=angle"], sep="tab").reading()
            {'states': {'theta': 'angle'}, 'sep': '\t'}
        """
        values: dict[str, Any] = {
            "time": self.time,
            "states": pairs(self.state, f"--state {_COLUMN}"),
            "sample": self.sample,
            "inputs": pairs(self.input, f"--input {_COLUMN}"),
            "known": pairs(self.known, f"--known {_COLUMN}"),
            "units": pairs(self.unit, "--unit NAME=UNIT"),
            "convert": {
                name: _factor(text)
                for name, text in pairs(self.convert, "--convert NAME=FACTOR").items()
            },
            "time_unit": self.time_unit,
            "sort": self.sort or None,
            "sep": {"tab": "\t", "\\t": "\t"}.get(self.sep, self.sep) if self.sep else None,
            "decimal": self.decimal,
            "group": self.group,
        }
        found = {k: v for k, v in values.items() if v not in (None, {})}
        if self.missing:
            markers = [] if list(self.missing) == ["none"] else map(_number, self.missing)
            found["missing"] = list(markers)
        return found


# what the reader's errors say in Python, and the same as an option
_SPOKEN = (
    (r"sort=True", "--sort"),
    (r"(states|inputs|known|units)=\{'(\w+)': ('[^']*')\}", r"--\1 \2=\3"),
    (r"convert=\{'(\w+)': \(([^)]*), ([^)]*)\)\}", r"--convert \1=\2,\3"),
    (r"convert=\{'(\w+)': ([^}]*)\}", r"--convert \1=\2"),
    (r"missing=\(\)", "--missing none"),
    (r"missing=\(([^)]*)\)", lambda m: _repeated(m[1])),
    (r"\b(time_unit|decimal|sep|time|sample|group)=('[^']*')",
     lambda m: f"--{m[1].replace('_', '-')} {m[2]}"),
    (r"date_format=('[^']*')", r"--set reading.date_format=\1"),
    (r"--states ", "--state "), (r"--inputs ", "--input "), (r"--units ", "--unit "),
    (r"'\.\.\.'", "COLUMN"),
)  # fmt: skip


def _repeated(markers: str) -> str:
    """Return a tuple of markers as repeated options."""
    parts = [part.strip() for part in markers.split(",") if part.strip()]
    return " ".join(f"--missing {part}" for part in parts)


@contextlib.contextmanager
def as_options() -> Iterator[None]:
    """Let errors of the reader name the options of the command line."""
    try:
        yield
    except DataError as error:
        text = str(error)
        for pattern, spoken in _SPOKEN:
            text = re.sub(pattern, spoken, text)
        raise type(error)(text) from error


def absolute(target: str) -> str:
    """Return the target FILE.py:NAME with the whole path of a file that is there.

    So it is found from another folder as well. A module stays as it is.
    """
    where, colon, name = target.rpartition(":")
    path = Path(where)
    return f"{path.resolve()}{colon}{name}" if where and path.is_file() else target
