"""Dates in a column of times."""

from __future__ import annotations

import datetime
import re
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hybridgen.errors import DataError
from hybridgen.reading.columns import Channel, is_gap, is_number

__all__ = ["is_dated", "parse_dates"]

_ISO = "ISO8601"
_ZONE = re.compile(r".*[0-9][T ].*(?:Z|[+-][0-9]{2}:?(?:[0-9]{2})?)")


def is_dated(cells: pd.Series, date_format: str) -> bool:
    """Whether a column of times holds dates, as its first cell shows.

    Arguments:
        cells: The column.
        date_format: How dates in text are written; if it is not ISO 8601, text is dates.

    Example:
        >>> is_dated(pd.Series(["2024-01-31"]), "ISO8601"), is_dated(pd.Series(["3"]), "ISO8601")
        (True, False)
    """
    if pd.api.types.is_datetime64_any_dtype(cells.dtype):
        return True
    if pd.api.types.is_numeric_dtype(cells.dtype):
        return False
    first = next((cell for cell in cells.tolist() if _text(cell)), None)
    if isinstance(first, str) and date_format == _ISO:
        return not is_number(first.strip()) and not _parse([first.strip()], _ISO).isna().any()
    return isinstance(first, (str, datetime.date))


def parse_dates(cells: pd.Series, channel: Channel, date_format: str) -> NDArray[Any]:
    """Read a column of dates.

    Arguments:
        cells: Dates or text, with N cells.
        channel: What to call it.
        date_format: How dates in text are written.

    Returns:
        The dates (datetime64, universal time), NaT where a cell is empty, with shape `(N,)`.

    Raises:
        DataError: Naming the row, if a cell holds no date, or some have a time zone and some not.

    Example:
        >>> parse_dates(pd.Series(["2024-01-31"]), Channel("time", "'t'", str), "ISO8601")
        array(['2024-01-31T00:00:00.000000'], dtype='datetime64[us]')
    """
    if pd.api.types.is_datetime64_any_dtype(cells.dtype):
        return _stamps(pd.to_datetime(cells, utc=True))
    texts = [_text(cell) for cell in cells.tolist()]
    dates = _parse(texts, date_format)
    for i in map(int, np.flatnonzero(dates.isna())):
        if texts[i]:
            raise channel.fault(
                i,
                f"{texts[i]!r} is not a date written as {date_format}, as the first is; write "
                "date_format='%d/%m/%Y', say, if dates are written otherwise.",
            )
    zoned = {bool(_ZONE.fullmatch(text)): i for i, text in enumerate(texts) if text}
    if len(zoned) > 1 and date_format == _ISO:
        odd = zoned[True]
        raise channel.fault(odd, f"{texts[odd]!r} has a time zone, but others have none.")
    return _stamps(dates)


def _text(cell: Any) -> str:
    """Return a cell as text; nothing for a gap."""
    return "" if is_gap(cell) else str(cell).strip()


def _parse(texts: list[str], date_format: str) -> pd.Series:
    if date_format == _ISO:  # pandas would take "now" and "today" for dates
        texts = [text if text[:1].isdigit() else "" for text in texts]
    try:
        return pd.to_datetime(
            pd.Series(texts, dtype=object), format=date_format, utc=True, errors="coerce"
        )
    except ValueError as error:
        raise DataError(
            f"date_format is {date_format!r}, but {error}; write one such as '%d/%m/%Y'."
        ) from error


def _stamps(dates: pd.Series) -> NDArray[Any]:
    stamps: NDArray[Any] = dates.dt.tz_localize(None).to_numpy("datetime64[us]")
    return stamps
