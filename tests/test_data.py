import colorsys
import gzip
import hashlib
import math
import sys
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path.insert(0, str(EXAMPLES))

from flowvae.data.digits import load_digits  # noqa: E402
from flowvae.data.idx import MD5, OFFICIAL, DataError, read_mnist  # noqa: E402
from flowvae.data.sequences import DigitsData, DigitSequences  # noqa: E402
from flowvae.data.transforms import (  # noqa: E402
    FACTORS,
    SCALES,
    hue_to_rgb,
    render,
    scheduled_poses,
    single_factor_poses,
)

REAL_MNIST = Path(__file__).parents[2] / "shared" / "data" / "mnist"


@pytest.fixture(autouse=True)
def float32():
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_default_dtype(torch.float32)


def idx_bytes(array: torch.Tensor) -> bytes:
    header = (2048 + array.ndim).to_bytes(4, "big") + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + bytes(array.flatten().tolist())


@pytest.fixture
def mnist(tmp_path):
    images = torch.randint(0, 256, (20, 28, 28), dtype=torch.uint8)
    labels = torch.randint(0, 10, (20,), dtype=torch.uint8)
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images)))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    return tmp_path, images, labels


def test_plain_and_gzipped_idx_files_are_read_exactly(mnist):
    root, images, labels = mnist
    read, read_labels = read_mnist(root, "t10k")
    assert torch.equal((read[:, 0] * 255).round().to(torch.uint8), images)
    assert torch.equal(read_labels, labels.long())


def test_a_truncated_idx_file_says_what_is_missing(mnist):
    root, images, _ = mnist
    (root / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images)[:-5]))
    with pytest.raises(DataError, match="promises 15680 bytes.*got 15675.*truncated"):
        read_mnist(root, "t10k")


def test_a_truncated_gzip_stream_is_reported(mnist):
    root, images, _ = mnist
    (root / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images))[:-20])
    with pytest.raises(DataError, match="readable IDX file"):
        read_mnist(root, "t10k")


