"""Learned flows in latent space: vector fields that are the transformations of the data."""

from torchflowfield.autograd import AutogradPotential
from torchflowfield.bank import BoundField, FlowBank
from torchflowfield.custom import ModuleField
from torchflowfield.diffusion import DiffusionPrior
from torchflowfield.fields import HelmholtzFlowField, HelmholtzParts, PotentialFlowField, RotationalFlowField
from torchflowfield.interface import FlowField, Jet
from torchflowfield.losses import DynamicOTLoss, Forcing, OTTerms, PathKL, PathKLTerms
from torchflowfield.path import FlowPath
from torchflowfield.posteriors import Annealing, FlowChoice, FlowSelector, SpikeSlabPosterior
from torchflowfield.priors import SpikeSlab, SpikeSlabKL, SpikeSlabPrior
from torchflowfield.stepper import ODEStepper
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
