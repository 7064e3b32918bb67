"""Train, validate and test a model from a YAML file.

python examples/train.py fit --config examples/configs/digits/supervised.yaml
python examples/train.py test --config examples/configs/digits/supervised.yaml --ckpt_path last
"""

import warnings

from flowvae.base import SequenceVAE
from flowvae.data.sequences import DigitsData
from lightning.pytorch.cli import LightningCLI


def main(arguments: list[str] | None = None) -> LightningCLI:
    """Run the command line, or the given arguments."""
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    return LightningCLI(
        SequenceVAE,
        DigitsData,
        subclass_mode_model=True,
        args=arguments,
        save_config_kwargs={"overwrite": True},
        # The data module draws new sequences every epoch.
        trainer_defaults={"reload_dataloaders_every_n_epochs": 1},
    )


if __name__ == "__main__":
    main()
