"""Learners: networks that stand beside, or instead of, an expert."""

from hybridgen.models.aphynity import APHYNITY
from hybridgen.models.base import HybridModel, Inferred, Latents, Loss, Prediction
from hybridgen.models.blackbox import NeuralODE
from hybridgen.models.encoders import Convolutional
from hybridgen.models.objectives import OBJECTIVES
from hybridgen.models.residual import Residual

__all__ = [
    "APHYNITY",
    "OBJECTIVES",
    "Convolutional",
    "HybridModel",
    "Inferred",
    "Latents",
    "Loss",
    "NeuralODE",
    "Prediction",
    "Residual",
]
