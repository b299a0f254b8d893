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
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hybridgen.errors import ExpertError, ParameterError, ShapeError
from hybridgen.params import Param, State, Values, bind

__all__ = ["ODEExpert"]


@dataclass(frozen=True)
class ODEExpert:
    """An ordinary (or method-of-lines partial) differential equation with declared names.

    Arguments:
        field: The function `f(t, y, z_e)`, or `f(t, y, z_e, u)` with inputs, that returns dy/dt
            with the shape of y, `(*B, C, *S)`. `z_e` has an attribute for each parameter, which
            broadcasts against one component of the state, `(*B, *S)`; so has `u`.
        states: The C components of the state.
        params: The P parameters.
        inputs: The names and units of the inputs u(t), if any.
        space: How many spatial axes a component has (0 for an ODE).

    Raises:
        ExpertError: If `field` is not callable, or (in a call) does not return a tensor.
        ParameterError: If there is no state, or a name is declared twice.

    References:
        Augmenting Physical Models with Deep Networks for Complex Dynamics Forecasting (Yin, Le
        Guen, Dona et al., 2021), arXiv:2010.04456
    """

    field: Callable[..., Tensor]
    states: tuple[State, ...]
    params: tuple[Param, ...]
    inputs: tuple[State, ...] = ()
    space: int = 0

    def __post_init__(self) -> None:
        if not callable(self.field):
            raise ExpertError(
                f"ODEExpert got {type(self.field).__name__} for its field; "
                "give a function f(t, y, z_e) that returns dy/dt."
            )
        declared: list[tuple[str, type]] = [("states", State), ("params", Param)]
        for kind, cls in (*declared, ("inputs", State)):
            members = tuple(getattr(self, kind))
            wrong = [m for m in members if not isinstance(m, cls)]
            if wrong:
                raise ExpertError(
                    f"{kind} holds {wrong[0]!r}; "
                    f"write {kind}=({cls.__name__}('name', 'unit'...),)."
                )
            object.__setattr__(self, kind, members)
        if not self.states:
            raise ParameterError("an expert needs at least one state: states=(State('y', 'm'),).")
        names = [*self.state_names, *self.param_names, *(i.name for i in self.inputs)]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ParameterError(f"declared twice: {', '.join(twice)}; give each its own name.")

    @property
    def name(self) -> str:
        """The name of the function."""
        return getattr(self.field, "__name__", type(self.field).__name__)

    @property
    def state_names(self) -> tuple[str, ...]:
        """The names of the C states."""
        return tuple(s.name for s in self.states)

    @property
    def param_names(self) -> tuple[str, ...]:
        """The names of the P parameters."""
        return tuple(p.name for p in self.params)

    @property
    def acts_on(self) -> Tensor:
        """Which states a residual may change: those not declared exact, with shape `(C,)`."""
        return torch.tensor([not s.exact for s in self.states])

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
        if isinstance(t, Tensor) and t.ndim and self.space:
            t = t[(..., *(None,) * self.space)]
        args = (t, y, self.bind(z_e))
        if self.inputs:
            if u is None:
                names = ", ".join(i.name for i in self.inputs)
                raise ParameterError(f"the expert declares the inputs ({names}); pass u=.")
            # only names are read of the declarations, and an input has one as a parameter has
            args = (*args, bind(self.inputs, u, self.space))  # type: ignore[arg-type, assignment]
        dy = self.field(*args)
        if not isinstance(dy, Tensor):
            raise ExpertError(
                f"expert {self.name!r} returned {type(dy).__name__}; "
                f"return one tensor with the shape of y, {tuple(y.shape)} "
                "(torch.stack([...], dim=-1))."
            )
        return dy
