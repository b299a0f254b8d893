"""Diagnostics: what the data say about parameters, residual and expert. Arrays out, no plots."""

from hybridgen.diagnostics.fits import best_fit
from hybridgen.diagnostics.gauge import Identification, identification
from hybridgen.diagnostics.parameters import Identifiability, Parameter, identifiability
from hybridgen.diagnostics.whiteness import Misspecification, misspecification

__all__ = [
    "Identifiability",
    "Identification",
    "Misspecification",
    "Parameter",
    "best_fit",
    "identifiability",
    "identification",
    "misspecification",
]
