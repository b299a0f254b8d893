"""Declarations of an expert's parameters and states: name, unit, range.

A vector of parameters `z_e` has shape `(*B, P)`. An expert reads it by attribute, each value
shaped to broadcast against one component of the state, `(*B, *S)`:

    >>> import torch
    >>> params = (Param("omega0", "rad/s", 0.5, 3.5), Param("alpha", "1/s", 0.0, 0.6))
    >>> z_e = bind(params, torch.tensor([[2.0, 0.1], [3.0, 0.2]]))
    >>> z_e.omega0
    tensor([2., 3.])
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor

from hybridgen.errors import ParameterError, ShapeError, nearest

__all__ = ["Param", "State", "Values", "bind", "check_range", "encoder_box", "vector"]


def _check_name(kind: str, name: str) -> None:
    if not name.isidentifier():
        raise ParameterError(
            f"{kind} name {name!r} is not a Python identifier; write something like 'omega0', "
            "since the expert reads it by attribute."
        )


@dataclass(frozen=True)
class Param:
    """A parameter of the expert and the range in which the expert is valid.

    Arguments:
        name: The attribute by which the expert reads it.
        unit: Its unit, such as `"rad/s"`; `"1"` for a pure number.
        low: Lower end of the valid range, in `unit`.
        high: Upper end of the valid range, in `unit`.
        known: Whether it is given with the data of each run, so that nothing infers it.

    Raises:
        ParameterError: If the name is no identifier or the range is empty or not finite.

    Example:
        >>> Param("omega0", "rad/s", 0.5, 3.5).high
        3.5
    """

    name: str
    unit: str
    low: float
    high: float
    known: bool = False

    def __post_init__(self) -> None:
        _check_name("parameter", self.name)
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ParameterError(
                f"parameter {self.name!r} has the range [{self.low}, {self.high}]; "
                "write two finite numbers, low < high."
            )


@dataclass(frozen=True)
class State:
    """A component of the state.

    Arguments:
        name: The name of the component.
        unit: Its unit.
        observed: Whether data hold it.
        exact: Whether the expert's own equation for it is trusted (theta' = omega), so that no
            network acts on it.
        low: Lower end of the range where it may be at the start, in `unit`; needed where no data
            hold it.
        high: Upper end of that range, in `unit`.

    Raises:
        ParameterError: If the name is no identifier, or a state that is not observed has no range.

    Example:
        >>> State("theta", "rad", exact=True).observed
        True
    """

    name: str
    unit: str
    observed: bool = True
    exact: bool = False
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        _check_name("state", self.name)
        if self.low is None and self.high is None and self.observed:
            return
        low, high = (math.nan if v is None else v for v in (self.low, self.high))
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ParameterError(
                f"state {self.name!r} has the range [{self.low}, {self.high}]; a state that is "
                "not observed needs one, and it takes two finite numbers: "
                f"State({self.name!r}, {self.unit!r}, observed=False, low=..., high=...)."
            )

    @property
    def bounds(self) -> tuple[float, float]:
        """The range where the state may be at the start, in `unit`.

        Raises:
            ParameterError: If none was declared.
        """
        if self.low is None or self.high is None:
            raise ParameterError(f"state {self.name!r} has no range; declare low= and high=.")
        return self.low, self.high


class Values(SimpleNamespace):
    """Named values, read by attribute; a misspelt name is an error that gives the nearest."""

    def __getattr__(self, name: str) -> Tensor:
        # only reached where the attribute is missing
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(f"no parameter {name!r}; {nearest(name, vars(self))}")


def bind(params: Sequence[Param], z: Tensor, space: int = 0) -> Values:
    """Name the last axis of a vector.

    Arguments:
        params: The declarations, P of them.
        z: Values in the order of `params`, with shape `(*B, P)`.
        space: How many spatial axes a state component has.

    Returns:
        The values by name, each with shape `(*B, 1, ..., 1)` with `space` ones.

    Raises:
        ShapeError: If the last axis of `z` has not P entries.
    """
    if z.ndim == 0 or z.shape[-1] != len(params):
        names = ", ".join(p.name for p in params) or "none"
        raise ShapeError(
            f"the parameter vector has shape {tuple(z.shape)}; expected (*B, {len(params)}) "
            f"for the parameters ({names})."
        )
    columns = z.unbind(-1)
    if space:
        columns = tuple(c[(..., *(None,) * space)] for c in columns)
    return Values(**{p.name: c for p, c in zip(params, columns, strict=True)})


def vector(
    params: Sequence[Param], values: Mapping[str, float | Tensor], *, check: bool = True
) -> Tensor:
    """Order named values into a vector and check them against their ranges.

    Arguments:
        params: The declarations, P of them.
        values: A number or a tensor with shape `(*B,)` for each parameter, in its unit.
        check: Whether values must lie inside the valid range.

    Returns:
        The vector, with shape `(*B, P)`.

    Raises:
        ParameterError: If a name is unknown or missing, or a value is NaN or out of range.

    Example:
        >>> vector((Param("omega0", "rad/s", 0.5, 3.5),), {"omega0": 2.0})
        tensor([2.])
    """
    names = [p.name for p in params]
    for name in values:
        if name not in names:
            raise ParameterError(f"no parameter {name!r}; {nearest(name, names)}")
    missing = [name for name in names if name not in values]
    if missing:
        raise ParameterError(f"no value for {', '.join(map(repr, missing))}; give all of {names}.")
    columns = [torch.as_tensor(values[name]) for name in names]
    z = torch.stack(torch.broadcast_tensors(*columns), dim=-1)
    z = z if z.is_floating_point() else z.to(torch.get_default_dtype())
    if check:
        check_range(params, z)
    return z


def check_range(params: Sequence[Param], z: Tensor) -> None:
    """Raise unless every value is finite and inside its valid range.

    Arguments:
        params: The declarations, P of them.
        z: Values, with shape `(*B, P)`.

    Raises:
        ParameterError: Naming the parameter, the worst value and the range.
    """
    for p, column in zip(params, z.detach().unbind(-1), strict=True):
        bad = ~column.isfinite()
        if bad.any():
            raise ParameterError(
                f"parameter {p.name!r} is {column[bad].flatten()[0].item()} in "
                f"{int(bad.sum())} of {column.numel()} members; give finite numbers."
            )
        slack = 1e-6 * (p.high - p.low)
        outside = (column < p.low - slack) | (column > p.high + slack)
        if outside.any():
            raise ParameterError(
                f"parameter {p.name!r} = {column[outside].flatten()[0].item():.6g} {p.unit} is "
                f"outside its valid range [{p.low:g}, {p.high:g}] {p.unit}; "
                "draw inside the range, or declare a wider one if the expert holds there."
            )


def encoder_box(params: Sequence[Param], margin: float = 0.1) -> tuple[Tensor, Tensor]:
    """Return the box an encoder maps into: the valid range, wider by `margin` at each end.

    A range of numbers that are not negative stays so: its lower end does not cross zero.

    Arguments:
        params: The declarations, P of them.
        margin: Fraction of the range added at each end.

    Returns:
        Lower and upper ends, each with shape `(P,)`.
    """
    low, high = [], []
    for p in params:
        width = p.high - p.low
        bottom = p.low - margin * width
        low.append(max(bottom, min(p.low, 0.01 * width)) if p.low >= 0.0 else bottom)
        high.append(p.high + margin * width)
    return torch.tensor(low), torch.tensor(high)
