"""The models with flows, by degrees of supervision, and how any model is read from its checkpoint."""

from pathlib import Path

import torch

from . import baselines
from .base import SequenceVAE
from .supervised import FlowVAE
from .unsupervised import UnsupervisedFlowVAE
from .weak import WeakFlowVAE

__all__ = ["FlowVAE", "UnsupervisedFlowVAE", "WeakFlowVAE", "load_model"]


def load_model(checkpoint: Path) -> SequenceVAE:
    """The model of a checkpoint, whatever its class, in `eval` mode on the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is no checkpoint of these models.
    """
    if not checkpoint.is_file():
        raise FileNotFoundError(f"{checkpoint}: expected a checkpoint, found no such file. Train one with train.py.")
    content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    others = [getattr(baselines, name) for name in baselines.__all__]
    classes = {cls.__name__: cls for cls in (FlowVAE, WeakFlowVAE, UnsupervisedFlowVAE, *others)}
    if content.get("model_class") not in classes:
        raise ValueError(
            f"{checkpoint}: expected a checkpoint of {', '.join(classes)}, got {content.get('model_class')}."
        )
    return classes[content["model_class"]].load_from_checkpoint(checkpoint, map_location="cpu").eval()
