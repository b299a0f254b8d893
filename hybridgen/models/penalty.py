r"""Penalties that keep the physics with the expert.

The expert's parameters are not identified by the fit alone: wherever :math:`f_a` can imitate
:math:`\partial f_e / \partial z_e`, a change of :math:`z_e` can be undone by the network (for the
pendulum, adding :math:`c \sin\theta` to :math:`f_a` and :math:`c` to :math:`\omega_0^2` changes no
trajectory). Two terms choose among the fits, both as means over *reflected* states: each component
of an observed state is left or replaced by its mirror image in rank, so that states which
correlate along trajectories (angle and velocity, by damping) do not lend their correlation to the
answer. Shuffling the components would do that too, but it makes states that never occur, where
:math:`f_a` is free to undo the penalty.

The **norm** is APHYNITY's :math:`E\|f_a\|^2`. It also shrinks what is truly missing, so it is
annealed. The **gauge** term is the part of that norm which lies in the span of the expert's own
sensitivities :math:`g_p = \partial f_e / \partial z_{e,p}`, for each member,

.. math:: b^\top (G + \kappa\, G^{\mathrm{exact}})^{-1} b, \qquad
          G_{pq} = E\, g_p \cdot g_q, \qquad b_p = E\, f_a \cdot g_p .

It is zero where the norm is smallest among all fits, so it has the same solution, but it
shrinks nothing and can keep its full weight throughout. :math:`G` sums over the states that
:math:`f_a` acts on, :math:`G^{\mathrm{exact}}` over the others: a change of :math:`z_e` that shows
in an exact equation cannot be undone by the network, is identified there, and is left alone.

References:
    Augmenting Physical Models with Deep Networks for Complex Dynamics Forecasting (Yin, Le Guen,
    Dona et al., 2021), arXiv:2010.04456
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from scipy.linalg import hadamard
from torch import Tensor

from hybridgen.expert import ODEExpert
from hybridgen.forward import directional

KAPPA = 100.0
"""How much more a sensitivity counts in an exact equation: it is seen there at the level of the
noise, a tenth of the rate or less."""

__all__ = ["Projection", "project", "reflected", "sensitivities"]


def reflected(y: Tensor, orbits: int, generator: torch.Generator) -> Tensor:
    """Draw observed states, each with mirror images that take every two components' correlation.

    A component's mirror image is the value of the opposite rank: that of rank n - 1 - r for rank r
    among n. Which components are mirrored in an image is a row of a Hadamard matrix, so that over
    the H images of one state any two components are mirrored together as often as apart.

    Arguments:
        y: Observed states, with shape `(B, T, C)`.
        orbits: How many states to draw, K.
        generator: Source of randomness.

    Returns:
        States and their images, with shape `(K, H, C)`, H the power of two above C.

    Example:
        >>> y = torch.tensor([[[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]]])
        >>> reflected(y, 9, torch.Generator().manual_seed(0))[0]
        tensor([[ 4., 40.],
                [ 1., 40.],
                [ 4., 10.],
                [ 1., 10.]])
    """
    flat = y.detach().flatten(0, 1)
    flat = flat[flat.isfinite().all(-1)]
    ordered, order = flat.sort(dim=0)
    n, c = flat.shape
    rank = torch.empty_like(order)
    rank.scatter_(0, order, torch.arange(n, device=y.device)[:, None].expand(-1, c))
    chosen = rank[torch.randint(n, (orbits,), generator=generator).to(y.device)]
    # the first column of a Hadamard matrix is constant and so mirrors nothing
    signs = torch.from_numpy(hadamard(1 << c.bit_length())[:, 1 : c + 1])
    mirrored = (signs < 0).to(y.device)
    images = torch.where(mirrored, n - 1 - chosen[:, None, :], chosen[:, None, :])
    return ordered.gather(0, images.flatten(0, 1)).unflatten(0, images.shape[:2])


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


def project(f_a: Tensor, g: Tensor, acts: Tensor) -> Projection:
    """Project the residual on the span of the sensitivities, member by member.

    Arguments:
        f_a: Residuals of M members at the same N states, with shape `(M, N, C)`.
        g: Sensitivities there, with shape `(P, M, N, C)`.
        acts: Indices of the states that the residual acts on, with shape `(A,)`.

    Returns:
        The projection; its means are over states and its sums over components.

    Example:
        >>> f = torch.tensor([[[1.0], [2.0]]])
        >>> project(f, 3 * f[None], torch.tensor([0])).cosine.round(decimals=3)
        tensor([1.])
    """
    n = f_a.shape[1]
    total = f_a.pow(2).sum((1, 2)) / n
    seen = torch.ones(g.shape[-1], dtype=g.dtype, device=g.device).index_fill(0, acts, 0.0)
    weight = 1.0 - seen + KAPPA * seen
    gram = torch.einsum("pmnc,qmnc,c->mpq", g, g, weight) / n
    b = torch.einsum("mnc,pmnc->mp", f_a, g) / n
    # scaled to unit diagonal, so that the ridge means the same whatever the parameters' units
    scale = gram.diagonal(dim1=1, dim2=2).clamp_min(1e-30).rsqrt()
    gram, b = gram * scale[:, :, None] * scale[:, None, :], b * scale
    ridge = 1e-6 * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    parallel = (b * torch.linalg.solve(gram + ridge, b)).sum(-1)
    return Projection(parallel, total)
