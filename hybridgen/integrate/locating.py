r"""Find when, within its interval, a member passes its event.

Between a time a before the event and a time b after it, the secant of :math:`g` suggests a time
c; the member goes there from a by steps of the solver, and c takes the place of a or of b. So
nothing is interpolated, and the steps get as short as the bracket. Where one end of the bracket
stays twice, its value counts half (the Illinois rule), and every third time is in the middle.

The time found has a gradient by the implicit function theorem: with the state
:math:`\hat y(\theta)` at the fixed time :math:`t^*`,

.. math::
    \frac{dt^*}{d\theta} = - \frac{1}{\dot g}
        \Bigl(\frac{\partial g}{\partial \theta} + \frac{\partial g}{\partial y}
        \frac{\partial \hat y}{\partial \theta}\Bigr), \qquad
    \dot g = \frac{\partial g}{\partial t} + \frac{\partial g}{\partial y} f .

References:
    A modified regula falsi method for computing the root of an equation (Dowell and Jarratt,
    1971), doi:10.1007/BF01934364
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from hybridgen.errors import GradientError
from hybridgen.integrate.events import Event, Watch
from hybridgen.integrate.jacobian import together
from hybridgen.integrate.marching import march
from hybridgen.integrate.members import Members
from hybridgen.integrate.pace import Schedule
from hybridgen.integrate.rule import Rule
from hybridgen.integrate.trace import Front, Trace

__all__ = ["locate"]

ROUNDS = 120
PRECISION = 16.0
"""How far off a time may be, in units of its rounding."""


def locate(members: Members, y: Tensor, watch: Watch, rule: Rule) -> tuple[Tensor, Tensor]:
    """Return time and state of the first event of each member.

    Arguments:
        members: All members of the batch.
        y: Their trajectories, with shape `(N, T, *S)`, good up to the interval of the event.
        watch: In which interval each passes its event.
        rule: How to step.

    Returns:
        The times, with shape `(N,)`, and the states, with shape `(N, *S)`, NaN where there is
        no event.
    """
    ids = (watch.interval >= 0).nonzero()[:, 0]
    times = members.t.new_full((len(y),), torch.nan)
    states = y.new_full((len(y), *y.shape[2:]), torch.nan)
    if not len(ids):
        return times, states
    interval, group = watch.interval[ids], members.take(ids)
    t = members.t if members.t.ndim == 1 else members.t[ids]
    at = (lambda i: t[i]) if t.ndim == 1 else (lambda i: t.gather(1, i[:, None])[:, 0])
    t0, t1, start = at(interval), at(interval + 1), y[ids, interval]
    with torch.no_grad():
        shared = group.t.ndim > 1 or together(group, t0, t1, start)
        road = _Road(group, not shared, rule, watch.event, torch.ones_like(ids))
        place, road = _search(road, t0.detach(), t1.detach(), start.detach())
    found, state = place.t, place.y
    if torch.is_grad_enabled() and start.requires_grad:
        found, state = _implicit(road, t0, start, place)
    return times.index_copy(0, ids, found), states.index_copy(0, ids, state)


class _Place(NamedTuple):
    """Where K members are: times and values of g `(K,)`, states and derivatives `(K, *S)`."""

    t: Tensor
    y: Tensor
    k: Tensor
    g: Tensor

    def where(self, rows: Tensor, other: _Place) -> _Place:
        """Return this place for `rows`, truth values with shape `(K,)`, another for the rest."""
        wide = rows.reshape(-1, *(1,) * (self.y.ndim - 1))
        masks = (rows, wide, wide, rows)
        return _Place(*(torch.where(*each) for each in zip(masks, self, other, strict=True)))


class _Road(NamedTuple):
    """How members get from one time to another.

    Arguments:
        members: Who, K of them.
        singly: See `Members.between`.
        rule: How to step.
        event: What is looked for.
        level: The level at which each tries first, with shape `(K,)`.
    """

    members: Members
    singly: bool
    rule: Rule
    event: Event
    level: Tensor

    def at(self, t: Tensor, y: Tensor) -> _Place:
        """Return the place of members with states `(K, *S)` at times `(K,)`."""
        here = self.members.between(t, t, singly=self.singly)
        now = t.to(y.dtype.to_real())
        return _Place(t, y, here.rhs(now, y), here.measure(self.event.function, now, y))

    def go(self, a: _Place, t: Tensor) -> tuple[_Place, Tensor]:
        """Return where members come to, NaN if they are lost, and their substeps, `(K,)`."""
        members = self.members.between(a.t, t, singly=self.singly)
        everybody, trace = torch.arange(len(t), device=t.device), Trace.begin(a.y, 2)
        trace.save(everybody, a.y)
        front = Front(members, everybody, a.y, a.k, self.level)
        march(front, Schedule([1]), range(1), replace(self.rule, max_steps=None), trace)
        return self.at(t, trace.stack(2)[:, 1]), trace.n_steps


def _search(road: _Road, t0: Tensor, t1: Tensor, y: Tensor) -> tuple[_Place, _Road]:
    """Return the place of the events between times `(K,)`, from states `(K, *S)` at the first.

    The road that is returned with it knows who is stiff.
    """
    a = road.at(t0, y)
    b, spent = road.go(a, t1)
    stiff = spent >= road.rule.highest
    road = road._replace(level=torch.where(stiff, road.rule.stiff, road.level))
    close = PRECISION * torch.finfo(y.dtype).eps * torch.maximum(t0.abs(), t1.abs())
    low, high = a.g, torch.where(b.g.sign() == -a.g.sign(), b.g, -a.g)
    side = torch.zeros_like(road.level)
    place, done = b, b.g == 0
    for turn in range(ROUNDS):
        if bool(done.all()):
            break
        share = torch.full_like(low, 0.5) if turn % 3 == 2 else low / (low - high)
        c, _ = road.go(a, torch.lerp(a.t, b.t, share.to(a.t)))
        ahead = c.g.sign() == a.g.sign()
        low = torch.where(ahead, c.g, torch.where(side < 0, low / 2, low))
        opposite = torch.where(torch.isnan(c.g), -a.g, c.g)
        high = torch.where(ahead, torch.where(side > 0, high / 2, high), opposite)
        side = torch.where(ahead, 1, -1)
        a, b = c.where(ahead, a), b.where(ahead, c)
        place = place.where(done, c)
        width = (b.t - a.t).abs()
        off = c.g.abs() * width / (b.g - a.g).abs()
        done = done | (width <= close) | (off <= close) | (c.g == 0)
    return place, road


def _implicit(road: _Road, t0: Tensor, start: Tensor, place: _Place) -> tuple[Tensor, Tensor]:
    """Return times `(K,)` and states `(K, *S)` of events, with their gradients."""
    there, _ = road.go(road.at(t0, start), place.t)
    with torch.enable_grad():
        at = there.t.detach().to(start.dtype.to_real()).requires_grad_()
        y = there.y.detach().requires_grad_()
        g = road.members.between(at, at, singly=road.singly).measure(road.event.function, at, y)
        if not g.requires_grad:
            raise GradientError(
                "the event function does not let gradients through, so the time of the event has "
                "none; write it in torch, or integrate under torch.no_grad()."
            )
        by_t, by_y = torch.autograd.grad(g.sum(), (at, y), allow_unused=True)
    slope = torch.zeros_like(g) if by_t is None else by_t
    if by_y is not None:
        slope = slope + (by_y * there.k.detach()).flatten(1).sum(1)
    pull = torch.where(slope == 0, 0.0, 1.0 / slope).detach()
    later = -(there.g - there.g.detach()) * pull
    wide = later.reshape(-1, *(1,) * (start.ndim - 1))
    state = place.y + (there.y - there.y.detach()) + there.k.detach() * wide
    return place.t + later.to(place.t), state
