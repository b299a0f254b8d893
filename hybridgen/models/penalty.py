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

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from scipy.linalg import hadamard
from torch import Tensor

from hybridgen.batch import Batch
from hybridgen.expert import ODEExpert
from hybridgen.forward import directional
from hybridgen.params import State

KAPPA = 100.0
"""How much more a sensitivity counts in an exact equation: it is seen there at the level of the
noise, a tenth of the rate or less."""

__all__ = ["Points", "Projection", "orbits", "project", "reflected", "sensitivities"]


class Points(NamedTuple):
    """States and what the expert needs beside them.

    Arguments:
        y: States, with shape `(*N, C, *S)`.
        t: Times, with shape `(*N)`.
        u: Inputs, with shape `(*N, U)`, where the expert has any.
    """

    y: Tensor
    t: Tensor
    u: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> Points:
        """Return the points with a function applied to each of their tensors."""
        u = None if self.u is None else function(self.u)
        return Points(function(self.y), function(self.t), u)


def orbits(
    batch: Batch, states: Sequence[State], count: int, generator: torch.Generator
) -> Points:
    """Draw points of the observed trajectories, for an ODE each with its mirror images.

    Inputs are mirrored like states, times are not. A state that no data hold is drawn from its
    range. Fields are taken as they are, with gaps filled by the mean around them.

    Arguments:
        batch: The observed windows.
        states: Declarations of the C states.
        count: How many points to draw, K.
        generator: Source of randomness.

    Returns:
        Points with two leading axes `(K, H)`: the point, its images.
    """
    t = batch.t.expand(len(batch), -1).to(batch.y)
    if batch.y.ndim > 3:
        flat = _filled(batch.y.flatten(0, 1))
        chosen = torch.randint(len(flat), (count,), generator=generator).to(flat.device)
        u = None if batch.u is None else batch.u.flatten(0, 1)[chosen][:, None]
        return Points(flat[chosen][:, None], t.flatten()[chosen][:, None], u)
    columns = list(batch.y.unbind(-1))
    for i, state in enumerate(states):
        if not state.observed:
            draw = torch.rand(t.shape, generator=generator).to(t)
            low, high = state.bounds
            columns[i] = low + (high - low) * draw
    inputs = [] if batch.u is None else list(batch.u.unbind(-1))
    table = _complete(torch.stack([*columns, *inputs, t], dim=-1).flatten(0, 1), generator)
    images = reflected(table, count, generator, fixed=1)
    c = len(columns)
    return Points(images[..., :c], images[..., -1], images[..., c:-1] if inputs else None)


def _filled(frames: Tensor) -> Tensor:
    """Return frames `(N, C, *S)` with each NaN replaced by the mean of its frame, or of all."""
    if frames.isfinite().all():
        return frames
    flat = frames.flatten(2)
    own = flat.nanmean(2, keepdim=True)
    own = torch.where(own.isfinite(), own, own.nanmean(0, keepdim=True))
    return torch.where(flat.isfinite(), flat, own).view_as(frames)


def _complete(table: Tensor, generator: torch.Generator) -> Tensor:
    """Return the rows without NaN; if there are few, rows put together from all columns."""
    whole = table[table.isfinite().all(-1)]
    if len(whole) >= 16:
        return whole
    n = len(table)
    columns = []
    for column in table.unbind(-1):
        finite = column[column.isfinite()]
        pick = torch.randint(len(finite), (n,), generator=generator)
        columns.append(finite[pick.to(finite.device)])
    return torch.stack(columns, dim=-1)


def reflected(table: Tensor, orbits: int, generator: torch.Generator, *, fixed: int = 0) -> Tensor:
    """Draw rows, each with mirror images that take every two columns' correlation.

    A value's mirror image is the value of the opposite rank: that of rank n - 1 - r for rank r
    among n. Which columns are mirrored in an image is a row of a Hadamard matrix, so that over
    the H images of one row any two columns are mirrored together as often as apart.

    Arguments:
        table: Observed states, with shape `(N, C)`.
        orbits: How many rows to draw, K.
        generator: Source of randomness.
        fixed: How many of the last columns are never mirrored.

    Returns:
        Rows and their images, with shape `(K, H, C)`, H the power of two above C - `fixed`.

    Example:
        >>> y = torch.tensor([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]])
        >>> reflected(y, 9, torch.Generator().manual_seed(0))[0]
        tensor([[ 4., 40.],
                [ 1., 40.],
                [ 4., 10.],
                [ 1., 10.]])
    """
    flat = table.detach()
    ordered, order = flat.sort(dim=0)
    n, c = flat.shape
    rank = torch.empty_like(order)
    rank.scatter_(0, order, torch.arange(n, device=flat.device)[:, None].expand(-1, c))
    chosen = rank[torch.randint(n, (orbits,), generator=generator).to(flat.device)]
    # the first column of a Hadamard matrix is constant and so mirrors nothing
    moved = c - fixed
    signs = torch.from_numpy(hadamard(1 << moved.bit_length())[:, 1 : moved + 1])
    mirrored = torch.nn.functional.pad(signs < 0, (0, fixed)).to(flat.device)
    images = torch.where(mirrored, n - 1 - chosen[:, None, :], chosen[:, None, :])
    return ordered.gather(0, images.flatten(0, 1)).unflatten(0, images.shape[:2])


def sensitivities(expert: ODEExpert, points: Points, z_e: Tensor) -> Tensor:
    """Return the derivative of the expert's rate with respect to each inferred parameter.

    Arguments:
        expert: The expert.
        points: States, times and inputs, with leading axes `*B`.
        z_e: Parameters, with shape `(*B, P)`.

    Returns:
        Sensitivities in rate units per parameter unit, with shape `(P', *B, C, *S)`, P' the
        number of parameters that are not known.
    """
    basis = torch.eye(z_e.shape[-1], dtype=z_e.dtype, device=z_e.device)
    free = [i for i, p in enumerate(expert.params) if not p.known]
    return torch.stack(
        [
            directional(lambda z: expert(points.t, points.y, z, points.u), z_e, basis[i])
            for i in free
        ]
    )


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
