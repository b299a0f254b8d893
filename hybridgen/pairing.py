"""What a truth and the expert that explains part of it must have in common.

They are of one kind, have the same states and inputs, and the expert's parameters are some of the
truth's. What is drawn must lie where both are valid.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from hybridgen.driving import Inputs
from hybridgen.errors import ParameterError, ShapeError, ShiftError, nearest
from hybridgen.expert import Expert, ODEExpert
from hybridgen.params import Param
from hybridgen.shift import Support, check_support

__all__ = ["check_drive", "check_grid", "check_pair", "check_supports", "check_valid"]


def check_pair(truth: ODEExpert | Expert, expert: ODEExpert | Expert) -> None:
    """Check that truth and expert declare the same.

    Arguments:
        truth: The whole physics.
        expert: The part that is known of it.

    Raises:
        ParameterError: If kinds, axes, states, inputs or the names of parameters differ.
    """
    kinds = [type(e).__name__ for e in (truth, expert)]
    if kinds[0] != kinds[1]:
        raise ParameterError(
            f"the truth is an {kinds[0]}, the expert an {kinds[1]}; give two of one kind."
        )
    if isinstance(truth, Expert) and isinstance(expert, Expert) and truth.axis != expert.axis:
        raise ParameterError(
            f"the expert has the axis {expert.axis}, the truth {truth.axis}; declare the same."
        )
    if expert.state_names != truth.state_names:
        raise ParameterError(
            f"the expert has the states {expert.state_names}, the truth "
            f"{truth.state_names}; declare the same states in the same order."
        )
    for name in expert.param_names:
        if name not in truth.param_names:
            raise ParameterError(
                f"the expert's parameter {name!r} is none of the truth's; "
                f"{nearest(name, truth.param_names)}"
            )
    if expert.inputs != truth.inputs:
        raise ParameterError(
            f"the expert has the inputs {expert.inputs}, the truth {truth.inputs}; "
            "declare the same inputs in the same order."
        )


def check_supports(support: Support, known: tuple[str, ...]) -> None:
    """Check that a training support has an interval for each name, and no other.

    Arguments:
        support: The intervals by name.
        known: The parameters of the truth, and its initial states.

    Raises:
        ParameterError: If an interval is missing, or of nothing that is drawn.
        ShiftError: If an interval is none.
    """
    for name in support:
        if name not in known:
            raise ParameterError(f"support has {name!r}; {nearest(name, known)}")
    for name in known:
        if name not in support:
            raise ParameterError(f"support lacks {name!r}; give its interval (low, high).")
    check_support(support, "the training support")


def check_valid(owner: str, support: Support, params: Iterable[Param]) -> None:
    """Check that a support lies where parameters are valid.

    Arguments:
        owner: What to call the support in the error.
        support: The intervals by name.
        params: The parameters of truth and expert.

    Raises:
        ShiftError: If an interval leaves the valid range.
    """
    for p in params:
        low, high = support[p.name]
        if low < p.low or high > p.high:
            raise ShiftError(
                f"{owner} has {p.name} in [{low:g}, {high:g}] {p.unit}, but its valid range "
                f"is [{p.low:g}, {p.high:g}] {p.unit}; stay inside, or declare a wider range."
            )


def check_grid(
    grid: Mapping[str, NDArray[np.float64] | xr.DataArray],
    truth: ODEExpert | Expert,
    expert: ODEExpert | Expert,
) -> None:
    """Check that there are coordinates for each spatial axis.

    Arguments:
        grid: The coordinates by axis, each with shape `(n,)`.
        truth: The whole physics.
        expert: The part that is known of it.

    Raises:
        ShapeError: If truth or expert have another number of axes, or one is no axis.
    """
    for who, declared in (("truth", truth), ("expert", expert)):
        if declared.space != len(grid):
            raise ShapeError(
                f"the {who} has space={declared.space} but the grid has the axes "
                f"{tuple(grid)}; give coordinates for each: grid={{'y': ..., 'x': ...}}."
            )
    for name, values in grid.items():
        if np.ndim(values) != 1 or not len(values):
            raise ShapeError(
                f"grid axis {name!r} has shape {np.shape(values)}; give coordinates (n,)."
            )


def check_drive(
    inputs: Inputs | None, truth: ODEExpert | Expert, times: NDArray[np.float64]
) -> None:
    """Check that the inputs are those which the truth declares.

    Arguments:
        inputs: The inputs as a function of times, or None.
        truth: The whole physics.
        times: The save times, with shape `(T,)`.

    Raises:
        ParameterError: If there are inputs that are not declared, or none that are.
        ShapeError: If they do not have the shape `(T, U)`.
    """
    if (inputs is None) == bool(truth.inputs):
        raise ParameterError(
            f"the truth declares the inputs {tuple(i.name for i in truth.inputs)}, but "
            f"inputs= is {inputs}; give a function of times (T,) that returns "
            f"(T, {len(truth.inputs)}), or declare inputs=(State('V', 'V'),)."
        )
    t = torch.from_numpy(np.asarray(times, dtype=np.float64))
    if inputs is not None and inputs(t).shape != (len(t), len(truth.inputs)):
        raise ShapeError(
            f"inputs= returned shape {tuple(inputs(t).shape)} for {len(t)} times; "
            f"return (T, U), here ({len(t)}, {len(truth.inputs)})."
        )
