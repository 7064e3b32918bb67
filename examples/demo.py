"""The main job, start to end: train on real digits, print the errors, draw the flows.

python examples/demo.py
"""

import sys
import time
from pathlib import Path

from flowvae.data.transforms import FACTORS
from flowvae.model import FlowVAE
from flowvae.pictures import draw_flows
from jsonargparse import auto_cli
from train import main as train

CONFIG = Path(__file__).parent / "configs" / "digits" / "supervised.yaml"


def demo(output: Path = Path("runs/demo"), max_steps: int | None = None) -> None:
    """Train a FlowVAE on scikit-learn's handwritten digits and show what its flows learnt.

    Args:
        output: Folder for the checkpoint, the figures and the pictures.
        max_steps: Training steps, instead of the configured number.
    """
    started = time.monotonic()
    arguments = ["fit", "--config", str(CONFIG), "--trainer.default_root_dir", str(output)]
    arguments += ["--trainer.enable_model_summary", "false"]
    if max_steps is not None:
        arguments += ["--trainer.max_steps", str(max_steps)]
    cli = train(arguments)
    trained = time.monotonic() - started
    checkpoint = output / "flowvae.ckpt"
    cli.trainer.save_checkpoint(checkpoint)
    cli.trainer.test(cli.model, cli.datamodule, verbose=False)
    model: FlowVAE = cli.model
    files = draw_flows(
        model, cli.datamodule.split, output / "pictures", steps=cli.datamodule.steps, names=list(FACTORS)
    )
    print(f"\nTrained in {trained:.0f} s. The checkpoint: {checkpoint}")
    print(f"Pictures and GIFs in {output / 'pictures'}:")
    for file in files:
        print(f"  {file.name}")
    print(f"Start with {files[1]}; draw more with: {_python()} examples/traverse.py {checkpoint}")


def _python() -> str:
    """How this interpreter is called from here; `make` does not put it on the path."""
    own, here = Path(sys.executable), Path.cwd()
    return str(own.relative_to(here) if own.is_relative_to(here) else own)


if __name__ == "__main__":
    auto_cli(demo)
