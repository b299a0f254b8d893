r"""Draw `gauge.png`: what chooses among fits that no trajectory can tell apart.

The true residual of the pendulum is :math:`f_a = (0, -\alpha\omega)`. Every

.. math:: \omega_0^2 \to \omega_0^2 + c, \qquad f_a \to f_a + (0, c \sin\theta)

is as good a fit. Left: three such splits of one rate. Right: what the norm and the gauge penalty
say of each, on the training windows of 500 pendulums. Run: `python docs/explanation/gauge.py`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from hybridgen.simulators import pendulum

from hybridgen import plots
from hybridgen.io import to_batch
from hybridgen.models.penalty import reflected

TARGET = Path(__file__).with_suffix(".png")
OMEGA0, SHOWN = 2.0, (-1, 0, 1)
COLOURS = ("#E69F00", "#0072B2", "#009E73")


def penalties(c: np.ndarray) -> dict[str, np.ndarray]:
    """Return the norm along data, the norm and the gauge on reflected states, for each shift c."""
    batch = to_batch(pendulum.simulator.sample(500, seed=0)).window(50)
    states = reflected(batch.y, 2000, torch.Generator().manual_seed(0)).flatten(0, -2)
    alpha, omega0 = batch.z_a, batch.z_e
    g = -2.0 * omega0 * states[:, 0].sin()

    def residual(y: torch.Tensor, c: float) -> torch.Tensor:
        return -alpha * y[..., 1] + c * y[..., 0].sin()

    rows: dict[str, list[float]] = {"data": [], "reflected": [], "gauge": []}
    for value in c.tolist():
        f_a = residual(states.expand(len(alpha), -1, -1), value)
        parallel = (f_a * g).mean(1).pow(2) / g.pow(2).mean(1)
        rows["data"].append(float(residual(batch.y, value).pow(2).mean()))
        rows["reflected"].append(float(f_a.pow(2).mean()))
        rows["gauge"].append(float(parallel.mean()))
    return {name: np.array(values) for name, values in rows.items()}


def draw() -> dict[str, float]:
    """Draw the picture and return the shift at which each penalty is smallest."""
    c = np.linspace(-1.0, 1.0, 81)
    found = penalties(c)
    least = {name: float(c[values.argmin()]) for name, values in found.items()}
    with plots.style():
        fig = plots.figure(8.6, 3.5)
        left, right = fig.subplots(1, 2, width_ratios=(1.0, 1.1))
        theta = np.linspace(-np.pi / 2, np.pi / 2, 200)
        left.plot(theta, -(OMEGA0**2) * np.sin(theta), color="black", lw=3.5, alpha=0.25)
        for i, shift in enumerate(SHOWN):
            expert = -(OMEGA0**2 + shift) * np.sin(theta)
            left.plot(theta, expert, color=COLOURS[i], label=f"c = {shift}".replace("-", "−"))
            left.plot(theta, shift * np.sin(theta), color=COLOURS[i], ls="--")
        left.set(xlabel="angle θ (rad)", ylabel="rate (rad/s²)")
        left.set_title("solid: expert, dashed: added to f_a\ngrey: their sum, always the same")
        left.legend(loc="upper right")
        names = {
            "data": "norm, along the data",
            "reflected": "norm, reflected states",
            "gauge": "gauge, reflected states",
        }
        for i, (key, label) in enumerate(names.items()):
            right.plot(c, found[key], color=COLOURS[i], label=label)
            at = found[key].argmin()
            right.plot(c[at], found[key][at], "o", color=COLOURS[i])
        right.axvline(0.0, color="black", lw=0.8, ls=":")
        right.set(
            xlabel="shift c of ω₀² (rad²/s²)", ylabel="penalty (rad²/s⁴)", ylim=(-0.02, 0.48)
        )
        right.set_title("the fit is the same for every c;\na dot is what each penalty chooses")
        right.legend(loc="upper center")
        plots.save(fig, TARGET)
    return least


if __name__ == "__main__":
    print(draw())
