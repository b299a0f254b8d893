"""Functions that users wrote: what they get in the place of tensors, and what they may return.

A function in numpy gets float64 arrays, and floats where there is a single number. It has no
gradient, so none may be wanted where it is called.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd import forward_ad

from hybridgen.errors import ExpertError, GradientError
from hybridgen.params import Values

__all__ = ["Backend", "accept", "array", "gathered", "plain"]

Backend = Literal["torch", "numpy"]


def plain(value: Any, name: str) -> Any:
    """Return numpy's version of an argument: a tensor, named tensors, or anything else as it is.

    Arguments:
        value: The argument.
        name: The name of the function, for an error message.

    Raises:
        GradientError: If a gradient is wanted of it.

    Example:
        >>> plain(Values(k=torch.tensor(2.0), q=torch.ones(3)), "tank")
        Values(k=2.0, q=array([1., 1., 1.]))
    """
    if isinstance(value, Values):
        return Values(**{k: plain(v, name) for k, v in vars(value).items()})
    if not isinstance(value, Tensor):
        return value
    numbers = array(value, name)
    return numbers if numbers.ndim else float(numbers)


def array(value: Tensor, name: str) -> NDArray[np.float64]:
    """Return a copy of a tensor, with its shape, in float64.

    Arguments:
        value: The tensor, with any shape.
        name: The name of the function, for an error message.

    Raises:
        GradientError: If a gradient is wanted of it.
    """
    wanted = torch.is_grad_enabled() and value.requires_grad
    if wanted or forward_ad.unpack_dual(value).tangent is not None:
        raise GradientError(_no_gradient(name, "a gradient is wanted of it"))
    try:
        return value.detach().to("cpu", torch.float64, copy=True).numpy()
    except RuntimeError as error:
        raise GradientError(_no_gradient(name, "it is inside a torch.func transform")) from error


def _no_gradient(name: str, why: str) -> str:
    return (
        f"expert {name!r} is written in numpy and has no gradient, but {why}. It can be "
        "simulated (solve, Simulator.sample, expert_augment(...).sample, sweeps) and its "
        "parameters found by refine; to train a model with it, write it in torch."
    )


def gathered(out: Any, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return a copy of what a function of one member returned, which may be a list of numbers.

    Arguments:
        out: An array, or a list as scipy's solvers take it. Functions may reuse their memory.
        name: The name of the function.
        shape: What it should return, for the error message.

    Raises:
        ExpertError: If the list is ragged.
    """
    try:
        return np.array(out)
    except ValueError as error:
        raise ExpertError(
            f"expert {name!r} returned a list that makes no array ({error}); return {shape}."
        ) from error


def accept(out: Any, name: str, shape: tuple[int, ...], backend: Backend) -> Any:
    """Return what a function returned, if it is of the right kind.

    Arguments:
        out: What it returned.
        name: The name of the function.
        shape: What it should return, for the error message.
        backend: `"torch"` for a tensor, `"numpy"` for an array of real numbers.

    Raises:
        ExpertError: If it is something else.
    """
    if backend == "torch":
        if isinstance(out, Tensor):
            return out
        hint = "torch.stack([...], dim=-1)"
        if isinstance(out, np.ndarray):
            hint += ", or declare backend='numpy'"
        raise ExpertError(
            f"expert {name!r} returned {type(out).__name__}; return one tensor with the shape "
            f"{shape} ({hint})."
        )
    if isinstance(out, np.ndarray) and out.dtype.kind in "fiu":
        return out
    got = f"an array of {out.dtype}" if isinstance(out, np.ndarray) else type(out).__name__
    raise ExpertError(
        f"expert {name!r} returned {got}; return one array of real numbers with the shape {shape} "
        "(np.stack([...], axis=-1))."
    )
