"""Refuse what cannot be integrated, before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Size, Tensor

from hybridgen.errors import ConfigError, DataError, ShapeError

__all__ = [
    "check_level",
    "check_start",
    "check_times",
    "check_tolerance",
    "levels",
]


def check_tolerance(name: str, value: float) -> float:
    """Return a tolerance that is a positive, finite number.

    Raises:
        ConfigError: If it is not.
    """
    value = float(value)
    if not 0.0 < value < float("inf"):
        raise ConfigError(f"{name} is {value}; write a positive number such as 1e-6.")
    return value


def check_level(name: str, value: int) -> int:
    """Return a number of substeps that is a whole number of at least 1.

    Raises:
        ConfigError: If it is not.
    """
    if int(value) != value or value < 1:
        raise ConfigError(f"{name} is {value}; write a whole number of at least 1.")
    return int(value)


def levels(substeps: int | Sequence[int] | Tensor, intervals: int) -> list[int]:
    """Return the number of substeps of each interval.

    Arguments:
        substeps: One number for all intervals, or one for each, with shape `(T-1,)`.
        intervals: How many intervals there are, `T - 1`.

    Returns:
        As many numbers as there are intervals.

    Raises:
        ConfigError: If a number is below 1, or there are too few or too many.

    Example:
        >>> levels(2, 3), levels([1, 2], 2)
        ([2, 2, 2], [1, 2])
    """
    values = substeps.tolist() if isinstance(substeps, Tensor) else substeps
    if isinstance(values, int):
        values = [values] * intervals
    if len(values) != intervals:
        raise ConfigError(
            f"substeps has {len(values)} entries for {intervals} intervals between save times; "
            "write one number, or one for each interval."
        )
    return [check_level("substeps", value) for value in values]


def check_start(y0: Tensor, batch_dims: int) -> Size:
    """Return the batch shape of initial states, with shape `(*B, *S)`.

    Raises:
        ShapeError: If they are no floating-point tensor or have too few axes.
    """
    if not isinstance(y0, Tensor) or not (y0.is_floating_point() or y0.is_complex()):
        got = f"a tensor of {y0.dtype}" if isinstance(y0, Tensor) else type(y0).__name__
        raise ShapeError(f"y0 is {got}; write a tensor of floating-point numbers.")
    if not 0 <= batch_dims <= y0.ndim:
        raise ShapeError(
            f"batch_dims is {batch_dims} for y0 of shape {tuple(y0.shape)}; it counts the leading "
            "axes that number the members, 0 for a single system."
        )
    return y0.shape[:batch_dims]


def check_times(t: Tensor, y0: Tensor, batch: Size) -> None:
    """Check save times, with shape `(T,)` or `(*B, T)`, against initial states `(*B, *S)`.

    Raises:
        ShapeError: If they have a wrong shape, dtype or device.
        DataError: If they are not strictly monotone; a member whose own times hold a NaN is not
            an error, it only fails.
    """
    if not isinstance(t, Tensor) or not t.is_floating_point():
        got = f"a tensor of {t.dtype}" if isinstance(t, Tensor) else type(t).__name__
        raise ShapeError(f"t is {got}; write a tensor of floating-point times.")
    if not (t.ndim == 1 or (batch and t.shape[:-1] == batch)) or not t.shape[-1]:
        own = f", or {(*batch, 'T')} for times of the members' own" if batch else ""
        raise ShapeError(f"t has shape {tuple(t.shape)}; expected ('T',) with T >= 1{own}.")
    if t.device != y0.device:
        raise ShapeError(f"t is on {t.device} and y0 on {y0.device}; write t.to(y0.device).")
    if t.ndim == 1 and bool(torch.isnan(t).any()):
        raise DataError(f"t is NaN at {_first(torch.isnan(t))}; every save time must be a number.")
    steps = t.detach().diff()
    own_nan = torch.isnan(t).any(dim=-1)
    wrong = ~((steps > 0).all(dim=-1) | (steps < 0).all(dim=-1) | own_nan)
    if t.ndim == 1 and bool(wrong):
        direction = (steps > 0) if bool(steps[0] > 0) else (steps < 0)
        at = int(_first(~direction)[0]) if bool((~direction).any()) else 0
        raise DataError(
            f"t goes from {t[at].item():g} to {t[at + 1].item():g} at index {at}; save times must "
            "be strictly increasing or strictly decreasing, without repetition."
        )
    if t.ndim > 1 and bool(wrong.any()):
        raise DataError(
            f"the times of member {_first(wrong)} are not strictly increasing or strictly "
            "decreasing; sort them and drop repetitions."
        )


def _first(where: Tensor) -> tuple[int, ...]:
    """Return the index of the first true entry."""
    return tuple(where.nonzero()[0].tolist())
