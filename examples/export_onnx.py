"""Export a trained supervised model to ONNX for the flow explorer of the site, or for any other ONNX runtime.

python examples/export_onnx.py runs/mnist/supervised/last.ckpt --root data/mnist --output docs/assets/explorer
"""

import json
import math
import warnings
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import onnx
import onnxruntime
import torch
from flowvae.data.digits import Split, load_digits
from flowvae.data.idx import read_mnist
from flowvae.data.transforms import FACTORS, render
from flowvae.model import FlowVAE, load_model
from jsonargparse import auto_cli
from torch import Tensor, nn

from torchflowfield import FlowBank

OPSET = 18
TOLERANCE = 1e-4
INPUTS = {"encoder": ["frames"], "step": ["z", "weights", "time"], "decoder": ["z"]}
OUTPUTS = {"encoder": ["z"], "step": ["z_next", "jacobian"], "decoder": ["frames"]}


class EncoderMean(nn.Module):
    """Frames `[N, 3, 28, 28]` in [0, 1] to the mean of their code `[N, D]`, in float32 throughout."""

    def __init__(self, model: FlowVAE) -> None:
        super().__init__()
        self.encoder = model.encoder

    def forward(self, frames: Tensor) -> Tensor:
        return self.encoder(3 * frames).chunk(2, -1)[0]


class BankStep(nn.Module):
    """One Euler step of the mixture, `z + Σ_k g_k v_k(t, z)`, and the step's Jacobian in closed form.

    The Jacobian `[N, D, D]` lets the explorer go back by Newton's method: a fixed-point iteration does not converge for
    flows as fast as these.
    """

    def __init__(self, bank: FlowBank) -> None:
        super().__init__()
        self.bank = bank

    def forward(self, z: Tensor, weights: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        mixture = self.bank.bind(weights)
        return z + mixture(time, z), torch.eye(z.shape[-1]) + mixture.jacobian(time, z)


class DecoderFrames(nn.Module):
    """Codes `[N, D]` to frames `[N, 3, 28, 28]` in [0, 1]."""

    def __init__(self, model: FlowVAE) -> None:
        super().__init__()
        self.decoder = model.decoder

    def forward(self, z: Tensor) -> Tensor:
        return self.decoder(z).sigmoid()


def export_onnx(
    checkpoint: Path,
    output: Path = Path("explorer"),
    root: Path | None = None,
    steps: int = 8,
) -> None:
    """Write three networks, ten test digits and their description, after checking the networks against PyTorch.

    Args:
        checkpoint: File that training wrote, of a supervised model: flow k is transformation k.
        output: Folder for the files.
        root: Folder with MNIST's IDX files, as in training; scikit-learn's digits without one.
        steps: Frames after the first on the explorer's time axis.

    Raises:
        ValueError: If the model is not a supervised one of three flows.
        RuntimeError: If ONNX Runtime and PyTorch differ by more than 1e-4.
    """
    model = load_model(checkpoint)
    if type(model) is not FlowVAE or model.flows.num_controls != len(FACTORS):
        raise ValueError(
            f"{checkpoint}: expected a supervised FlowVAE with one flow for each of {', '.join(FACTORS)}, got "
            f"{type(model).__name__} with {model.flows.num_controls} controls. Train configs/mnist/supervised.yaml."
        )
    split = load_digits(root)
    digits, labels = choose_digits(split, root)
    hues = 2 * math.pi * torch.arange(len(digits)) / len(digits)
    frames = render(digits, torch.stack((torch.zeros_like(hues), torch.zeros_like(hues), hues), -1)[:, None])[:, 0]
    networks = {"encoder": EncoderMean(model), "step": BankStep(model.flows), "decoder": DecoderFrames(model)}
    output.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        z = networks["encoder"](frames)
        moving = (z, torch.tensor([0.5, 1.0, 1.5]), torch.tensor(2.5))
        inputs = {"encoder": (frames,), "step": moving, "decoder": (z,)}
        for name, network in networks.items():
            file = output / f"{name}.onnx"
            export(network, inputs[name], name, file)
            difference = check(network, inputs[name], file)
            print(f"{file}: {file.stat().st_size / 1e6:.2f} MB, differs from PyTorch by at most {difference:.1e}")
    sprite = (255 * frames.permute(2, 0, 3, 1).flatten(1, 2)).round().to(torch.uint8)
    imageio.imwrite(output / "digits.png", sprite.numpy())
    description = {
        "data": split.name,
        "flows": list(FACTORS),
        "labels": labels,
        "steps": steps,
        "start": 1.0,
        "latent": z.shape[-1],
        "size": list(frames.shape[1:]),
    }
    (output / "explorer.json").write_text(json.dumps(description, indent=2) + "\n")


def choose_digits(split: Split, root: Path | None) -> tuple[Tensor, list[int] | None]:
    """Ten test digits `[10, 1, 28, 28]`: the first of every class where labels are known, else the first ten."""
    if root is None:
        return split.test[:10], None
    # The test digits are the last of the t10k pair, whether it is whole or split.
    labels = read_mnist(root, "t10k")[1][-len(split.test) :]
    first = [int((labels == k).nonzero()[0]) for k in range(10)]
    return split.test[first], list(range(10))


def export(network: nn.Module, inputs: tuple[Tensor, ...], name: str, file: Path) -> None:
    """Write one network to a self-contained file; the number of samples stays free."""
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(),
            inputs,
            file,
            input_names=INPUTS[name],
            output_names=OUTPUTS[name],
            dynamic_shapes=({0: batch}, None, None)[: len(inputs)],
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    strip(file)


def strip(file: Path) -> None:
    """Take out the exporter's notes: they hold the paths of the machine, and nothing that a page needs."""
    model = onnx.load(file)
    del model.metadata_props[:]
    for owner in (model.graph, *model.functions):
        parts = [owner, *owner.node, *owner.value_info]
        if isinstance(owner, onnx.GraphProto):
            parts += [*owner.input, *owner.output, *owner.initializer]
        for part in parts:
            part.ClearField("metadata_props")
            part.ClearField("doc_string")
    onnx.save(model, file)


def check(network: nn.Module, inputs: tuple[Tensor, ...], file: Path) -> float:
    """Largest difference between ONNX Runtime and PyTorch, for the given number of samples and for one.

    Raises:
        RuntimeError: If it exceeds the tolerance.
    """
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    worst = 0.0
    for count in (len(inputs[0]), 1):
        given = (inputs[0][:count], *inputs[1:])
        got = session.run(None, {name: x.numpy() for name, x in zip(names, given, strict=True)})
        wanted = network(*given)
        wanted = wanted if isinstance(wanted, tuple) else (wanted,)
        worst = max(worst, *(float(np.abs(g - w.numpy()).max()) for g, w in zip(got, wanted, strict=True)))
    if not worst <= TOLERANCE:
        raise RuntimeError(f"{file}: expected ONNX Runtime within {TOLERANCE} of PyTorch, got {worst:.1e}.")
    return worst


if __name__ == "__main__":
    auto_cli(export_onnx, as_positional=True)