def test_a_damaged_gzip_stream_is_reported(mnist):
    root, images, _ = mnist
    content = bytearray(gzip.compress(idx_bytes(images)))
    content[10] |= 0b110  # a kind of block that does not exist
    (root / "t10k-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(DataError, match="readable IDX file.*invalid block type"):
        read_mnist(root, "t10k")


def test_a_mislabelled_file_is_reported(mnist):
    root, images, labels = mnist
    (root / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(images))
    with pytest.raises(DataError, match="expected 20 labels"):
        read_mnist(root, "t10k")
    (root / "t10k-labels-idx1-ubyte").write_bytes(b"\x89PNG" + b"0" * 50)
    with pytest.raises(DataError, match="starts with 2051"):
        read_mnist(root, "t10k")
    (root / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(labels[:10]))
    with pytest.raises(DataError, match="expected 20 labels"):
        read_mnist(root, "t10k")


def test_a_missing_folder_and_a_missing_file_are_reported(tmp_path):
    with pytest.raises(DataError, match="expected a folder.*--data.root"):
        load_digits(tmp_path / "nowhere")
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte.gz: expected MNIST there.*ossci-datasets"):
        load_digits(tmp_path)


def test_files_of_mnists_names_are_mnist_if_they_have_as_many_of_every_digit(mnist, monkeypatch):
    root, images, labels = mnist
    monkeypatch.setitem(OFFICIAL, "t10k", [2] * 10)
    (root / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(torch.tensor([*range(10), *range(10)])))
    assert load_digits(root).name == "MNIST (t10k pair)"
    (root / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(torch.tensor([*range(10), *range(9), 1])))
    assert load_digits(root).name == "20 images in MNIST's format (t10k pair)"
    monkeypatch.setitem(OFFICIAL, "t10k", [2, 3, 2, 2, 2, 2, 2, 2, 2, 1])
    assert load_digits(root).name == "MNIST (t10k pair)"
    (root / "train-images-idx3-ubyte").write_bytes(idx_bytes(images))
    (root / "train-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    with pytest.raises(DataError, match="more than 5,000 training images.*got 20"):
        load_digits(root)


def test_empty_files_are_reported(tmp_path):
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(torch.zeros(0, 28, 28)))
    with pytest.raises(DataError, match=r"expected images or labels, got none, shape \(0, 28, 28\)"):
        load_digits(tmp_path)


def test_all_of_mnist_is_named_by_its_digits():
    assert [sum(OFFICIAL[part]) for part in ("train", "t10k")] == [60_000, 10_000]


@pytest.mark.skipif(not REAL_MNIST.is_dir(), reason="the MNIST pair is not here")
def test_the_real_pair_is_mnist():
    assert load_digits(REAL_MNIST).name == "MNIST (t10k pair)"


@pytest.mark.skipif(not REAL_MNIST.is_dir(), reason="the MNIST pair is not here")
@pytest.mark.parametrize("name", ["t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"])
def test_the_official_files_have_the_checksums_that_are_stated(name):
    assert hashlib.md5((REAL_MNIST / name).read_bytes()).hexdigest() == MD5[name]


@pytest.mark.parametrize("root", [None, REAL_MNIST], ids=["embedded", "mnist"])
def test_training_validation_and_test_digits_are_disjoint(root):
    if root is not None and not root.is_dir():
        pytest.skip("the MNIST pair is not here")
    parts = [{image.numpy().tobytes() for image in part} for part in load_digits(root)[:3]]
    for i in range(3):
        assert len(parts[i]) > 100
        for j in range(i):
            assert not parts[i] & parts[j]


def test_hue_is_that_of_the_standard_library_and_in_radians():
    for hue in torch.linspace(0, 2 * math.pi, 30):
        expected = colorsys.hsv_to_rgb(float(hue) / (2 * math.pi), 1, 1)
        assert torch.allclose(hue_to_rgb(hue), torch.tensor(expected), atol=1e-5)


def test_rendering_at_rest_gives_the_image_in_red():
    image = torch.rand(2, 1, 28, 28)
    frames = render(image, torch.zeros(2, 1, 3))
    assert torch.allclose(frames[:, 0, :1], image, atol=1e-5)
    assert frames[:, 0, 1:].abs().max() == 0


def test_a_quarter_turn_is_exact():
    image = torch.rand(1, 1, 28, 28)
    turned = render(image, torch.tensor([[[0.0, math.pi / 2, 0.0]]]))[0, 0, 0]
    difference = min((turned - torch.rot90(image[0, 0], k)).abs().max() for k in (1, 3))
    assert difference < 1e-4


def test_one_factor_moves_and_the_others_rest():
    factor = torch.tensor([0, 1, 2])
    poses = single_factor_poses(factor, 5, torch.Generator().manual_seed(0))
    moves = poses - poses[:, :1]
    expected = torch.zeros(3, 6, 3)
    t = torch.arange(6.0)
    expected[0, :, 0] = (1 + 0.1 * t).log()
    expected[1, :, 1] = math.radians(10) * t
    expected[2, :, 2] = math.radians(20) * t
    assert torch.allclose(moves, expected, atol=1e-5)


def test_scheduled_steps_accumulate_within_the_range_of_scales():
    weights = torch.rand(200, 5, 3).round() * 1.2
    poses = scheduled_poses(weights, torch.Generator().manual_seed(0))
    steps = poses.diff(dim=1)
    assert torch.allclose(steps[..., 0], (1 + 0.1 * weights[..., 0]).log(), atol=1e-5)
    assert torch.allclose(steps[..., 1], math.radians(20) * weights[..., 1], atol=1e-5)
    assert poses[..., 0].min() > math.log(SCALES[0]) - 1e-5
    assert poses[..., 0].max() < math.log(SCALES[1]) + 1e-5


@pytest.mark.parametrize("motion", ["single", "spikes", "speeds"])
def test_sequences_repeat_with_their_seed_and_differ_with_another(motion):
    images = torch.rand(10, 1, 28, 28)
    first, again, other = (
        DigitSequences(images, motion, steps=3, length=64, seed=seed).__getitems__(list(range(8))) for seed in (1, 1, 2)
    )
    assert torch.equal(first["frames"], again["frames"])
    assert not torch.equal(first["frames"], other["frames"])
    assert first["frames"].shape == (8, 4, 3, 28, 28)
    assert first["frames"].min() >= 0
    assert first["frames"].max() <= 1
    assert (first["weights"] != 0).any(-1).all()


def test_making_sequences_leaves_the_global_random_state_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    DigitSequences(torch.rand(4, 1, 28, 28, generator=torch.Generator()), "speeds", steps=3, length=8, seed=0)[0]
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("motion", ["spikes", "speeds"])
def test_a_schedule_heeds_no_other_generator_and_names_no_factor(motion, monkeypatch):
    monkeypatch.setattr(torch, "manual_seed", lambda seed: pytest.fail("it seeds GPUs too"))
    data = DigitSequences(torch.rand(4, 1, 28, 28, generator=torch.Generator()), motion, steps=3, length=8, seed=0)
    assert data.__getitems__([0, 1])["factor"].tolist() == [-1, -1]


def fingerprint(loader):
    digest = hashlib.sha256()
    for batch in loader:
        for value in batch.values():
            digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def test_worker_processes_change_nothing():
    alone, helped = (DigitsData(motion="spikes", epoch=300, workers=workers) for workers in (0, 2))
    assert fingerprint(alone.train_dataloader()) == fingerprint(helped.train_dataloader())


def test_neither_batch_size_nor_workers_change_what_is_validated_and_tested():
    default, others = DigitsData(motion="spikes"), DigitsData(motion="spikes", batch_size=48, workers=2)
    expected = [fingerprint(loader) for loader in (default.val_dataloader(), *default.test_dataloader())]
    assert [fingerprint(loader) for loader in (others.val_dataloader(), *others.test_dataloader())] == expected
    assert len(next(iter(others.train_dataloader()))["frames"]) == 48


def test_the_coefficients_of_a_seed_stay_those_of_the_published_results():
    """Spikes and factors are exact numbers, unlike rendered pixels, so one digest serves every machine."""
    data = DigitsData(motion="spikes", epoch=256)
    digest = hashlib.sha256()
    for loader in (data.train_dataloader(), data.val_dataloader(), *data.test_dataloader()):
        for batch in loader:
            digest.update(batch["weights"].to(torch.uint8).contiguous().numpy().tobytes())
            digest.update(batch["factor"].to(torch.uint8).numpy().tobytes())
    assert digest.hexdigest() == "a3964e881f5bffc0906ff346cfc5a5921c9f46ee53764ff2f13507c6d37a33a9"


def test_digits_say_what_they_are_and_what_moves():
    data = DigitsData()
    assert data.name == "scikit-learn's digits"
    assert data.image_size == 28
    assert data.factors == FACTORS
    assert len(data.test_dataloader()) == len(FACTORS) + 1


def test_sequences_without_a_step_are_an_error():
    with pytest.raises(ValueError, match="DigitsData: expected one step or more, got 0"):
        DigitsData(steps=0)
