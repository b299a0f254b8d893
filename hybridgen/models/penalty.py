r"""Penalties that keep the physics with the expert.

The expert's parameters are not identified by the fit alone: wherever :math:`f_a` can imitate
:math:`\partial f_e / \partial z_e`, a change of :math:`z_e` can be undone by the network (for the
pendulum :math:`f_a \mathrel{+}= c \sin\theta` with :math:`\omega_0^2 \mathrel{+}= c` changes no
trajectory). Two terms choose among the fits, both as means over *shuffled* states: every
component permuted on its own, so that states which correlate along trajectories (angle and
velocity) do not lend their correlation to the answer.

The **norm** is APHYNITY's :math:`E\|f_a\|^2`. It also shrinks what is truly missing, so it is
annealed. The **gauge** term is the part of that norm which lies in the span of the expert's own
sensitivities :math:`g_p = \partial f_e / \partial z_{e,p}`, for each member,

.. math:: b^\top G^{-1} b, \qquad G_{pq} = E\, g_p \cdot g_q, \qquad b_p = E\, f_a \cdot g_p .

It is zero where the norm is smallest among all fits, so it has the same solution, but it
shrinks nothing and can keep its full weight throughout.

References:
    Augmenting Physical Models with Deep Networks for Complex Dynamics Forecasting (Yin, Le Guen,
    Dona et al., 2021), arXiv:2010.04456
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hybridgen.expert import ODEExpert
from hybridgen.forward import directional

__all__ = ["Projection", "project", "sensitivities", "shuffled"]


def shuffled(y: Tensor, points: int, generator: torch.Generator) -> Tensor:
    """Draw states with every component from a member and time of its own.

    Arguments:
        y: Observed states, with shape `(B, T, C)`.
        points: How many states to draw, N.
        generator: Source of randomness.

    Returns:
        States whose components are independent, with shape `(N, C)`.
    """
    flat = y.flatten(0, 1)
    index = torch.randint(len(flat), (points, flat.shape[-1]), generator=generator)
    return flat.gather(0, index.to(flat.device))


def sensitivities(expert: ODEExpert, t: Tensor, y: Tensor, z_e: Tensor) -> Tensor:
    """Return the derivative of the expert's rate with respect to each parameter.

    Arguments:
        expert: The expert.
        t: Time, a scalar.
        y: States, with shape `(*B, C)`.
        z_e: Parameters, with shape `(*B, P)`.

    Returns:
        Sensitivities in rate units per parameter unit, with shape `(P, *B, C)`.
    """
    basis = torch.eye(z_e.shape[-1], dtype=z_e.dtype, device=z_e.device)
    return torch.stack([directional(lambda z: expert(t, y, z), z_e, e) for e in basis])


class Projection(NamedTuple):
    """How much of the residual lies in the span of the expert's sensitivities.

    Arguments:
        parallel: Mean squared part in the span, per member, with shape `(M,)`.
        total: Mean squared norm of the residual, per member, with shape `(M,)`.
    """

    parallel: Tensor
    total: Tensor

    @property
    def cosine(self) -> Tensor:
        """Cosine of the angle between the residual and the span, with shape `(M,)`."""
        return (self.parallel / self.total.clamp_min(1e-30)).clamp(0.0, 1.0).sqrt()


def project(f_a: Tensor, g: Tensor) -> Projection:
    """Project the residual on the span of the sensitivities, member by member.

    Arguments:
        f_a: Residuals of M members at the same N states, with shape `(M, N, C)`.
        g: Sensitivities there, with shape `(P, M, N, C)`.

    Returns:
        The projection; its means are over states and its sums over components.

    Example:
        >>> f = torch.tensor([[[1.0], [2.0]]])
        >>> project(f, 3 * f[None]).cosine
        tensor([1.])
    """
    n = f_a.shape[1]
    total = f_a.pow(2).sum((1, 2)) / n
    gram = torch.einsum("pmnc,qmnc->mpq", g, g) / n
    b = torch.einsum("mnc,pmnc->mp", f_a, g) / n
    # scaled to unit diagonal, so that the ridge means the same whatever the parameters' units
    scale = gram.diagonal(dim1=1, dim2=2).clamp_min(1e-30).rsqrt()
    gram, b = gram * scale[:, :, None] * scale[:, None, :], b * scale
    ridge = 1e-6 * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    parallel = (b * torch.linalg.solve(gram + ridge, b)).sum(-1)
    return Projection(parallel, total)
