"""Experts: partial physical models, written as plain Python functions.

An ODE expert is a function :math:`f_e(t, y, z_e)` that returns :math:`dy/dt`. Where it declares
inputs it is :math:`f_e(t, y, z_e, u)`. The parameters are read by attribute:

    >>> import torch
    >>> from hybridgen import ODEExpert, Param, State
    >>> def pendulum(t, y, z_e):
    ...     theta, omega = y.unbind(-1)
    ...     return torch.stack([omega, -z_e.omega0**2 * theta.sin()], dim=-1)
    >>> expert = ODEExpert(
    ...     pendulum,
    ...     states=(State("theta", "rad", exact=True), State("omega", "rad/s")),
    ...     params=(Param("omega0", "rad/s", 0.5, 3.5),),
    ... )
    >>> expert(0.0, torch.tensor([[0.0, 1.0]]), torch.tensor([[2.0]]))
    tensor([[1., -0.]])

An expert that is no differential equation is a function :math:`f_e(x, z_e)` of what the response
is sampled along, such as a wavelength: an `Expert`.

Either may be a black box in numpy (`backend="numpy"`), and either may be written for one member
(`vectorised=False`). What is in numpy has no gradient: it serves to simulate, to sweep, to augment
and to refine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hybridgen.errors import ExpertError, ParameterError, ShapeError
from hybridgen.foreign import Backend, accept, array, gathered, plain
from hybridgen.params import Param, State, Values, bind

__all__ = ["AnyExpert", "Expert", "ODEExpert"]


class _Declared:
    """What both kinds of experts share: names, and how their function is called."""

    states: tuple[State, ...]
    params: tuple[Param, ...]
    inputs: tuple[State, ...]
    backend: Backend
    vectorised: bool

    if TYPE_CHECKING:  # a dataclass would take a property of its base for a default

        @property
        def function(self) -> Callable[..., Any]: ...

    @property
    def name(self) -> str:
        """The name of the function."""
        return getattr(self.function, "__name__", type(self.function).__name__)

    @property
    def state_names(self) -> tuple[str, ...]:
        """The names of the C states, or outputs."""
        return tuple(s.name for s in self.states)

    @property
    def param_names(self) -> tuple[str, ...]:
        """The names of the P parameters."""
        return tuple(p.name for p in self.params)

    @property
    def acts_on(self) -> Tensor:
        """Which states a residual may change: those not declared exact, with shape `(C,)`."""
        return torch.tensor([not s.exact for s in self.states])

    def _check(self, call: str, taken: tuple[str, ...] = (), **declared: type) -> None:
        """Check the declarations, tuples of a class each, and that no name occurs twice."""
        kind = type(self).__name__
        if not callable(self.function):
            raise ExpertError(
                f"{kind} got {type(self.function).__name__} for its function; give {call}."
            )
        if self.backend not in ("torch", "numpy"):
            raise ExpertError(f"backend is {self.backend!r}; write 'torch' or 'numpy'.")
        for key, cls in declared.items():
            members = tuple(getattr(self, key))
            wrong = [m for m in members if not isinstance(m, cls)]
            if wrong:
                raise ExpertError(
                    f"{key} holds {wrong[0]!r}; write {key}=({cls.__name__}('name', 'unit'...),)."
                )
            object.__setattr__(self, key, members)
        names = [*taken, *(member.name for key in declared for member in getattr(self, key))]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ParameterError(f"declared twice: {', '.join(twice)}; give each its own name.")

    def _given(self, u: Tensor | None) -> Tensor:
        if u is None:
            names = ", ".join(i.name for i in self.inputs)
            raise ParameterError(f"the expert declares the inputs ({names}); pass u=.")
        return u

    def _whole(self, args: Sequence[Any], shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Call the function on the whole batch; `shape` is what it should return."""
        if self.backend == "torch":
            return accept(self.function(*args), self.name, shape, "torch")
        arrays = [plain(a, self.name) for a in args]
        with np.errstate(all="ignore"):  # what is not finite is found by whoever asked
            out = accept(self.function(*arrays), self.name, shape, "numpy")
        return torch.tensor(out, dtype=like.dtype, device=like.device)

    def _each(
        self,
        parts: Sequence[tuple[Tensor, int]],
        named: Callable[..., tuple[Any, ...]],
        shape: tuple[int, ...],
        like: Tensor,
    ) -> Tensor:
        """Call the function on members one by one.

        Arguments:
            parts: Tensors with shape `(*B, *R)`, each with the number of its axes R.
            named: What the function takes, from the parts of one member.
            shape: What it must return for one member.
            like: What the answer should be like.
        """
        batch = torch.broadcast_shapes(*(p.shape[: p.ndim - k] for p, k in parts))
        rests = [p.shape[p.ndim - k :] for p, k in parts]
        wide = [p.expand(batch + r) for (p, _), r in zip(parts, rests, strict=True)]
        rows: list[Any] = [w.reshape(batch.numel(), *r) for w, r in zip(wide, rests, strict=True)]
        if self.backend == "torch":
            found = [self._one(named(*row), shape) for row in zip(*rows, strict=True)]
            out = torch.stack(found) if found else like.new_empty(0)
            return out.reshape(*batch, *shape)
        rows = [array(r, self.name) for r in rows]
        with np.errstate(all="ignore"):
            found = [self._one(named(*row), shape) for row in zip(*rows, strict=True)]
        out = torch.tensor(np.array(found), dtype=like.dtype, device=like.device)
        return out.reshape(*batch, *shape)

    def _one(self, args: tuple[Any, ...], shape: tuple[int, ...]) -> Any:
        """Call the function on one member; `shape` is what it must return."""
        try:
            out = self.function(*args)
        except ArithmeticError:
            if self.backend == "torch":
                raise
            # math.exp raises where numpy and torch have inf, and would take the batch along
            return np.full(shape, np.nan)
        if self.backend == "numpy" and isinstance(out, list | tuple | np.ndarray):
            out = gathered(out, self.name, shape)
        out = self._complete(accept(out, self.name, shape, self.backend), shape)
        if tuple(out.shape) != shape:
            raise ExpertError(
                f"expert {self.name!r} returned shape {tuple(out.shape)} for one member; "
                f"return {shape}."
            )
        return out

    def _complete(self, out: Any, shape: tuple[int, ...]) -> Any:
        """Return what the function returned with the axes that it may leave out."""
        return out


