"""Train, validate and test a model from a YAML file.

python examples/train.py fit --config examples/configs/digits/supervised.yaml
python examples/train.py test --config examples/configs/digits/supervised.yaml --ckpt_path last
python examples/train.py fit --config examples/configs/mnist/vae.yaml --data flowvae.data.shapes3d.Shapes3DData \
    --model.init_args.image_size 64 --model.init_args.fields 5
"""

import os
import signal
import threading
import time
import warnings
from pathlib import Path

from flowvae.base import SequenceVAE
from flowvae.data.sequences import SequenceData
from flowvae.runs import PARENT
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import SIGTERMException


class SequenceCLI(LightningCLI):
    """A model and a data module of any class, digits unless the data's class is given.

    The newest weights are `last.ckpt` in `--trainer.default_root_dir`.
    """

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Name the default data, and keep checkpoints where later commands look for them."""
        parser.set_defaults({"data": {"class_path": "flowvae.data.sequences.DigitsData"}})
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.link_arguments("trainer.default_root_dir", "checkpoint.dirpath")
        parser.set_defaults(
            {"checkpoint.save_last": True, "checkpoint.filename": "step", "checkpoint.enable_version_counter": False}
        )

    def before_instantiate_classes(self) -> None:
        """Look for the newest weights where they are asked for: Lightning would go on with a new model."""
        given = self.config[self.subcommand]
        folder = Path(given.trainer.default_root_dir or ".")
        if self.subcommand != "fit" and given.get("ckpt_path") == "last" and not (folder / "last.ckpt").is_file():
            raise SystemExit(
                f"train: expected weights of an earlier training, last.ckpt, in {folder}, found none. Train first, or "
                f"give the folder of a training as --trainer.default_root_dir."
            )


def end_with_parent() -> None:
    """End as soon as `reproduce.py`, which started this, has ended, in whatever way.

    It gives up its hold on the run then, and the same command would start a second training in the same folder.
    """
    # Taken away, as the further processes of a training on several devices have another parent.
    parent = int(os.environ.pop(PARENT))

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main(arguments: list[str] | None = None) -> LightningCLI:
    """Run the command line, or the given arguments."""
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    try:
        return SequenceCLI(
            SequenceVAE,
            SequenceData,
            subclass_mode_model=True,
            subclass_mode_data=True,
            args=arguments,
            save_config_kwargs={"overwrite": True},
            # Of `--seed` it would make `--seed_everything`.
            parser_kwargs={"allow_abbrev": False},
            # The data module draws new sequences every epoch.
            trainer_defaults={"reload_dataloaders_every_n_epochs": 1},
        )
    except SIGTERMException:
        # Lightning would end as if the training were finished, and its figures be taken for final ones.
        raise SystemExit(128 + signal.SIGTERM) from None


if __name__ == "__main__":
    if PARENT in os.environ:
        end_with_parent()
    main()
