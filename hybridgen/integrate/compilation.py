"""Decide whether a batch is worth a compiler, and say why it cannot have one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

import torch
from torch import Tensor

from hybridgen.errors import ConfigError, UnsupportedError
from hybridgen.integrate import nvrtc
from hybridgen.integrate.building import compiler
from hybridgen.integrate.differentiable import roll_compiled
from hybridgen.integrate.kernel import Kernel, kernel_for
from hybridgen.integrate.members import Members
from hybridgen.integrate.recording import UnrecordableError, tensors
from hybridgen.integrate.rollout import Roll, steps
from hybridgen.integrate.rule import Rule
from hybridgen.integrate.tableaus import Tableau
from hybridgen.integrate.trace import Front

__all__ = ["Compile", "check_compile", "choose", "choose_roll", "repeated"]

Compile = bool | Literal["auto"]

WORTH = 1.0
"""From how many seconds on, about as long as a compiler takes, a kernel repays it."""
COSTS = {"cpu": (3e-4, 3e-8), "cuda": (5e-4, 6e-10)}
"""What an interval takes without a kernel, in seconds: for any batch, and for each number.

On a GPU these are estimates: a hundred launches of 5 us, and as many passes through its memory.
"""

CHECKED = 64
"""How many members' first derivatives are compared with the field's."""

_CALLS: ContextVar[int] = ContextVar("calls", default=1)


@contextmanager
def repeated(calls: int) -> Iterator[None]:
    """Let `compile="auto"` count on so many integrations of the kind that follows.

    Arguments:
        calls: How often, about, a batch like the next ones will be integrated.

    Example:
        >>> with repeated(5000):  # as often as a training will
        ...     pass
    """
    token = _CALLS.set(max(1, calls) * _CALLS.get())
    try:
        yield
    finally:
        _CALLS.reset(token)


def _repays(numbers: int, intervals: int, device: str) -> bool:
    """Return whether there is a compiler and a batch, in all its repetitions, is worth it."""
    if device not in COSTS:
        return False
    each, number = COSTS[device]
    seconds = _CALLS.get() * intervals * (each + number * numbers)
    found = compiler if device == "cpu" else nvrtc.compiler
    return seconds > WORTH and found() is not None


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

    What `"auto"` chooses depends on the size of the batch, on what `repeated` says and on whether
    there is a compiler, never on time, so that a run can be repeated.

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
    if compile == "auto" and not _repays(front.y.numel(), intervals, front.y.device.type):
        return None
    try:
        return _kernel(front, rule)
    except UnrecordableError as error:
        if compile == "auto":
            return None
        raise _refusal(error) from error


def choose_roll(compile: Compile, y0: Tensor, intervals: int) -> Roll:
    """Return what takes members over all intervals: a kernel with gradients, or `steps`.

    Arguments:
        compile: The user's choice, as for `choose`.
        y0: Initial states, with shape `(N, *S)`.
        intervals: How many intervals there are.
    """
    if compile is False or not y0.numel() or not intervals:
        return steps
    if compile == "auto" and y0.device.type != "cpu":
        return steps  # kernels with gradients are for CPUs
    if compile == "auto" and not _repays(y0.numel(), intervals, "cpu"):
        return steps

    def roll(members: Members, y: Tensor, tableau: Tableau, schedule: Sequence[int]) -> Tensor:
        try:
            return roll_compiled(members, y, tableau, schedule)
        except UnrecordableError as error:
            if compile == "auto":
                return steps(members, y, tableau, schedule)
            raise _refusal(error) from error

    return roll


def _refusal(error: UnrecordableError) -> UnsupportedError:
    return UnsupportedError(
        f"the field cannot be compiled: {error}. Write compile=False, or compile='auto' to have a "
        "kernel where there can be one."
    )


def _kernel(front: Front, rule: Rule) -> Kernel:
    given = [front.y, front.members.t, *tensors(front.members.args)]
    if any(torch._C._functorch.is_functorch_wrapped_tensor(v) for v in given):
        raise UnrecordableError("it is inside a torch.func transform")
    _refuse_gradient(given)
    kernel = kernel_for(front.members, front.y, rule.tableau, rule.tolerance, rule.max_substeps)
    _refuse_gradient(kernel.constants)
    some = torch.arange(min(len(front.ids), CHECKED), device=front.ids.device)
    if not _agree(kernel.take(some).slope(front.y[some]), front.k[some]):
        raise UnrecordableError("the kernel gives other derivatives than the field")
    return kernel


def _refuse_gradient(values: list[Tensor]) -> None:
    if torch.is_grad_enabled() and any(v.requires_grad for v in values):
        raise UnrecordableError("a gradient is wanted; kernels have none (torch.no_grad())")


def _agree(a: Tensor, b: Any) -> bool:
    """Return whether derivatives, with shape `(N, *S)`, are the same but for rounding."""
    tolerance = torch.finfo(a.dtype).eps ** 0.5
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance * float(b.abs().mean()))