@dataclass(frozen=True)
class ODEExpert(_Declared):
    """An ordinary (or method-of-lines partial) differential equation with declared names.

    Arguments:
        field: The function `f(t, y, z_e)`, or `f(t, y, z_e, u)` with inputs, that returns dy/dt
            with the shape of y, `(*B, C, *S)`. `z_e` has an attribute for each parameter, which
            broadcasts against one component of the state, `(*B, *S)`; so has `u`.
        states: The C components of the state.
        params: The P parameters.
        inputs: The names and units of the inputs u(t), if any.
        space: How many spatial axes a component has (0 for an ODE).
        backend: `"torch"`, or `"numpy"` for a function that takes and returns float64 arrays (and
            floats where there is a single number) and so has no gradient.
        vectorised: False for a function of one member: y with shape `(C, *S)`, the others
            scalars. In numpy it may return a list, and where it raises an ArithmeticError (as
            math.exp does) the member's rate is NaN.

    Raises:
        ExpertError: If `field` is not callable, or (in a call) does not return a tensor.
        ParameterError: If there is no state, or a name is declared twice.
        GradientError: In a call, if a gradient is asked of a function in numpy.

    References:
        Augmenting Physical Models with Deep Networks for Complex Dynamics Forecasting (Yin, Le
        Guen, Dona et al., 2021), arXiv:2010.04456

    Example:
        >>> import math
        >>> def pendulum(t, y, z_e):  # of one pendulum, without torch
        ...     return [y[1], -z_e.omega0**2 * math.sin(y[0])]
        >>> states = (State("theta", "rad"), State("omega", "rad/s"))
        >>> params = (Param("omega0", "rad/s", 0.5, 3.5),)
        >>> expert = ODEExpert(pendulum, states, params, backend="numpy", vectorised=False)
        >>> expert(0.0, torch.tensor([[0.0, 1.0], [0.0, 2.0]]), torch.ones(2, 1))
        tensor([[1., -0.],
                [2., -0.]])
    """

    field: Callable[..., Any]
    states: tuple[State, ...]
    params: tuple[Param, ...]
    inputs: tuple[State, ...] = ()
    space: int = 0
    backend: Backend = "torch"
    vectorised: bool = True

    def __post_init__(self) -> None:
        self._check(
            "a function f(t, y, z_e) that returns dy/dt", states=State, params=Param, inputs=State
        )
        if not self.states:
            raise ParameterError("an expert needs at least one state: states=(State('y', 'm'),).")

    @property
    def function(self) -> Callable[..., Any]:
        """The field, under the name that all experts have for it."""
        return self.field

    def bind(self, z_e: Tensor) -> Values:
        """Name the parameters of a vector with shape `(*B, P)`; see `hybridgen.params.bind`."""
        return bind(self.params, z_e, self.space)

    def __call__(
        self, t: float | Tensor, y: Tensor, z_e: Tensor, u: Tensor | None = None
    ) -> Tensor:
        """Return dy/dt, in state units per time unit.

        Arguments:
            t: Time, a scalar or with shape `(*B,)`.
            y: State, with shape `(*B, C, *S)`.
            z_e: Parameters in the order of the declaration, with shape `(*B, P)`.
            u: Inputs at `t`, with shape `(*B, U)`, if the expert declares any.

        Returns:
            The rate of change, with shape `(*B, C, *S)`.
        """
        if y.ndim <= self.space or y.shape[y.ndim - 1 - self.space] != len(self.states):
            raise ShapeError(
                f"the state has shape {tuple(y.shape)}; expected (*B, {len(self.states)}"
                f"{', *S' if self.space else ''}) for the states {self.state_names}."
            )
        if not self.vectorised:
            return self._singly(t, y, z_e, u)
        if isinstance(t, Tensor) and t.ndim and self.space:
            t = t[(..., *(None,) * self.space)]
        args: tuple[Any, ...] = (t, y, self.bind(z_e))
        if self.inputs:
            # only names are read of the declarations, and an input has one as a parameter has
            args = (*args, bind(self.inputs, self._given(u), self.space))  # type: ignore[arg-type]
        return self._whole(args, tuple(y.shape), y)

    def _singly(self, t: float | Tensor, y: Tensor, z_e: Tensor, u: Tensor | None) -> Tensor:
        self.bind(z_e)  # refuses a wrong shape
        time = t if isinstance(t, Tensor) else y.new_tensor(t, dtype=torch.float64)
        parts = [(time, 0), (y, 1 + self.space), (z_e, 1)]
        if self.inputs:
            parts.append((self._given(u), 1))

        def named(t: Any, y: Any, z: Any, *u: Any) -> tuple[Any, ...]:
            return (t, y, _row(self.params, z), *(_row(self.inputs, v) for v in u))

        return self._each(parts, named, tuple(y.shape[y.ndim - 1 - self.space :]), y)


