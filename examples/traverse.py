"""Draw the flows of a model of digits: each alone, switched, superposed and reversed, as PNG and GIF.

python examples/traverse.py runs/digits/supervised/last.ckpt --output pictures
"""

from pathlib import Path

from flowvae.data.digits import load_digits
from flowvae.data.transforms import FACTORS
from flowvae.model import FlowVAE, load_model
from flowvae.pictures import draw_flows
from jsonargparse import auto_cli


def traverse(
    checkpoint: Path, output: Path = Path("pictures"), root: Path | None = None, steps: int = 5, samples: int = 6
) -> list[Path]:
    """Draw the flows of a model that was trained on digits.

    Args:
        checkpoint: File that training wrote.
        output: Folder for the pictures.
        root: Folder with MNIST's IDX files; scikit-learn's digits without one.
        steps: Frames after the first.
        samples: Digits in a picture.
    """
    model = load_model(checkpoint)
    if not isinstance(model, FlowVAE):
        raise ValueError(f"{checkpoint}: expected a model with flows, got {type(model).__name__}.")
    names = list(FACTORS) if type(model) is FlowVAE else None
    files = draw_flows(model, load_digits(root), output, steps=steps, samples=samples, names=names)
    print("\n".join(str(file) for file in files))
    return files


if __name__ == "__main__":
    auto_cli(traverse, as_positional=True)
