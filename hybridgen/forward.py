"""Forward-mode derivatives: one direction, one pass, no graph."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import forward_ad

__all__ = ["directional"]


def directional(function: Callable[[Tensor], Tensor], x: Tensor, direction: Tensor) -> Tensor:
    """Return the derivative of a function along a direction.

    Arguments:
        function: A differentiable function of one tensor.
        x: Where, with any shape.
        direction: Along what, with a shape that broadcasts to that of `x`.

    Returns:
        The directional derivative, with the shape of the function's value.

    Example:
        >>> directional(torch.sin, torch.zeros(2), torch.tensor([1.0, 2.0]))
        tensor([1., 2.])
    """
    with forward_ad.dual_level():
        tangent = direction.to(x).expand_as(x).contiguous()
        dual = forward_ad.make_dual(x.contiguous(), tangent)
        value, slope = forward_ad.unpack_dual(function(dual))
        return torch.zeros_like(value) if slope is None else slope
