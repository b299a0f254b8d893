"""The tensors of a set of trajectories, and what the learners ask of whoever supplies them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hybridgen.errors import DataError

__all__ = ["Batch", "Sampler"]


@dataclass(frozen=True)
class Batch:
    """Trajectories of B systems and what is known of each.

    Arguments:
        t: Times, in time units, with shape `(T,)` or `(B, T)`.
        y: Observed states, with shape `(B, T, C, *S)`; NaN where nothing was observed.
        mask: True where `y` was observed, with the shape of `y`; None means everywhere.
        u: Inputs at the times, with shape `(B, T, U)`.
        z_e: True expert parameters, with shape `(B, P)`; NaN where they are not known.
        z_a: True or drawn augmentation latents, with shape `(B, D)`, where they are known.
        clean: States without observation noise, with the shape of `y`, where they are known.
        status: Status codes of the simulation, with shape `(B,)`.
        t_reached: Times up to which the simulation is valid, with shape `(B,)`.
        distance: Distances from the training support in units of its width, with shape `(B,)`.

    Raises:
        DataError: If the shapes do not go together.

    Example:
        >>> batch = Batch(t=torch.arange(3.0), y=torch.zeros(4, 3, 2))
        >>> len(batch), len(batch[:2]), batch.window(2).y.shape
        (4, 2, torch.Size([4, 2, 2]))
    """

    t: Tensor
    y: Tensor
    mask: Tensor | None = None
    u: Tensor | None = None
    z_e: Tensor | None = None
    z_a: Tensor | None = None
    clean: Tensor | None = None
    status: Tensor | None = None
    t_reached: Tensor | None = None
    distance: Tensor | None = None

    def __post_init__(self) -> None:
        if self.y.ndim < 3 or self.t.shape[-1] != self.y.shape[1]:
            raise DataError(
                f"times have shape {tuple(self.t.shape)} and states {tuple(self.y.shape)}; "
                "expected (T,) or (B, T) and (B, T, C, *S)."
            )
        for field in fields(self)[2:]:
            value = getattr(self, field.name)
            if value is not None and len(value) != len(self.y):
                raise DataError(f"{field.name} has {len(value)} members but y has {len(self.y)}.")

    def __len__(self) -> int:
        return len(self.y)

    def _map(self, function: Callable[[str, Tensor], Tensor]) -> Batch:
        values: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            values[field.name] = None if value is None else function(field.name, value)
        return Batch(**values)

    def __getitem__(self, index: slice | Tensor | NDArray[np.integer]) -> Batch:
        """Select members, by a slice, indices or a boolean mask."""
        if isinstance(index, np.ndarray):
            index = torch.from_numpy(index)
        return self._map(lambda k, v: v if k == "t" and v.ndim == 1 else v[index])

    def window(self, points: int | None) -> Batch:
        """Keep the first `points` times; all of them for None."""
        if points is None or points >= self.y.shape[1]:
            return self
        return self.between(0, points)

    def between(self, start: int, stop: int) -> Batch:
        """Keep the times with indices from `start` up to, not including, `stop`."""
        timed, part = ("y", "mask", "u", "clean"), slice(start, stop)
        return self._map(
            lambda k, v: v[..., part] if k == "t" else v[:, part] if k in timed else v
        )

    def to(self, like: torch.device | torch.dtype | Tensor | str) -> Batch:
        """Move floating-point tensors to a dtype, all tensors to a device, or both as a tensor."""
        if isinstance(like, Tensor):
            return self.to(like.dtype).to(like.device)
        if isinstance(like, torch.dtype):
            return self._map(lambda k, v: v.to(like) if v.is_floating_point() else v)
        return self._map(lambda k, v: v.to(like))

    def replace(self, **changes: Any) -> Batch:
        """Return a copy with some of its tensors replaced."""
        return replace(self, **changes)

    @property
    def x(self) -> Tensor:
        """The first observed state, with shape `(B, C, *S)`."""
        return self.y[:, 0]


@runtime_checkable
class Sampler(Protocol):
    """Whoever can draw trajectories by index: a simulator, or an augmenter.

    A member depends on (root seed, index) alone, so `draw(range(k))` is the beginning of
    `draw(range(n))`: bit for bit, except where a network's matrix products round differently for
    another number of members.
    """

    def draw(self, indices: NDArray[np.int64], root_seed: int) -> Batch:
        """Draw the members with these indices, shape `(N,)`."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return names, units and attributes of what is drawn: `states, params, z_a, attrs`."""
        ...
