"""Decide whether a batch is worth a compiler, and say why it cannot have one."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from hybridgen.errors import ConfigError, UnsupportedError
from hybridgen.integrate.kernel import Kernel, compiler, kernel_for
from hybridgen.integrate.recording import UnrecordableError, tensors
from hybridgen.integrate.rule import Rule
from hybridgen.integrate.trace import Front

__all__ = ["Compile", "check_compile", "choose"]

Compile = bool | Literal["auto"]

WORTH = 10_000_000
"""From how many numbers on, members times state times intervals, a kernel repays its compiler."""


def check_compile(compile: Compile) -> Compile:
    """Return a choice of `"auto"`, True or False.

    Raises:
        ConfigError: If it is something else.
    """
    if compile not in (True, False, "auto"):
        raise ConfigError(f"compile is {compile!r}; write 'auto', True or False.")
    return compile


def choose(compile: Compile, front: Front, intervals: int, rule: Rule) -> Kernel | None:
    """Return the compiled field of the members at the start, or `None` to go on without.

    What `"auto"` chooses depends on the size of the batch and on whether there is a compiler,
    never on time, so that a run can be repeated.

    Arguments:
        compile: The user's choice.
        front: The members at the first time.
        intervals: How many intervals there are.
        rule: How to step.

    Raises:
        UnsupportedError: If a kernel is asked for and cannot be had.
    """
    if compile is False or not intervals or not len(front.ids):
        return None
    if compile == "auto" and (front.y.numel() * intervals < WORTH or compiler() is None):
        return None
    try:
        return _kernel(front, rule)
    except UnrecordableError as error:
        if compile == "auto":
            return None
        raise UnsupportedError(
            f"the field cannot be compiled: {error}. Write compile=False, or compile='auto' to "
            "have a kernel where there can be one."
        ) from error


def _kernel(front: Front, rule: Rule) -> Kernel:
    given = [front.y, front.members.t, *tensors(front.members.args)]
    if any(torch._C._functorch.is_functorch_wrapped_tensor(v) for v in given):
        raise UnrecordableError("it is inside a torch.func transform")
    _refuse_gradient(given)
    kernel = kernel_for(front.members, front.y, rule.tableau, rule.tolerance, rule.max_substeps)
    _refuse_gradient(kernel.constants)
    if not _agree(kernel.slope(front.y), front.k):
        raise UnrecordableError("the kernel gives other derivatives than the field")
    return kernel


def _refuse_gradient(values: list[Tensor]) -> None:
    if torch.is_grad_enabled() and any(v.requires_grad for v in values):
        raise UnrecordableError("a gradient is wanted; kernels have none (torch.no_grad())")


def _agree(a: Tensor, b: Any) -> bool:
    """Return whether derivatives, with shape `(N, *S)`, are the same but for rounding."""
    tolerance = torch.finfo(a.dtype).eps ** 0.5
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance * float(b.abs().mean()))
