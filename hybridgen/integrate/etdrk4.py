r"""Exact diffusion with explicit reactions: exponential time differencing of fourth order.

The field is split as :math:`f(t, y) = L y + N(t, y)` with a linear part :math:`L = c \Delta`.
In the waves that the discrete Laplacian keeps (see `hybridgen.integrate.diffusion`) L is a list of
numbers :math:`\lambda`, so that :math:`v' = \lambda v + N(t, v)` has the exact solution
:math:`e^{h \lambda} v` where N = 0, however long h is. With :math:`z = h \lambda` and

.. math::
    \varphi_1(z) = \frac{e^z - 1}{z}, \qquad \varphi_2(z) = \frac{\varphi_1(z) - 1}{z}, \qquad
    \varphi_3(z) = \frac{\varphi_2(z) - 1/2}{z}

a step of length h is

.. math::
    a &= e^{z/2} v + \tfrac{h}{2} \varphi_1(z/2) N(t, v) \\
    b &= e^{z/2} v + \tfrac{h}{2} \varphi_1(z/2) N(t + h/2, a) \\
    c &= e^{z/2} a + \tfrac{h}{2} \varphi_1(z/2) (2 N(t + h/2, b) - N(t, v)) \\
    v_1 &= e^z v + h \bigl[(\varphi_1 - 3 \varphi_2 + 4 \varphi_3) N(t, v)
        + 2 (\varphi_2 - 2 \varphi_3) (N(t + h/2, a) + N(t + h/2, b))
        + (4 \varphi_3 - \varphi_2) N(t + h, c)\bigr].

The user's field stays the whole right-hand side: what is left of it is :math:`N = f - L y`. So
L decides how long a step may be, never what is solved; with L = 0 the method is that of Runge
and Kutta.

References:
    Exponential time differencing for stiff systems (Cox and Matthews, 2002),
    doi:10.1006/jcph.2002.6995
    Fourth-order time-stepping for stiff PDEs (Kassam and Trefethen, 2005),
    doi:10.1137/S1064827502410633
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hybridgen.integrate.diffusion import Diffusion
from hybridgen.integrate.members import Members
from hybridgen.integrate.verdicts import judged

__all__ = ["etdrk4_rollout", "phi"]

TERMS = 17
"""Of the series of phi_3, enough for float64 where |z| <= 1."""


def phi(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Return :math:`\varphi_1, \varphi_2, \varphi_3`, accurate and differentiable also near 0.

    Arguments:
        z: Real numbers, of any shape.

    Returns:
        Three tensors shaped like z.

    Example:
        >>> [float(p) for p in phi(torch.zeros((), dtype=torch.float64))]
        [1.0, 0.5, 0.16666666666666666]
    """
    small = z.abs() <= 1.0
    # Each branch is kept from the numbers of the other: 0 * inf would poison the gradient.
    near, far = torch.where(small, z, 0.0), torch.where(small, 1.0, z)
    series = torch.full_like(z, 1.0 / math.factorial(TERMS + 3))
    for j in range(TERMS - 1, -1, -1):
        series = series * near + 1.0 / math.factorial(j + 3)
    second = near * series + 0.5
    one = torch.special.expm1(far) / far
    two = (one - 1.0) / far
    three = (two - 0.5) / far
    pairs = ((near * second + 1.0, one), (second, two), (series, three))
    first, middle, last = (torch.where(small, by_series, direct) for by_series, direct in pairs)
    return first, middle, last


@dataclass(frozen=True)
class _Weights:
    """What a step of one length multiplies by; each broadcasts against states `(N, *S)`."""

    half: Tensor
    whole: Tensor
    inner: Tensor
    first: Tensor
    middle: Tensor
    last: Tensor

    @classmethod
    def of(cls, h: Tensor, rates: Tensor) -> _Weights:
        """Return the weights of steps h, which broadcast against the rates, like `(N, *S)`."""
        half = torch.exp(0.5 * h * rates)
        inner, _, _ = phi(0.5 * h * rates)
        one, two, three = phi(h * rates)
        return cls(
            half=half,
            whole=half * half,
            inner=0.5 * h * inner,
            first=h * (one - 3.0 * two + 4.0 * three),
            middle=2.0 * h * (two - 2.0 * three),
            last=h * (4.0 * three - two),
        )


