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
        acts_on: Names of the states it may change; None means those not declared exact.

    Example:
        >>> network = Residual(hidden=(8,)).build(("theta", "omega"), (False, True), z_a_dim=1)
        >>> network(torch.zeros(4, 2), torch.zeros(4, 1)).shape
        torch.Size([4, 2])
    """

    hidden: tuple[int, ...] = (64, 64)
    linear_in_z_a: bool = True
    acts_on: tuple[str, ...] | None = None

    def build(
        self, states: tuple[str, ...], default: tuple[bool, ...], z_a_dim: int
    ) -> ResidualNetwork:
        """Return the network.

        Arguments:
            states: Names of the C states.
            default: Which of them may change if `acts_on` is None.
            z_a_dim: How many latents there are.

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
        return ResidualNetwork(acts, z_a_dim, self)


class ResidualNetwork(nn.Module):
    """The network :math:`f_a`, in units of the training set's standard deviations.

    Arguments:
        acts: Which of the C states it changes.
        z_a_dim: How many latents there are, D.
        config: The settings.
    """

    acts: Tensor

    def __init__(self, acts: tuple[bool, ...], z_a_dim: int, config: Residual) -> None:
        super().__init__()
        self.linear_in_z_a = config.linear_in_z_a and z_a_dim > 0
        self.register_buffer("acts", torch.tensor(acts).nonzero()[:, 0], persistent=False)
        self.states = len(acts)
        outputs = int(sum(acts))
        if self.linear_in_z_a:
            self.network = mlp(self.states, config.hidden, outputs * z_a_dim)
        else:
            self.network = mlp(self.states + z_a_dim, config.hidden, outputs)

    def forward(self, y: Tensor, z_a: Tensor) -> Tensor:
        """Return what is added to the expert's rate.

        Arguments:
            y: States in standard deviations, with shape `(*B, C)`.
            z_a: Latents, with shape `(*B, D)`; the batch axes of both broadcast.

        Returns:
            Rates in standard deviations of the rate, with shape `(*B, C)`; zero where the
            residual does not act.
        """
        if self.linear_in_z_a:
            basis = self.network(y).unflatten(-1, (-1, z_a.shape[-1]))
            out = (basis * z_a[..., None, :]).sum(-1)
        else:
            batch = torch.broadcast_shapes(y.shape[:-1], z_a.shape[:-1])
            pair = y.expand(*batch, -1), z_a.expand(*batch, -1)
            out = self.network(torch.cat(pair, dim=-1))
        if len(self.acts) == self.states:
            return out
        # a sum over columns, not a scatter: it stays cheap under autograd and forward mode
        return out @ torch.eye(self.states, dtype=out.dtype, device=out.device)[self.acts]


def mlp(inputs: int, hidden: tuple[int, ...], outputs: int) -> nn.Sequential:
    """Return a fully connected network with SiLU activations.

    Arguments:
        inputs: How many inputs.
        hidden: Widths of the hidden layers.
        outputs: How many outputs.
    """
    widths = (inputs, *hidden)
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Linear(a, b), nn.SiLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], outputs))
