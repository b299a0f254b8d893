"""Integration of ordinary differential equations: members fail, batches don't.

`solve` integrates a batch and says how each member fared; `odeint` is a drop-in for
torchdiffeq's.
"""

from hybridgen.integrate.compilation import repeated
from hybridgen.integrate.diffusion import Diffusion
from hybridgen.integrate.dropin import IntegrationError, odeint
from hybridgen.integrate.events import Event
from hybridgen.integrate.native import solve
from hybridgen.integrate.solution import Solution, Status

__all__ = [
    "Diffusion",
    "Event",
    "IntegrationError",
    "Solution",
    "Status",
    "odeint",
    "repeated",
    "solve",
]
