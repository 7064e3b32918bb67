import sys
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path.insert(0, str(EXAMPLES))

from flowvae.model import FlowVAE  # noqa: E402
from lightning import Trainer  # noqa: E402
from traverse import traverse  # noqa: E402


@pytest.fixture(autouse=True)
def float32():
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (
            {"image_size": 64},
            "3 flows of frames of 28×28 pixels for scikit-learn's digits, got 3 flows of frames of 64×64",
        ),
        ({"fields": 5}, "got 5 flows of frames of 28×28 pixels.*DigitsData; reproduce.py latent_evolution"),
    ],
)
def test_flows_of_other_data_than_digits_are_an_error_that_says_what_draws_them(options, match, tmp_path):
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False)
    trainer.strategy.connect(FlowVAE(latent=4, width=4, **options))
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    with pytest.raises(ValueError, match=match):
        traverse(tmp_path / "model.ckpt", tmp_path / "pictures")
    assert not (tmp_path / "pictures").exists()
