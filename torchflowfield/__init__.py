"""Learned flows in latent space: vector fields that are the transformations of the data."""

from torchflowfield.autograd import AutogradPotential
from torchflowfield.bank import BoundField, FlowBank
from torchflowfield.fields import (
    FlowField,
    HelmholtzFlowField,
    HelmholtzParts,
    ModuleField,
    PotentialFlowField,
    RotationalFlowField,
)
from torchflowfield.losses import DynamicOTLoss, Forcing, OTTerms, PathKL, PathKLTerms
from torchflowfield.posteriors import Annealing, FlowChoice, FlowSelector, SpikeSlabPosterior
from torchflowfield.priors import DiffusionPrior, SpikeSlab, SpikeSlabKL, SpikeSlabPrior
from torchflowfield.ridge import Jet
from torchflowfield.stepper import FlowPath, ODEStepper
from torchflowfield.time import FourierTime

__all__ = [
    "Annealing",
    "AutogradPotential",
    "BoundField",
    "DiffusionPrior",
    "DynamicOTLoss",
    "FlowBank",
    "FlowChoice",
    "FlowField",
    "FlowPath",
    "FlowSelector",
    "Forcing",
    "FourierTime",
    "HelmholtzFlowField",
    "HelmholtzParts",
    "Jet",
    "ModuleField",
    "ODEStepper",
    "OTTerms",
    "PathKL",
    "PathKLTerms",
    "PotentialFlowField",
    "RotationalFlowField",
    "SpikeSlab",
    "SpikeSlabKL",
    "SpikeSlabPosterior",
    "SpikeSlabPrior",
]
