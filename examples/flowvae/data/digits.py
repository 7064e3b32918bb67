"""Still digits, split into disjoint training, validation and test sets."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .idx import OFFICIAL, DataError, read_mnist


class Split(NamedTuple):
    """Grey images in [0, 1], `[N, 1, 28, 28]`, in three disjoint parts, and the name of where they come from."""

    train: Tensor
    val: Tensor
    test: Tensor
    name: str


def load_digits(root: Path | None) -> Split:
    """MNIST from its IDX files in `root`, or scikit-learn's embedded handwritten digits without one.

    With all four MNIST files the last 5,000 training images validate. With the t10k pair alone its images 0–7,999
    train, 8,000–8,999 validate and 9,000–9,999 test. The embedded digits are 1,797 real ones of 8×8 pixels, enlarged
    to 20×20 within 28×28 as MNIST's are, and split 1,437 / 180 / 180 after a fixed shuffle.

    Raises:
        DataError: If the files are missing or damaged.
    """
    if root is None:
        return _embedded_digits()
    test, test_labels = read_mnist(root, "t10k")
    if any(root.glob("train-images-idx3-ubyte*")):
        train, labels = read_mnist(root, "train")
        if len(train) <= 5000:
            raise DataError(f"{root}: expected more than 5,000 training images, as 5,000 validate, got {len(train)}.")
        return Split(train[:-5000], train[-5000:], test, _name(train=labels, t10k=test_labels))
    if len(test) < 10:
        raise DataError(f"{root}: expected at least ten images to split, got {len(test)}.")
    first, second = len(test) * 8 // 10, len(test) * 9 // 10
    return Split(test[:first], test[first:second], test[second:], f"{_name(t10k=test_labels)} (t10k pair)")


def _name(**labels: Tensor) -> str:
    # Other images come in files of these names too, some as many, but of each class a number of its own.
    official = all(found.bincount(minlength=10).tolist() == OFFICIAL[part] for part, found in labels.items())
    return "MNIST" if official else f"{sum(map(len, labels.values())):,} images in MNIST's format"


def _embedded_digits() -> Split:
    from sklearn.datasets import load_digits as load

    images = torch.as_tensor(load().images, dtype=torch.float32)[:, None] / 16
    images = F.interpolate(images, size=(20, 20), mode="bicubic", align_corners=False).clamp(0, 1)
    images = F.pad(images, (4, 4, 4, 4))
    images = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(0))]
    return Split(*images.split([len(images) - 360, 180, 180]), "scikit-learn's digits")
