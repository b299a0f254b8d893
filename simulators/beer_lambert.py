r"""Absorption spectra of mixed dyes, and an expert that knows only the law of Beer and Lambert.

.. math:: A(\lambda) = d \sum_i c_i\, \varepsilon_i(\lambda)

for three dyes in a cuvette of :math:`d` = 1 cm, whose absorptivities :math:`\varepsilon_i` are
sums of Gaussian bands (idealised, after tartrazine, allura red and brilliant blue). It is no
differential equation: the response is sampled along the wavelength. :math:`z_e` holds the
concentrations. What the instrument adds is unknown to the expert. In `scattering` that is a turbid
baseline, as small particles make it,

.. math:: A_{obs} = A + k\, (\lambda / \lambda_0)^{-4}, \qquad \lambda_0 = 500\ \mathrm{nm},

with :math:`z_a = k`; in `stray_light` it is light that misses the sample, which saturates the
scale,

.. math:: A_{obs} = -\log_{10} \frac{10^{-A} + s}{1 + s},

with :math:`z_a = s`.

References:
    Bestimmung der Absorption des rothen Lichts in farbigen Flüssigkeiten (Beer, 1852),
    doi:10.1002/andp.18521620505
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from hybridgen.expert import Expert
from hybridgen.noise import GaussianNoise
from hybridgen.params import Param, State, Values
from hybridgen.shift import Shift
from hybridgen.simulator import Simulator

__all__ = [
    "BANDS",
    "PATH",
    "absorbance",
    "absorptivity",
    "expert",
    "scattering",
    "simulator",
    "stray_light",
    "truth",
    "variants",
]

PATH = 1.0
"""Length of the cuvette in cm."""

BANDS = {
    "yellow": ((25.0, 427.0, 28.0), (12.0, 400.0, 40.0)),
    "red": ((24.0, 504.0, 30.0), (9.0, 535.0, 22.0)),
    "blue": ((30.0, 630.0, 18.0), (7.0, 590.0, 25.0), (4.0, 410.0, 20.0)),
}
"""The bands of each dye: height in L/(mmol cm), centre and standard deviation in nm."""


def absorptivity(dye: str, wavelength: Tensor) -> Tensor:
    """Return the absorptivity of a dye.

    Arguments:
        dye: One of `BANDS`.
        wavelength: In nm, with any shape.

    Returns:
        Absorptivities in L/(mmol cm), with the same shape.

    Example:
        >>> absorptivity("red", torch.tensor([504.0, 700.0])).round()
        tensor([27.,  0.])
    """
    bands = [h * torch.exp(-0.5 * ((wavelength - c) / w) ** 2) for h, c, w in BANDS[dye]]
    return torch.stack(bands).sum(0)


def absorbance(x: Values, z_e: Values) -> Tensor:
    """Return the absorbance of a mixture by the law of Beer and Lambert.

    Arguments:
        x: `wavelength` in nm, with shape `(*B, T)`.
        z_e: `yellow`, `red` and `blue` in mmol/L, each with shape `(*B, 1)`.

    Returns:
        Absorbances, with shape `(*B, T)`.
    """
    parts = [getattr(z_e, dye) * absorptivity(dye, x.wavelength) for dye in BANDS]
    return PATH * torch.stack(parts).sum(0)


def scattering(x: Values, z: Values) -> Tensor:
    """Return the absorbance of a turbid mixture; as `absorbance`, and `k` with shape `(*B, 1)`."""
    return absorbance(x, z) + z.k * (x.wavelength / 500.0) ** -4


def stray_light(x: Values, z: Values) -> Tensor:
    """Return the absorbance seen with stray light; as `absorbance`, and `s` as part of all."""
    transmitted = 10.0 ** -absorbance(x, z)
    return -torch.log10((transmitted + z.s) / (1.0 + z.s))


_inputs = (State("wavelength", "nm", low=400.0, high=700.0),)
_outputs = (State("absorbance", "1"),)
_params = tuple(Param(dye, "mmol/L", 0.005, 0.1) for dye in BANDS)

expert = Expert(absorbance, _inputs, _outputs, _params)


def _all(low: float, high: float) -> dict[str, tuple[float, float]]:
    return dict.fromkeys(BANDS, (low, high))


def _shifts(name: str, unit: float) -> tuple[Shift, ...]:
    """Return the shifts, `unit` the width of the training interval of the parameter `name`."""
    small, medium, large = (
        {name: (low * unit, high * unit)} for low, high in ((0.5, 1.0), (1.0, 2.0), (2.0, 5.0))
    )
    return (
        Shift("ood", _all(0.03, 0.1), what="more of all dyes"),
        Shift("near", _all(0.03, 0.05), what="a little more of all dyes than in training"),
        Shift("mid", _all(0.05, 0.075), what="more of all dyes than in training"),
        Shift("far", _all(0.075, 0.1), what="much more of all dyes than in training"),
        Shift("joint_small", {**_all(0.03, 0.1), **small}, what="an instrument as known"),
        Shift("joint_medium", {**_all(0.03, 0.1), **medium}, what="a worse instrument"),
        Shift("joint_large", {**_all(0.03, 0.1), **large}, what="a far worse instrument"),
    )


def _simulator(function: Callable[..., Tensor], extra: Param) -> Simulator:
    width = extra.high / 5.0
    return Simulator(
        truth=Expert(function, _inputs, _outputs, (*_params, extra)),
        expert=expert,
        support={**_all(0.005, 0.03), extra.name: (0.0, width)},
        times=np.linspace(400.0, 700.0, 101),
        window=101,
        noise=GaussianNoise(0.002),
        shifts={s.name: s for s in _shifts(extra.name, width)},
        problem="beer_lambert",
        variant=function.__name__,
    )


variants = {
    "scattering": _simulator(scattering, Param("k", "1", 0.0, 1.0)),
    "stray_light": _simulator(stray_light, Param("s", "1", 0.0, 0.1)),
}
simulator = variants["scattering"]
truth = simulator.truth
