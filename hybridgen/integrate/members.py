"""A field bound to its arguments, for all members of a batch or for some of them.

Members are numbered along the flattened batch axes, and inside the solver a state has shape
`(N, *S)`. The field sees the axes it was written for: `(*B, *S)` for the whole batch and, when
only K members are worked on, `(K, 1, ..., 1, *S)` with as many batch axes as `B` has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Size, Tensor

from hybridgen.errors import ExpertError
from hybridgen.integrate.recording import UnrecordableError, tensors

__all__ = ["Field", "Members", "nan_members", "select"]

PASSED_ON = (torch.cuda.OutOfMemoryError, UnrecordableError)

Field = Callable[[Tensor, Tensor, Any], Tensor]


def _is_per_member(value: Any, batch: Size) -> bool:
    return isinstance(value, Tensor) and len(batch) > 0 and value.shape[: len(batch)] == batch


def _axes(batch: Size, count: int) -> Size:
    """Return the batch axes under which `count` members are shown to the field."""
    return batch if count == batch.numel() else Size([count] + [1] * (len(batch) - 1))


def _take(value: Tensor, batch: Size, rows: Tensor) -> Tensor:
    rest = value.shape[len(batch) :]
    taken = value.reshape(batch.numel(), *rest)[rows]
    return taken.reshape(*_axes(batch, len(rows)), *rest)


def select(args: Any, batch: Size, rows: Tensor) -> Any:
    """Return the arguments of some members.

    Tensors whose leading axes are the batch shape are indexed by member, also inside tuples,
    lists and dicts; everything else is shared and passed on as it is. A tensor shared by all
    members must therefore not begin with axes of just that shape.

    Arguments:
        args: What the field takes as its third argument.
        batch: The batch shape `B`.
        rows: Members, numbered along the flattened batch axes, with shape `(K,)`.

    Returns:
        The same structure; an indexed tensor `(*B, *R)` has become `(K, 1, ..., 1, *R)`, or kept
        its shape where `K` is the number of all members.

    Example:
        >>> z = torch.tensor([10.0, 20.0, 30.0])
        >>> select({"z": z, "g": 9.81}, Size([3]), torch.tensor([2, 0]))
        {'z': tensor([30., 10.]), 'g': 9.81}
    """
    if _is_per_member(args, batch):
        return _take(args, batch, rows)
    if isinstance(args, dict):
        return {key: select(value, batch, rows) for key, value in args.items()}
    if isinstance(args, tuple | list):
        values = [select(value, batch, rows) for value in args]
        return type(args)(*values) if hasattr(args, "_fields") else type(args)(values)
    return args


def nan_members(args: Any, batch: Size, device: torch.device) -> Tensor:
    """Return which members have a NaN among their own arguments.

    Arguments:
        args: What the field takes as its third argument.
        batch: The batch shape `B`.
        device: Where the answer is wanted.

    Returns:
        Truth values, with shape `(N,)` for `N` members in all.

    Example:
        >>> z = torch.tensor([1.0, torch.nan])
        >>> nan_members((z, None), Size([2]), z.device)
        tensor([False,  True])
    """
    if _is_per_member(args, batch):
        size = math.prod(args.shape[len(batch) :])
        return torch.isnan(args).reshape(batch.numel(), size).any(dim=1)
    found = torch.zeros(batch.numel(), dtype=torch.bool, device=device)
    values = args.values() if isinstance(args, dict) else args
    if isinstance(args, dict | tuple | list):
        for value in values:
            found = found | nan_members(value, batch, device)
    return found


class Members:
    """The field and the times of all members, or of the members in `rows`.

    Arguments:
        field: The user's `field(t, y, args) -> dy/dt`.
        args: Its third argument.
        t: Save times, with shape `(T,)`, or `(N, T)` for members with times of their own.
        batch: The batch shape `B` of all members.
        rows: The members meant, with shape `(K,)`; `None` for all.
        singly: Whether a time of each member's own is shown to the field one member at a time.
    """

    def __init__(
        self,
        field: Field,
        args: Any,
        t: Tensor,
        batch: Size,
        rows: Tensor | None = None,
        singly: bool = False,
    ) -> None:
        self._field, self._args, self._t, self._batch = field, args, t, batch
        self._singly = singly
        self.rows, self.axes, self.args, self.t = rows, batch, args, t
        self._part = rows is not None and len(rows) < batch.numel()
        if rows is not None:
            self.axes = _axes(batch, len(rows))
            self.args = select(args, batch, rows)
            self.t = t if t.ndim == 1 else t[rows]

    def take(self, rows: Tensor) -> Members:
        """Return some of these members, numbered among these, with shape `(K,)`."""
        rows = rows if self.rows is None else self.rows[rows]
        return Members(self._field, self._args, self._t, self._batch, rows, self._singly)

    def between(self, t0: Tensor, t1: Tensor, *, singly: bool) -> Members:
        """Return these members with a grid of their own, of one interval.

        Arguments:
            t0: Where each starts, with shape `(K,)`.
            t1: Where each ends, with shape `(K,)`.
            singly: Whether the field must be called on one member at a time, because it was
                written for times that all members share.
        """
        pair = torch.stack([t0, t1], dim=-1)
        if self.rows is not None:
            whole = pair.new_zeros(self._batch.numel(), 2)
            pair = whole.index_copy(0, self.rows, pair)
        return Members(self._field, self._args, pair, self._batch, self.rows, singly)

    def own(self) -> list[Tensor]:
        """Return the tensors in the arguments that differ between members, `(K, ..., *R)`."""
        pairs = zip(tensors(self._args), tensors(self.args), strict=True)
        return [part for whole, part in pairs if _is_per_member(whole, self._batch)]

    def time(self, i: int) -> Tensor:
        """Return the save time `i`, with shape `()`, or `(N,)` for times of their own."""
        return self.t[..., i]

    def rhs(self, t: Tensor, y: Tensor) -> Tensor:
        """Call the field on these members and check what it returns.

        Arguments:
            t: The time, with shape `()`, or `(N,)` for times of their own.
            y: The state, with shape `(N, *S)`.

        Returns:
            Its derivative, with shape `(N, *S)`.

        Raises:
            ExpertError: If the field returns another shape or dtype, or cannot work on a part of
                the batch.
        """
        if self._singly and t.ndim:
            return torch.cat([one.rhs(*at) for one, *at in self._each(t, y)])
        time, shaped = self._shown(t, y)
        k = self._call(self._field, time, shaped)
        self._check(k, shaped)
        return k if shaped is y else k.reshape(y.shape)

    def measure(self, function: Field, t: Tensor, y: Tensor) -> Tensor:
        """Call a function of the field's arguments that returns a number for each member.

        Arguments:
            function: The function, `function(t, y, args)`.
            t: The time, with shape `()`, or `(N,)` for times of their own.
            y: The state, with shape `(N, *S)`.

        Returns:
            The numbers, with shape `(N,)`.

        Raises:
            ExpertError: If it returns another shape, or cannot work on a part of the batch.
        """
        if self._singly and t.ndim:
            return torch.cat([one.measure(function, *at) for one, *at in self._each(t, y)])
        g = self._call(function, *self._shown(t, y))
        if not isinstance(g, Tensor) or g.shape != self.axes or not g.is_floating_point():
            got = f"{tuple(g.shape)} of {g.dtype}" if isinstance(g, Tensor) else type(g).__name__
            raise ExpertError(
                f"the event function returned {got} for members of shape {tuple(self.axes)}; "
                "return a real number for each member, for instance y[..., 0]."
            )
        return g.reshape(len(y))

    def _each(self, t: Tensor, y: Tensor) -> Iterator[tuple[Members, Tensor, Tensor]]:
        """Yield the members one by one, with times `(N,)` and states `(N, *S)` of theirs."""
        for row in torch.arange(len(y), device=y.device)[:, None]:
            yield self.take(row), t[row[0]], y[row]

    def _shown(self, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return times `(N,)` and states `(N, *S)` under the axes that the field was made for."""
        shaped = y if len(self.axes) == 1 else y.reshape(self.axes + y.shape[1:])
        return (t.reshape(self.axes) if t.ndim else t), shaped

    def _call(self, function: Field, t: Tensor, y: Tensor) -> Any:
        try:
            return function(t, y, self.args)
        except (RuntimeError, IndexError) as error:
            # Of memory and of what a kernel cannot express, no part of the batch is to blame.
            if not self._part or isinstance(error, PASSED_ON):
                raise
            raise ExpertError(self._partial(f"raised {type(error).__name__}: {error}")) from error

    def _check(self, k: Any, y: Tensor) -> None:
        if isinstance(k, Tensor) and k.shape == y.shape and k.dtype == y.dtype:
            return
        got = f"{tuple(k.shape)} of {k.dtype}" if isinstance(k, Tensor) else type(k).__name__
        fault = f"returned {got} for a state of shape {tuple(y.shape)} of {y.dtype}"
        if self._part:
            raise ExpertError(self._partial(fault))
        raise ExpertError(
            f"the field {fault}; return a tensor of the state's shape and dtype, one derivative "
            "for each component, for instance torch.stack([d_theta, d_omega], -1)."
        )

    def _partial(self, fault: str) -> str:
        count = len(self.rows) if self.rows is not None else self._batch.numel()
        return (
            f"the field {fault}, when called on {count} of {self._batch.numel()} members. The "
            "solver works on a part of the batch to pick its steps and to repeat members that "
            f"failed: pass values of shape ({', '.join(map(str, self._batch))}, ...) that differ "
            "between members through `args`, not as variables that the field captures, and "
            "let the field take any batch size."
        )