@dataclass(frozen=True)
class Expert(_Declared):
    """A physical model that is no differential equation: a response, point by point.

    Arguments:
        function: The function `f(x, z_e)` that returns the response at T points, with shape
            `(*B, T, C)`, or `(*B, T)` for a single output. `x` has an attribute for each input,
            with shape `(*B, T)`; `z_e` one for each parameter, with shape `(*B, 1)`.
        inputs: What the function takes. The first is the axis along which data are sampled: its
            points are the `t` of a `Batch`, and it becomes `axis`. The values of the others come
            with the data; they are what the finished expert has as `inputs`.
        outputs: The C components of the response; the rest of the library knows them as `states`.
        params: The P parameters.
        axis: The axis, if it is not the first of `inputs`. Its `low` and `high`, if it has them,
            say where `check_expert` looks.
        backend: As for an `ODEExpert`.
        vectorised: As for an `ODEExpert`; False for a function of one member: x with shape `(T,)`,
            parameters as scalars, and the response `(T, C)` or `(T,)`.

    Raises:
        ExpertError: If `function` is not callable, or (in a call) does not return what it should.
        ParameterError: If there is no axis or no output, or a name is declared twice.
        GradientError: In a call, if a gradient is asked of a function in numpy.

    Example:
        >>> def line(x, z_e):
        ...     return z_e.slope * x.force
        >>> expert = Expert(
        ...     line,
        ...     inputs=(State("force", "N"),),
        ...     outputs=(State("length", "m"),),
        ...     params=(Param("slope", "m/N", 0.1, 2.0),),
        ... )
        >>> expert(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([[0.5], [1.0]]))[..., 0]
        tensor([[0.0000, 0.5000, 1.0000],
                [0.0000, 1.0000, 2.0000]])
    """

    function: Callable[..., Any]
    inputs: tuple[State, ...]
    outputs: tuple[State, ...]
    params: tuple[Param, ...]
    # None until __post_init__ has taken it from the inputs
    axis: State = None  # type: ignore[assignment]
    backend: Backend = "torch"
    vectorised: bool = True
    states: tuple[State, ...] = field(init=False, repr=False, compare=False)
    space: int = field(default=0, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.axis is None and self.inputs:
            object.__setattr__(self, "axis", self.inputs[0])
            object.__setattr__(self, "inputs", self.inputs[1:])
        if not isinstance(self.axis, State):
            raise ParameterError(
                "an expert needs the axis along which data are sampled: "
                f"inputs=(State('wavelength', 'nm'),); got {self.axis!r}."
            )
        call = "a function f(x, z_e) that returns the response"
        self._check(call, inputs=State, outputs=State, params=Param, taken=(self.axis.name,))
        if not self.outputs:
            raise ParameterError("an expert needs an output: outputs=(State('y', 'm'),).")
        object.__setattr__(self, "states", self.outputs)

    def bind(self, z_e: Tensor) -> Values:
        """Name the parameters of a vector with shape `(*B, P)`, each with shape `(*B, 1)`."""
        return bind(self.params, z_e[..., None, :])

    def __call__(self, x: Tensor, z_e: Tensor, u: Tensor | None = None) -> Tensor:
        """Return the response, in the units of the outputs.

        Arguments:
            x: Points of the axis, in its unit, with shape `(T,)` or `(*B, T)`.
            z_e: Parameters in the order of the declaration, with shape `(*B, P)`.
            u: The other inputs at these points, with shape `(*B, T, U)`, if there are any.

        Returns:
            The response, with shape `(*B, T, C)`.
        """
        values = self.bind(z_e)
        shape = torch.broadcast_shapes(x.shape, (*z_e.shape[:-1], 1))
        columns = x.expand(shape)[..., None]
        if self.inputs:
            columns = torch.cat([columns, self._given(u).expand(*shape, -1)], dim=-1)
        declared = (self.axis, *self.inputs)
        full = (*shape, len(self.outputs))
        if self.vectorised:
            # only names are read of the declarations, and an input has one as a parameter has
            named = bind(declared, columns)  # type: ignore[arg-type]
            y = self._complete(self._whole((named, values), full, z_e), full)
            if tuple(y.shape) != full:
                raise ExpertError(
                    f"expert {self.name!r} returned shape {tuple(y.shape)}; return {full}: at "
                    f"each point a response for each of {self.state_names}."
                )
            return y

        def one(x: Any, z: Any) -> tuple[Values, Values]:
            return _row(declared, x.T), _row(self.params, z)

        return self._each([(columns, 2), (z_e, 1)], one, full[-2:], z_e)

    def _complete(self, out: Any, shape: tuple[int, ...]) -> Any:
        """Return a response with an axis of outputs, where a single one was left without."""
        alone = len(self.outputs) == 1 and tuple(out.shape) == shape[:-1]
        return out[..., None] if alone else out


AnyExpert = Expert | ODEExpert
"""What io, models and checkpoints take for an expert."""


def _row(declared: Sequence[Param | State], values: Any) -> Values:
    """Name the numbers of one member."""
    return Values(**{d.name: v for d, v in zip(declared, values, strict=True)})
