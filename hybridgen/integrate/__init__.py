"""Integration of ordinary differential equations: members fail, batches don't.

`solve` integrates a batch and says how each member fared; `odeint` is a drop-in for
torchdiffeq's.
"""

from hybridgen.integrate.dropin import IntegrationError, odeint
from hybridgen.integrate.native import solve
from hybridgen.integrate.solution import Solution, Status

__all__ = ["IntegrationError", "Solution", "Status", "odeint", "solve"]
