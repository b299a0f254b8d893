"""Draw `local_minima.png`: the misfit of one pendulum, as a function of its frequency.

Left: an observed pendulum, and what an undamped one does that is a little too slow. Right: the
mean squared misfit of the undamped pendulum for each frequency, over longer and longer windows; a
dot is a local minimum. Run: `python docs/explanation/local_minima.py`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from hybridgen.simulators import pendulum

from hybridgen import plots, solve

TARGET = Path(__file__).with_suffix(".png")
OMEGA0, ALPHA, THETA0 = 2.0, 0.1, 1.0
WINDOWS = (5.0, 10.0, 20.0)
COLOURS = ("#E69F00", "#009E73", "#0072B2")


def misfits() -> tuple[np.ndarray, np.ndarray, dict[float, np.ndarray]]:
    """Return frequencies, the two trajectories with their times, and the misfits by window."""
    t = torch.linspace(0.0, 20.0, 201, dtype=torch.float64)
    omega0 = torch.linspace(0.5, 3.5, 301, dtype=torch.float64)
    start = torch.tensor([[THETA0, 0.0]], dtype=torch.float64)
    seen = solve(pendulum.truth, start, t, torch.tensor([[OMEGA0, ALPHA]], dtype=torch.float64)).y
    tried = solve(pendulum.expert, start.expand(301, -1), t, omega0[:, None]).y
    squared = ((tried - seen)[..., 0] ** 2).numpy()
    found = {w: squared[:, t.numpy() <= w].mean(1) for w in WINDOWS}
    slow = tried[int((omega0 - 1.7).abs().argmin())]
    return omega0.numpy(), torch.stack([t, seen[0, :, 0], slow[:, 0]]).numpy(), found


def minima(y: np.ndarray) -> np.ndarray:
    """Return the indices of the local minima of a curve."""
    return np.flatnonzero((y[1:-1] < y[:-2]) & (y[1:-1] < y[2:])) + 1


def draw() -> dict[float, int]:
    """Draw the picture and return how many local minima there are for each window."""
    omega0, paths, found = misfits()
    with plots.style():
        fig = plots.figure(8.6, 3.3)
        left, right = fig.subplots(1, 2, width_ratios=(1.0, 1.1))
        left.plot(paths[0], paths[1], color="black", label="observed")
        left.plot(paths[0], paths[2], color=COLOURS[0], label="expert, ω₀ = 1.7 rad/s")
        left.set(xlabel="time (s)", ylabel="angle θ (rad)", ylim=(-1.1, 1.5))
        left.legend(loc="upper right", ncols=2)
        for colour, (window, y) in zip(COLOURS, found.items(), strict=True):
            right.plot(omega0, y, color=colour, label=f"window of {window:g} s")
            right.plot(omega0[minima(y)], y[minima(y)], "o", color=colour, ms=3.5)
        right.axvline(OMEGA0, color="black", lw=0.8, ls=":")
        right.set(xlabel="frequency ω₀ (rad/s)", ylabel="misfit (rad²)", ylim=(0.0, None))
        right.legend(loc="lower right")
        plots.save(fig, TARGET)
    return {w: len(minima(y)) for w, y in found.items()}


if __name__ == "__main__":
    print(draw())
