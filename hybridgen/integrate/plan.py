"""How a batch is to be integrated: what `solve` is told besides the problem."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from hybridgen.errors import ConfigError, UnsupportedError, nearest
from hybridgen.integrate.checks import check_level
from hybridgen.integrate.compilation import Compile, check_compile
from hybridgen.integrate.diffusion import Diffusion
from hybridgen.integrate.events import Event
from hybridgen.integrate.stepping import Tolerance
from hybridgen.integrate.tableaus import RK4, TABLEAUS, TSIT5

__all__ = ["METHODS", "Plan"]

METHODS = (*TABLEAUS, "etdrk4")


@dataclass(frozen=True)
class Plan:
    """The method and its settings; see `hybridgen.solve`.

    Arguments:
        tolerance: The error allowed.
        method: The name of the method.
        max_substeps: The most explicit substeps of an interval.
        max_steps: The most substeps that a member may take in all; `None` for no limit.
        substeps: Substeps of each interval; `None` to pick them.
        linear: The linear part, for `"etdrk4"`.
        event: What to look for on the way.
        batch_dims: How many leading axes number the members.
        compile: Whether to make a kernel of the field.
        checkpoint: `"interval"` to keep states at save times alone for a backward pass.

    Raises:
        ConfigError: If the method is unknown, or these do not go together.
        UnsupportedError: If the method cannot keep less.

    Example:
        >>> Plan(Tolerance(1e-6, 1e-8), method="grid_rk4").adaptive
        False
    """

    tolerance: Tolerance
    method: str = TSIT5.name
    max_substeps: int = 256
    max_steps: int | None = None
    substeps: int | Sequence[int] | Tensor | None = None
    linear: Diffusion | None = None
    event: Event | None = None
    batch_dims: int = 1
    compile: Compile = False
    checkpoint: Literal["interval"] | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            known = ", ".join(map(repr, METHODS))
            raise ConfigError(
                f"unknown method {self.method!r}, {nearest(self.method, METHODS)} Known here: "
                f"{known}. The methods of torchdiffeq are there through hybridgen.odeint."
            )
        check_level("max_substeps", self.max_substeps)
        if self.max_steps is not None:
            check_level("max_steps", self.max_steps)
        check_compile(self.compile)
        self._check_linear()
        self._check_checkpoint()
        if self.adaptive:
            return
        for name in ("max_steps", "event"):
            if getattr(self, name) is not None:
                raise ConfigError(
                    f"{name} is given, but {self.method!r} takes the steps that it is told and "
                    f"looks at nothing on the way; write method={TSIT5.name!r}, or leave {name} "
                    "out."
                )

    def _check_linear(self) -> None:
        if self.method == "etdrk4" and not isinstance(self.linear, Diffusion):
            raise ConfigError(
                f"linear is {self.linear!r}, but 'etdrk4' needs the part of the field that it is "
                "to solve exactly; write linear=Diffusion(coefficient, spacing)."
            )
        if self.method != "etdrk4" and self.linear is not None:
            raise ConfigError(
                f"linear is given, but {self.method!r} has no use for it; write "
                "method='etdrk4', or leave linear out."
            )

    def _check_checkpoint(self) -> None:
        if self.checkpoint not in (None, "interval"):
            raise ConfigError(
                f"checkpoint is {self.checkpoint!r}; write 'interval' to keep only the states at "
                "save times for the backward pass, or None to keep every step."
            )
        if self.checkpoint and self.method == "etdrk4":
            raise UnsupportedError(
                "checkpoint is 'interval', but 'etdrk4' keeps every step; leave checkpoint out, "
                f"or write method={RK4.name!r} or method={TSIT5.name!r}."
            )

    @property
    def adaptive(self) -> bool:
        """Whether the method picks its own steps."""
        return self.method not in (RK4.name, "etdrk4")
