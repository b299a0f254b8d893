r"""The residual :math:`f_a`: the network that stands for what the expert misses.

What it may see and change decides whether `z_e` can be identified at all: it sees the state, never
the time, the inputs or the expert's output; it acts on the states whose equation the expert does
not hold for exact; and by default it is linear in its latent,

.. math:: f_a(y; z_a) = \sum_d z_{a,d}\, n_d(y / \mathrm{sd}) \cdot \mathrm{sd}(\dot y),

which extrapolates in :math:`z_a` where a general network does not.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from hybridgen.config import config
from hybridgen.errors import ConfigError

__all__ = ["Residual", "ResidualNetwork", "mlp"]


@config
class Residual:
    """Settings of the residual.

    Arguments:
        hidden: Widths of the hidden layers.
        linear_in_z_a: Whether the network is linear in `z_a`.
        constant: Whether a part that does not depend on `z_a` is added, :math:`n_0(y)`, where the
            network is linear in `z_a`.
        acts_on: Names of the states it may change; None means those not declared exact.
        kernel: How many pixels wide it looks at a field (periodic at the ends). With 1 it cannot
            imitate a derivative in space, so it cannot trade with a diffusion coefficient.

    Example:
        >>> network = Residual(hidden=(8,)).build(("theta", "omega"), (False, True), z_a_dim=1)
        >>> network(torch.zeros(4, 2), torch.zeros(4, 1)).shape
        torch.Size([4, 2])
    """

    hidden: tuple[int, ...] = (64, 64)
    linear_in_z_a: bool = True
    constant: bool = False
    acts_on: tuple[str, ...] | None = None
    kernel: int = 1

    def build(
        self, states: tuple[str, ...], default: tuple[bool, ...], z_a_dim: int, space: int = 0
    ) -> ResidualNetwork:
        """Return the network.

        Arguments:
            states: Names of the C states.
            default: Which of them may change if `acts_on` is None.
            z_a_dim: How many latents there are.
            space: How many spatial axes a state has.

        Raises:
            ConfigError: If `acts_on` names no state, or the residual would act on nothing.
        """
        acts = default
        if self.acts_on is not None:
            unknown = [n for n in self.acts_on if n not in states]
            if unknown:
                raise ConfigError(f"acts_on names {unknown[0]!r}; the states are {states}.")
            acts = tuple(s in self.acts_on for s in states)
        if not any(acts):
            raise ConfigError(
                f"the residual acts on no state: all of {states} are declared exact; "
                "drop exact=True where the expert may be wrong, or use residual=None."
            )
        if self.kernel % 2 == 0 or (self.kernel > 1 and space != 2):
            raise ConfigError(
                f"kernel is {self.kernel} for states with {space} spatial axes; write an odd "
                "number, and 1 where there are not two axes."
            )
        return ResidualNetwork(acts, z_a_dim, self, space)


class ResidualNetwork(nn.Module):
    """The network :math:`f_a`, in units of the training set's standard deviations.

    Arguments:
        acts: Which of the C states it changes.
        z_a_dim: How many latents there are, D; with none it starts at zero.
        config: The settings.
        space: How many spatial axes a state has.
    """

    acts: Tensor

    def __init__(
        self, acts: tuple[bool, ...], z_a_dim: int, config: Residual, space: int = 0
    ) -> None:
        super().__init__()
        self.linear_in_z_a = config.linear_in_z_a and z_a_dim > 0
        self.constant = self.linear_in_z_a and config.constant
        self.register_buffer("acts", torch.tensor(acts).nonzero()[:, 0], persistent=False)
        self.states, self.space = len(acts), space
        outputs = int(sum(acts))
        widths = (self.states, *config.hidden, outputs * (z_a_dim + self.constant))
        if not self.linear_in_z_a:
            widths = (self.states + z_a_dim, *config.hidden, outputs)
        self.network = mlp(widths) if config.kernel == 1 else _Stencil(widths, config.kernel)
        if z_a_dim == 0:
            last = [m for m in self.network.modules() if isinstance(m, (nn.Linear, nn.Conv2d))][-1]
            for p in last.parameters():
                nn.init.zeros_(p)

    def forward(self, y: Tensor, z_a: Tensor) -> Tensor:
        """Return what is added to the expert's rate.

        Arguments:
            y: States in standard deviations, with shape `(*B, C, *S)`.
            z_a: Latents, with shape `(*B, D)`; the batch axes of both broadcast.

        Returns:
            Rates in standard deviations of the rate, with shape `(*B, C, *S)`; zero where the
            residual does not act.
        """
        y = y.movedim(-1 - self.space, -1)
        z_a = z_a[(..., *(None,) * self.space, slice(None))]
        if self.linear_in_z_a:
            if self.constant:
                z_a = torch.nn.functional.pad(z_a, (0, 1), value=1.0)
            basis = self.network(y).unflatten(-1, (-1, z_a.shape[-1]))
            out = (basis * z_a[..., None, :]).sum(-1)
        else:
            batch = torch.broadcast_shapes(y.shape[:-1], z_a.shape[:-1])
            pair = y.expand(*batch, -1), z_a.expand(*batch, -1)
            out = self.network(torch.cat(pair, dim=-1))
        if len(self.acts) < self.states:
            # a sum over columns, not a scatter: it stays cheap under autograd and forward mode
            out = out @ torch.eye(self.states, dtype=out.dtype, device=out.device)[self.acts]
        return out.movedim(-1, -1 - self.space)


class _Stencil(nn.Module):
    """A network whose first layer sees the neighbours of a pixel on a periodic grid.

    Arguments:
        widths: Inputs, widths of the hidden layers, outputs.
        kernel: How many pixels wide the first layer looks.
    """

    def __init__(self, widths: tuple[int, ...], kernel: int) -> None:
        super().__init__()
        first = nn.Conv2d(
            widths[0], widths[1], kernel, padding=kernel // 2, padding_mode="circular"
        )
        self.first, self.rest = first, nn.Sequential(nn.SiLU(), *mlp(widths[1:]))

    def forward(self, y: Tensor) -> Tensor:
        """Map fields `(*B, Y, X, C)` to fields with as many channels as there are outputs."""
        batch = y.shape[:-3]
        seen = self.first(y.reshape(-1, *y.shape[-3:]).movedim(-1, 1)).movedim(1, -1)
        return self.rest(seen).reshape(*batch, *seen.shape[1:3], -1)


def mlp(widths: tuple[int, ...]) -> nn.Sequential:
    """Return a fully connected network with SiLU activations.

    Arguments:
        widths: Inputs, widths of the hidden layers, outputs.
    """
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths[:-1]):
        layers += [nn.Linear(a, b), nn.SiLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))