def etdrk4_rollout(
    members: Members, y0: Tensor, bad: Tensor, linear: Diffusion, schedule: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Integrate all members with a fixed number of steps an interval.

    As `hybridgen.integrate.rollout.rollout` it decides nothing on the way, and keeps members with
    numbers that are not finite from the gradients of the others.

    Arguments:
        members: All members of the batch.
        y0: Their initial states, with shape `(N, *S)`.
        bad: Which of them have an input that is not a number, with shape `(N,)`.
        linear: The linear part of the field.
        schedule: Steps of each interval, `T - 1` of them.

    Returns:
        The trajectories, `(N, T, *S)`, NaN after the last good time; the `Status` of each member,
        int8, `(N,)`; and the index of its last good time, -1 for none, `(N,)`.

    Raises:
        ShapeError: If the linear part does not suit the states.

    Example:
        >>> from hybridgen.operators import laplacian
        >>> field = lambda t, y, a: a * laplacian(y, 0.1, "neumann", axes=1)
        >>> t, y0 = torch.tensor([0.0, 9.0]), torch.eye(5)[None, 0]
        >>> members, bad = Members(field, 1.0, t, torch.Size([1])), torch.tensor([False])
        >>> linear = Diffusion(lambda a: a, 0.1, "neumann", axes=1)
        >>> etdrk4_rollout(members, y0, bad, linear, [1])[0][0, 1]
        tensor([0.2000, 0.2000, 0.2000, 0.2000, 0.2000])
    """
    return judged(lambda some: _roll(members, y0, some, linear, schedule), bad)


def _roll(
    members: Members, y0: Tensor, bad: Tensor, linear: Diffusion, schedule: Sequence[int]
) -> Tensor:
    """Return trajectories, `(N, T, *S)`; those of bad members are a good one's after `y0`."""
    y, states = y0, [y0]
    if members.axes.numel() > 1:  # Otherwise there is nobody to be swapped for.
        rows = torch.arange(len(y0), device=y0.device)
        rows = torch.where(bad, (~bad).int().argmax(), rows)
        members, y = members.take(rows), y0[rows]
    stepper = _Stepper(members, y, linear, schedule)
    v = stepper.basis.to_waves(y)
    for i in range(len(schedule)):
        v = stepper.cross(i, v)
        states.append(stepper.basis.from_waves(v))
    return torch.stack(states, dim=1)


class _Stepper:
    """Steps in waves.

    Arguments:
        members: Who.
        y: Their states, with shape `(N, *S)`, for shape and dtype.
        linear: The linear part.
        schedule: Steps of each interval.
    """

    def __init__(
        self, members: Members, y: Tensor, linear: Diffusion, schedule: Sequence[int]
    ) -> None:
        self.members, self.schedule = members, schedule
        self.rates, self.basis = linear.rates(members, y)
        self.dtype, self.ndim = self.rates.dtype, y.ndim
        self.alike = _alike(members.t, schedule)
        self.weights: dict[int, _Weights] = {}

    def cross(self, i: int, v: Tensor) -> Tensor:
        """Take amplitudes, with shape `(N, *S)`, over an interval."""
        count, t0, t1 = self.schedule[i], self.members.time(i), self.members.time(i + 1)
        h = (t1 - t0) / count
        if self.alike[i] not in self.weights:
            long = h.to(self.dtype).reshape(h.shape + (1,) * (self.ndim - 1) * h.ndim)
            self.weights[self.alike[i]] = _Weights.of(long, self.rates)
        for j in range(count):
            end = t1 if j == count - 1 else t0 + (j + 1) * h
            v = self._step(self.weights[self.alike[i]], t0 + j * h, t0 + (j + 0.5) * h, end, v)
        return v

    def _step(self, w: _Weights, t: Tensor, middle: Tensor, end: Tensor, v: Tensor) -> Tensor:
        """Take one step, from `t` through `middle` to `end`, with `(N, *S)` amplitudes."""
        at_v = self._rest(t, v)
        start = w.half * v
        a = start + w.inner * at_v
        at_a = self._rest(middle, a)
        b = start + w.inner * at_a
        at_b = self._rest(middle, b)
        c = w.half * a + w.inner * (2.0 * at_b - at_v)
        at_c = self._rest(end, c)
        return w.whole * v + (w.first * at_v + w.middle * (at_a + at_b) + w.last * at_c)

    def _rest(self, t: Tensor, v: Tensor) -> Tensor:
        """Return what the linear part leaves of the field, in waves, with shape `(N, *S)`."""
        k = self.members.rhs(t.to(self.dtype), self.basis.from_waves(v))
        return self.basis.to_waves(k) - self.rates * v


def _alike(t: Tensor, schedule: Sequence[int]) -> list[int]:
    """Return for each interval the first one whose steps are as long, up to the rounding of t.

    Arguments:
        t: Save times, with shape `(T,)` or `(N, T)`; each interval is its own where they differ
            between members, or a derivative by them is followed.
        schedule: Steps of each interval.
    """
    own = list(range(len(schedule)))
    if t.ndim > 1 or t.requires_grad or torch._C._functorch.is_functorch_wrapped_tensor(t):
        return own
    times = t.tolist()
    rounding = 4.0 * torch.finfo(t.dtype).eps * max(map(abs, times))
    found: dict[int, float] = {}
    for i, count in enumerate(schedule):
        h = (times[i + 1] - times[i]) / count
        same = (j for j, other in found.items() if abs(h - other) <= rounding)
        own[i] = next(same, i)
        if own[i] == i:
            found[i] = h
    return own
