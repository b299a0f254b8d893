"""Delimited text as a table of text, every row with its line in the file."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import TextIO

import pandas as pd

from hybridgen.errors import DataError

__all__ = ["read_text"]

_SEPARATORS = {",": "','", ";": "';'", "\t": r"'\t'"}


def read_text(
    path: str | os.PathLike[str] | TextIO, sep: str | None = None, encoding: str = "utf-8"
) -> pd.DataFrame:
    r"""Read a delimited file; nothing is converted.

    Blank lines, and lines of empty cells, are passed over. A byte order mark is too.

    Arguments:
        path: The file, or an open text file.
        sep: What separates the cells; None looks in the header for a comma, a semicolon or a
            tab.
        encoding: The encoding of the text.

    Returns:
        Stripped text cells, with the header as columns and the line numbers (the first line of
        the file is 1) as index.

    Raises:
        DataError: If there is no such file, header or row, or a row has too few or many cells.

    Example:
        >>> read_text(io.StringIO("t,x\n\n0,1.5\n")).to_dict("index")
        {3: {'t': '0', 'x': '1.5'}}
    """
    text, name = _text(path, encoding)
    if sep is not None and (len(sep) != 1 or sep in '"\r\n'):
        raise DataError(f"sep is {sep!r}; give one character, such as ',' or ';' or '\\t'.")
    lines = _lines(text, sep or _sniff(text, name), name)
    if not lines:
        raise DataError(f"{name} is empty; it needs a header and rows.")
    number, header = lines.pop(0)
    _check_header(header, number, name)
    if not lines:
        raise DataError(f"{name} has a header but 0 rows.")
    for row, cells in lines:
        if len(cells) < len(header) or any(cells[len(header) :]):
            raise DataError(
                f"row {row} of {name} has {len(cells)} cells, but the header (row {number}) has "
                f"{len(header)}; write sep= if cells are separated otherwise, and quote "
                "numbers with a decimal comma."
            )
    rows = [cells[: len(header)] for _, cells in lines]
    return pd.DataFrame(rows, index=[row for row, _ in lines], columns=header, dtype=object)


def _text(path: str | os.PathLike[str] | TextIO, encoding: str) -> tuple[str, str]:
    """Return the text of a file without its byte order mark, and what to call the file."""
    if not isinstance(path, (str, os.PathLike)):
        return path.read().removeprefix("\ufeff"), "the text"
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}.") from error
    try:
        return content.decode(encoding).removeprefix("\ufeff"), path.name
    except UnicodeDecodeError as error:
        row = content[: error.start].count(b"\n") + 1
        raise DataError(
            f"row {row} of {path.name} is not {encoding} text; write the encoding it was saved "
            "with, such as encoding='latin-1' or encoding='utf-16'."
        ) from error
    except LookupError as error:
        raise DataError(f"no encoding {encoding!r}; write one such as 'utf-8'.") from error


def _sniff(text: str, name: str) -> str:
    """Return the one separator that occurs in the header."""
    header = next((line for line in text.splitlines() if line.strip()), "")
    outside = "".join(header.split('"')[::2])
    found = [sep for sep in _SEPARATORS if sep in outside]
    if len(found) > 1:
        kinds = " and ".join(_SEPARATORS[sep] for sep in found)
        raise DataError(
            f"the header of {name} holds {kinds}; write which of them separates the cells, "
            f"such as sep={_SEPARATORS[found[0]]}."
        )
    return found[0] if found else ","


def _lines(text: str, sep: str, name: str) -> list[tuple[int, list[str]]]:
    """Return the stripped cells of every line that is not blank, with its number."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=sep, strict=True)
    lines = []
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                lines.append((reader.line_num, stripped))
    except csv.Error as error:
        raise DataError(f"row {reader.line_num} of {name} cannot be read: {error}.") from error
    return lines


def _check_header(header: list[str], number: int, name: str) -> None:
    if all(_is_number(cell) for cell in header):
        raise DataError(
            f"row {number} of {name} holds numbers ({', '.join(header[:4])}) where the names of "
            "the columns are expected; write a header such as 't [s],angle [rad]'."
        )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
