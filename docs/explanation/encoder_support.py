"""Draw `encoder_support.png`: out of distribution the encoder fails first, not the decoder.

A hybrid is trained on pendulums with omega_0 in 1.5-3.1 rad/s, then its encoder alone on expert
augmentations, with the settings of `hybridgen demo`. Both encoders feed the same decoder. Run:
`python docs/explanation/encoder_support.py`, about a minute.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr
from hybridgen.simulators import pendulum

from hybridgen import APHYNITY, FitConfig, Stage, expert_augment, fit, plots
from hybridgen.io import to_batch
from hybridgen.models import HybridModel
from hybridgen.naming import colour, label

TARGET = Path(__file__).with_suffix(".png")
SUPERVISED = Stage(objective="supervised", steps=1000, learning_rate=2e-3)


def train() -> dict[str, HybridModel]:
    """Return the hybrid before and after expert augmentation."""
    sim = pendulum.simulator
    data, valid = (sim.sample(n, seed=0, split=s) for n, s in ((500, "train"), (100, "valid")))
    plain, _ = fit(APHYNITY(pendulum.expert), data, valid, FitConfig(stages=(Stage(steps=700),)))
    robust, _ = fit(plain, expert_augment(plain, data), config=FitConfig(stages=(SUPERVISED,)))
    return {"aphynity": plain, "aphynity+": robust}


def test_set() -> xr.Dataset:
    """Return pendulums that swing, in and out of support."""
    sim = pendulum.simulator
    parts = [sim.sample(250, seed=0, split="test", shift=s) for s in (None, "ood")]
    data = xr.concat(parts, "sample", combine_attrs="override")
    # a pendulum that hardly moves tells nobody its frequency
    return data.isel(sample=np.flatnonzero(np.abs(data["y"].values[:, 0, 0]) > 0.3))


def draw() -> None:
    """Draw the picture."""
    models, data = train(), test_set()
    true, batch = data["omega0"].values, to_batch(data)
    low, high = pendulum.simulator.support["omega0"]
    with plots.style():
        fig = plots.figure(8.6, 3.6)
        left, right = fig.subplots(1, 2)
        for name, model in models.items():
            predicted = model.predict(None, batch.t, given=batch)
            error = (predicted.y.numpy() - data["y"].values)[:, 49:]
            squared = (error**2).sum(-1).mean(-1)
            look = {"color": colour(name), "label": label(name), "ms": 2.5}
            left.plot(true, predicted.inferred.z_e[:, 0], "o", **look)
            right.plot(true, np.log10(squared), "o", **look)
        left.axline((1.0, 1.0), slope=1.0, color="black", lw=0.8, ls=":")
        left.set(ylabel="inferred ω₀ (rad/s)", title="what each encoder says")
        right.set(
            ylabel="log₁₀ squared error of the forecast", title="what the one decoder makes of it"
        )
        for ax in (left, right):
            ax.axvspan(low, high, color="#dddddd", zorder=0)
            ax.set(xlabel="true ω₀ (rad/s); grey: training support")
        left.legend(loc="upper left")
        plots.save(fig, TARGET)


if __name__ == "__main__":
    draw()
