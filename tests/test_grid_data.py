import itertools
import pickle
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path.insert(0, str(EXAMPLES))

from flowvae.data import dsprites as dsprites_module  # noqa: E402
from flowvae.data import grid_images, png_folder, shapes3d  # noqa: E402
from flowvae.data.dsprites import DSpritesData  # noqa: E402
from flowvae.data.files import DataError  # noqa: E402
from flowvae.data.grid_images import grid_sizes  # noqa: E402
from flowvae.data.png_folder import Falcor3DData, Isaac3DData  # noqa: E402
from flowvae.data.shapes3d import Shapes3DData  # noqa: E402
from flowvae.data.split import GridSplit  # noqa: E402

PARTS = ("train", "val", "test")


@pytest.fixture(autouse=True)
def float32_in_a_folder_of_its_own(tmp_path, monkeypatch):
    torch.set_default_dtype(torch.float32)
    monkeypatch.setattr(grid_images, "FRAMES", tmp_path / "frames")
    monkeypatch.setattr(dsprites_module, "FRAMES", tmp_path / "frames")
    monkeypatch.chdir(tmp_path)


def grid(sizes):
    return np.stack(np.meshgrid(*map(np.arange, sizes), indexing="ij"), -1).reshape(-1, len(sizes))


def telling_images(count, size):
    """Images that tell their own number: its bytes are the colour of the whole image."""
    numbers = np.arange(count)
    colours = np.stack((numbers % 256, numbers // 256 % 256, numbers // 65536), -1).astype(np.uint8)
    return np.broadcast_to(colours[:, None, None], (count, size, size, 3)).copy()


def numbers_of(frames):
    red, green, blue = (frames[..., 0, 0] * 255).round().long().unbind(-1)
    return red + 256 * green + 65536 * blue


def write_shapes3d(folder, sizes=(5, 5, 3, 4, 3, 4), **changes):
    labels = grid(sizes) / np.array(sizes)
    content = {"images": telling_images(len(labels), 8), "labels": labels, **changes}
    with h5py.File(folder / "3dshapes.h5", "w") as file:
        for name, value in content.items():
            if value is not None:
                file.create_dataset(name, data=value, chunks=(1, *value.shape[1:]), compression="gzip")
    return labels


def write_folder(root, folder, labels_name, sizes, size=4):
    labels = grid(sizes) / 7
    (root / folder / "images").mkdir(parents=True)
    for number, image in enumerate(telling_images(len(labels), size)):
        Image.fromarray(image).save(root / folder / "images" / f"{number:06}.png")
    with (root / folder / labels_name).open("wb") as stream:
        np.save(stream, labels)
    return labels


def write_dsprites(folder, sizes=(1, 3, 4, 5, 4, 4), **changes):
    classes = grid(sizes)
    images = (np.random.RandomState(0).rand(len(classes), 8, 8) > 0.5).astype(np.uint8)
    content = {"imgs": images, "latents_classes": classes, "latents_values": classes.astype(float), **changes}
    np.savez_compressed(folder / dsprites_module.FILE, **{k: v for k, v in content.items() if v is not None})
    return images


# The split


@pytest.mark.parametrize(
    ("sizes", "base", "moving", "periodic"),
    [
        ((4, 5, 3, 3), [0, 1, 3], [0, 1, 2], [0]),
        ((3, 3, 3, 3), [0, 1, 2], [0, 1, 2, 3], []),
        ((3, 4, 4, 2), [0, 1, 2], [1, 2, 3], []),
    ],
    ids=["hues", "all move", "identity"],
)
def test_no_frame_that_a_sequence_can_show_is_in_two_parts(sizes, base, moving, periodic):
    split = GridSplit(sizes, base=base, moving=moving, periodic=periodic, title="grid")
    frames, starts = {part: set() for part in PARTS}, {part: set() for part in PARTS}
    generator = torch.Generator().manual_seed(0)
    for path in itertools.product(*([0, 1] if k in moving else [0] for k in range(len(sizes)))):
        for other in itertools.product(*([0, 1] if k in moving else [0] for k in range(len(sizes)))):
            steps = torch.tensor([[0] * len(sizes), path, other]).cumsum(0)
            moves = steps.expand(10, -1, -1)
            for part in PARTS:
                first = split.starts(moves, part, generator)
                kept = first[:, 0] >= 0
                for sequence in split.visited(first[kept], moves[kept]).tolist():
                    starts[part].add(tuple(sequence[0]))
                    frames[part].update(map(tuple, sequence))
    for part, other in itertools.combinations(PARTS, 2):
        assert starts[part]
        assert not frames[part] & frames[other]
        assert not starts[part] & frames[other]


def test_every_factor_has_room_in_every_part_and_training_sees_every_value():
    for data in (Shapes3DData, Falcor3DData, Isaac3DData, DSpritesData):
        names = {Shapes3DData: shapes3d.NAMES, DSpritesData: dsprites_module.NAMES}.get(data) or data.names
        index = {name: k for k, name in enumerate(names)}
        split = GridSplit(
            data.official,
            base=[index[name] for name in data.base],
            moving=[index[name] for name in data.factors],
            periodic=[index[name] for name in data.periodic],
            title=data.__name__,
        )
        train = split._cells[split._table == 0]
        for k, factor in enumerate(split.base):
            assert len(train[:, k].unique()) == data.official[factor]
        shares = [(split._table == part).double().mean() for part in range(3)]
        assert shares[0] > 0.6
        assert min(shares[1:]) > 0.09
        steps = {Shapes3DData: 7, Falcor3DData: 4, Isaac3DData: 3, DSpritesData: 5}[data]
        for factor in split.moving:
            moves = torch.zeros(1, steps + 1, len(names), dtype=torch.long)
            moves[0, :, factor] = torch.arange(steps + 1)
            for part in PARTS:
                assert (split.starts(moves, part, torch.Generator()) >= 0).all(), (data, names[factor], part)


def test_a_grid_of_three_values_per_factor_has_room_for_two_steps():
    for data, sizes in ((Falcor3DData, (5, 3, 3, 3, 3, 3, 3)), (Isaac3DData, (2, 3, 3, 3, 3, 3, 3, 3, 3))):
        index = {name: k for k, name in enumerate(data.names)}
        split = GridSplit(
            sizes,
            base=[index[n] for n in data.base],
            moving=[index[n] for n in data.factors],
            periodic=[],
            title="grid",
        )
        for factor in split.moving:
            moves = torch.zeros(1, 3, len(sizes), dtype=torch.long)
            moves[0, :, factor] = torch.arange(3)
            for part in PARTS:
                assert (split.starts(moves, part, torch.Generator()) >= 0).all(), (data.names[factor], part)


def test_the_split_of_a_grid_is_always_the_same():
    make = lambda: GridSplit((4, 5, 3), base=[0, 1, 2], moving=[0, 1], periodic=[], title="grid")  # noqa: E731
    assert torch.equal(make()._table, make()._table)


def test_a_grid_that_is_too_small_to_split_is_an_error():
    with pytest.raises(DataError, match=r"grid: expected base factors with enough values.*2 × 1"):
        GridSplit((2, 1), base=[0, 1], moving=[0, 1], periodic=[], title="grid")


def test_starts_are_spread_over_all_that_are_possible():
    split = GridSplit((4, 4, 4, 6), base=[0, 1, 2], moving=[0, 1, 2, 3], periodic=[], title="grid")
    moves = torch.zeros(4000, 3, 4, dtype=torch.long)
    moves[:, :, 3] = torch.arange(3)
    first = split.starts(moves, "train", torch.Generator().manual_seed(0))
    assert sorted(first[:, 3].unique().tolist()) == [0, 1, 2, 3]
    counts = first[:, 3].bincount().double()
    assert (counts / 1000 - 1).abs().max() < 0.1
    seen = {tuple(cell) for cell in first[:, :3].tolist()}
    assert seen == {tuple(cell) for cell in split._cells[split._table == 0].tolist()}


# Labels


def test_a_grid_is_read_from_its_labels():
    assert grid_sizes(grid((2, 3, 4)) * 0.3, ("a", "b", "c"), Path("f")) == (2, 3, 4)


def test_missing_double_and_disordered_rows_are_errors():
    labels = grid((2, 3, 4)).astype(float)
    with pytest.raises(DataError, match=r"2 × 3 × 4 = 24 combinations.*got 23"):
        grid_sizes(labels[:-1], ("a", "b", "c"), Path("f"))
    double = labels.copy()
    double[5] = double[6]
    with pytest.raises(DataError, match="last factor fastest, got c = 2.0 instead of 1.0 for image 5"):
        grid_sizes(double, ("a", "b", "c"), Path("f"))
    with pytest.raises(DataError, match="last factor fastest"):
        grid_sizes(grid((4, 3, 2))[:, ::-1], ("a", "b", "c"), Path("f"))
    with pytest.raises(DataError, match=r"labels of shape \(N, 2\) for a, b"):
        grid_sizes(labels, ("a", "b"), Path("f"))


# Sequences of the official files


@pytest.fixture(params=["shapes3d", "falcor3d", "isaac3d", "dsprites"])
def data_and_labels(request, tmp_path):
    if request.param == "shapes3d":
        labels, make = write_shapes3d(tmp_path), Shapes3DData
    elif request.param == "falcor3d":
        labels = write_folder(tmp_path, "Falcor3D_down128", "train-rec.labels", (3, 2, 3, 3, 2, 2, 2))
        make = Falcor3DData
    elif request.param == "isaac3d":
        labels = write_folder(tmp_path, "Isaac3D_down128", "labels.npy", (3, 2, 2, 2, 2, 2, 2, 3, 3))
        make = Isaac3DData
    else:
        write_dsprites(tmp_path)
        return lambda **options: DSpritesData(tmp_path, **options), None
    return lambda **options: make(tmp_path, **options), labels


@pytest.mark.parametrize("motion", ["single", "spikes"])
def test_frames_are_those_of_the_labels_that_the_coefficients_tell(data_and_labels, motion):
    make, labels = data_and_labels
    data = make(steps=1, motion=motion, batch_size=32, epoch=32)
    batch = next(iter(data.train_dataloader()))
    assert batch["frames"].shape == (32, 2, 3, data.image_size, data.image_size)
    assert batch["weights"].shape == (32, 1, len(data.factors))
    if labels is None:
        return
    names = {"Shapes3DData": shapes3d.NAMES}.get(type(data).__name__) or data.names
    values = [np.unique(labels[:, k]).tolist() for k in range(len(names))]
    shown = labels[numbers_of(batch["frames"])]
    for (before, after), weights in zip(shown, batch["weights"][:, 0], strict=True):
        for k, name in enumerate(names):
            first, second = values[k].index(before[k]), values[k].index(after[k])
            moved = int(weights[data.factors.index(name)]) if name in data.factors else 0
            size = len(values[k])
            assert second == ((first + moved) % size if name in data.periodic else first + moved), name


def test_one_loader_per_factor_moves_that_factor_alone(data_and_labels):
    make, _ = data_and_labels
    data = make(steps=1, batch_size=16, evaluation=16)
    loaders = data.test_dataloader()
    assert len(loaders) == len(data.factors) + 1
    for k, loader in enumerate(loaders[:-1]):
        batch = next(iter(loader))
        assert (batch["factor"] == k).all()
        assert torch.equal(batch["weights"], torch.eye(len(data.factors))[k].expand(16, 1, -1))


@pytest.mark.parametrize("motion", ["single", "spikes"])
def test_no_frame_of_the_test_loaders_occurs_in_training(tmp_path, motion):
    write_shapes3d(tmp_path)
    data = Shapes3DData(tmp_path, motion=motion, steps=2, epoch=1500, evaluation=60)
    shown = {
        "train": [data.train_dataloader()], "val": [data.val_dataloader()], "test": data.test_dataloader(),
    }  # fmt: skip
    numbers = {
        part: {n for loader in loaders for batch in loader for n in numbers_of(batch["frames"]).flatten().tolist()}
        for part, loaders in shown.items()
    }
    for part, other in itertools.combinations(PARTS, 2):
        assert len(numbers[part]) > 30
        assert not numbers[part] & numbers[other]
    assert len(numbers["train"]) > 0.7 * int((data.split._table == 0).sum()) * 3 * 4 * 4


def test_worker_processes_change_nothing_and_seeds_do(tmp_path):
    write_shapes3d(tmp_path)
    frames = []
    for workers, seed in ((0, 0), (2, 0), (0, 1)):
        data = Shapes3DData(tmp_path, motion="spikes", steps=2, epoch=64, batch_size=16, workers=workers, seed=seed)
        data.setup()
        data.images.read(np.array([0]))  # opened before the workers start
        frames.append(torch.cat([batch["frames"] for batch in data.train_dataloader()]))
    assert torch.equal(frames[0], frames[1])
    assert not torch.equal(frames[0], frames[2])


@pytest.mark.parametrize("largest", [0, 1 << 20], ids=["as they are", "decoded and kept"])
def test_opened_images_can_be_sent_to_another_process_without_their_pixels(data_and_labels, monkeypatch, largest):
    monkeypatch.setattr(grid_images, "PACKED_BYTES", largest)
    monkeypatch.setattr(dsprites_module, "_IN_MEMORY", 0)
    data = data_and_labels[0](steps=1)
    data.setup()
    before = data.images.read(np.array([3, 1, 3]))
    sent = pickle.dumps(data.images)
    assert np.array_equal(pickle.loads(sent).read(np.array([3, 1, 3])), before)
    if largest:
        assert len(sent) < before[0].size * np.prod(data.images.sizes)


def test_frames_shrink_to_the_size_that_is_asked_for(tmp_path):
    write_shapes3d(tmp_path)
    data = Shapes3DData(tmp_path, steps=1, image_size=4, batch_size=8, epoch=8)
    assert next(iter(data.train_dataloader()))["frames"].shape[-2:] == (4, 4)


def test_more_steps_than_a_factor_has_values_are_an_error(tmp_path):
    write_shapes3d(tmp_path)
    with pytest.raises(DataError, match="at most 3 steps for the 4 values of scale, got 4.*--data.steps"):
        Shapes3DData(tmp_path, steps=4).setup()


def test_captions_tell_official_files_stand_ins_and_other_grids_apart(tmp_path, monkeypatch):
    count = len(write_shapes3d(tmp_path))
    assert Shapes3DData(tmp_path, steps=1).name == f"{count:,} images in Shapes3D's format"
    monkeypatch.setattr(Shapes3DData, "official", (5, 5, 3, 4, 3, 4))
    assert Shapes3DData(tmp_path, steps=1).name == "Shapes3D"
    monkeypatch.setattr("flowvae.data.grid.is_stand_in", lambda folder: folder == tmp_path)
    assert Shapes3DData(tmp_path, steps=1).name == f"stand-in for Shapes3D ({count:,} images)"


# Damaged files


def test_a_missing_file_says_where_to_get_it(tmp_path):
    for data in (Shapes3DData, Falcor3DData, Isaac3DData, DSpritesData):
        with pytest.raises(DataError, match="Get .* from https://.*--data.root.*make_data.py"):
            data(tmp_path).setup()


def test_a_damaged_shapes3d_file_is_reported(tmp_path):
    labels = write_shapes3d(tmp_path)
    file = tmp_path / "3dshapes.h5"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="expected a whole HDF5 file"):
        Shapes3DData(tmp_path, steps=1).setup()
    write_shapes3d(tmp_path, labels=None)
    with pytest.raises(DataError, match=r"keys images and labels, got \['images'\]"):
        Shapes3DData(tmp_path, steps=1).setup()
    write_shapes3d(tmp_path, images=np.zeros((len(labels), 8, 9, 3), np.uint8))
    with pytest.raises(DataError, match=r"shape \(N, H, H, 3\) in uint8"):
        Shapes3DData(tmp_path, steps=1).setup()
    write_shapes3d(tmp_path, images=np.zeros((len(labels) - 1, 8, 8, 3), np.uint8))
    with pytest.raises(DataError, match=f"as many labels as images, got {len(labels)} and {len(labels) - 1}"):
        Shapes3DData(tmp_path, steps=1).setup()


def test_a_damaged_image_folder_is_reported(tmp_path):
    write_folder(tmp_path, "Falcor3D_down128", "train-rec.labels", (3, 2, 3, 3, 2, 2, 2))
    images, labels = tmp_path / "Falcor3D_down128/images", tmp_path / "Falcor3D_down128/train-rec.labels"
    whole = (images / "000100.png").read_bytes()
    (images / "000100.png").write_bytes(whole[:-20])
    with pytest.raises(DataError, match=r"000100.png: expected a whole PNG file"):
        Falcor3DData(tmp_path, steps=1).setup()
    (images / "000100.png").write_bytes(whole[:50] + bytes([whole[50] ^ 255]) + whole[51:])
    with pytest.raises(DataError, match=r"000100.png: expected a whole PNG file"):
        Falcor3DData(tmp_path, steps=1).setup()
    (images / "000100.png").unlink()
    with pytest.raises(DataError, match=r"expected 432 files.*got 431; missing: 000100.png"):
        Falcor3DData(tmp_path, steps=1).setup()
    labels.write_bytes(labels.read_bytes()[:-100])
    with pytest.raises(DataError, match="array that numpy.load reads"):
        Falcor3DData(tmp_path, steps=1).setup()


def test_an_image_that_was_written_anew_is_read_anew(tmp_path):
    write_folder(tmp_path, "Falcor3D_down128", "train-rec.labels", (3, 2, 3, 3, 2, 2, 2))
    Falcor3DData(tmp_path, steps=1).setup()
    Image.new("RGB", (4, 4), (9, 8, 7)).save(tmp_path / "Falcor3D_down128/images/000100.png")
    data = Falcor3DData(tmp_path, steps=1)
    data.setup()
    assert data.images.read(np.array([100]))[0, 0, 0].tolist() == [9, 8, 7]


def test_labels_of_another_format_are_reported(tmp_path):
    write_folder(tmp_path, "Isaac3D_down128", "labels.npy", (3, 2, 2, 2, 2, 2, 2, 3, 3))
    with (tmp_path / "Isaac3D_down128/labels.npy").open("wb") as stream:
        np.savez(stream, labels=np.zeros(3))
    with pytest.raises(DataError, match="expected one array, got an archive"):
        Isaac3DData(tmp_path, steps=1).setup()


def test_a_shapes3d_file_of_large_chunks_is_decoded_once(tmp_path, monkeypatch):
    monkeypatch.setattr(grid_images, "PACKED_BYTES", 0)
    write_shapes3d(tmp_path)
    with h5py.File(tmp_path / "3dshapes.h5") as file:
        images, labels = file["images"][:], file["labels"][:]
    data = Shapes3DData(tmp_path, steps=1)
    data.setup()
    assert data.images._kept is None
    with h5py.File(tmp_path / "3dshapes.h5", "w") as file:
        file.create_dataset("images", data=images, chunks=(500, 2, 2, 1), compression="gzip")
        file["labels"] = labels
    data = Shapes3DData(tmp_path, steps=1)
    data.setup()
    assert np.array_equal(data.images._kept[:], images)


def test_damage_that_shows_in_training_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(grid_images, "PACKED_BYTES", 0)
    write_shapes3d(tmp_path, images=np.random.RandomState(0).randint(0, 256, (3600, 8, 8, 3)).astype(np.uint8))
    data = Shapes3DData(tmp_path, steps=1)
    data.setup()
    with h5py.File(tmp_path / "3dshapes.h5") as file:
        where = file["images"].id.get_chunk_info(1001)
    flip_a_byte(tmp_path / "3dshapes.h5", where.byte_offset + where.size - 2)
    with pytest.raises(DataError, match="expected a whole HDF5 file"):
        data.images.read(np.array([where.chunk_offset[0]]))


def flip_a_byte(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 255
    path.write_bytes(content)


def test_an_image_of_another_size_is_reported(tmp_path):
    write_folder(tmp_path, "Falcor3D_down128", "train-rec.labels", (3, 2, 3, 3, 2, 2, 2))
    Image.new("RGB", (13, 5)).save(tmp_path / "Falcor3D_down128/images/000100.png")
    with pytest.raises(DataError, match=r"000100.png: expected 4×4 pixels, as in 000000.png, got 13×5"):
        Falcor3DData(tmp_path, steps=1).setup()


@pytest.mark.parametrize("large", [False, True], ids=["decoded", "looked into"])
def test_damage_anywhere_in_an_image_is_found_before_training(tmp_path, monkeypatch, large):
    write_folder(tmp_path, "Falcor3D_down128", "train-rec.labels", (3, 2, 3, 3, 2, 2, 2))
    monkeypatch.setattr(grid_images, "PACKED_BYTES", 0 if large else 1 << 20)
    image = tmp_path / "Falcor3D_down128/images/000101.png"
    whole = image.read_bytes()
    for place in range(len(whole)):
        image.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(DataError, match="000101.png: expected a whole PNG file"):
            Falcor3DData(tmp_path, steps=1).setup()
    image.write_bytes(whole)
    Falcor3DData(tmp_path, steps=1).setup()


def test_a_large_folder_is_looked_into_once_and_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    write_folder(tmp_path, "Falcor3D_down128", "train-rec.labels", (3, 2, 3, 3, 2, 2, 2))
    monkeypatch.setattr(grid_images, "PACKED_BYTES", 0)
    monkeypatch.setattr(png_folder, "_NOTED", 100)
    image = tmp_path / "Falcor3D_down128/images/000401.png"
    whole = image.read_bytes()
    image.write_bytes(whole[:-20])
    with pytest.raises(DataError, match="000401.png: expected a whole PNG file"):
        Falcor3DData(tmp_path, steps=1).setup()
    image.write_bytes(whole)
    seen, look = [], png_folder.FolderImages._whole
    monkeypatch.setattr(
        png_folder.FolderImages, "_whole", lambda images, path: seen.append(path.name) or look(images, path)
    )
    for _ in range(2):
        Falcor3DData(tmp_path, steps=1).setup()
        assert seen == [f"{number:06}.png" for number in range(400, 432)]


def test_a_damaged_dsprites_file_is_reported(tmp_path):
    images = write_dsprites(tmp_path)
    file = tmp_path / dsprites_module.FILE
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="expected a whole npz file"):
        DSpritesData(tmp_path, steps=1).setup()
    file.write_bytes(content[:3000] + bytes([content[3000] ^ 255]) + content[3001:])
    with pytest.raises(DataError, match="expected a whole npz file"):
        DSpritesData(tmp_path, steps=1).setup()
    write_dsprites(tmp_path, latents_classes=None)
    with pytest.raises(DataError, match="keys imgs and latents_classes, got"):
        DSpritesData(tmp_path, steps=1).setup()
    write_dsprites(tmp_path, imgs=images[:-1])
    with pytest.raises(DataError, match="expected 960 images of shape"):
        DSpritesData(tmp_path, steps=1).setup()


def test_a_large_dsprites_file_is_unpacked_once_and_again_after_damage(tmp_path, monkeypatch):
    images = write_dsprites(tmp_path)
    monkeypatch.setattr(dsprites_module, "_IN_MEMORY", 0)
    monkeypatch.setattr(dsprites_module, "_BLOCK", 100)

    def read():
        data = DSpritesData(tmp_path, steps=1)
        data.setup()
        return data.images.read(np.arange(960))

    assert np.array_equal(read()[..., 0], images * 255)
    with monkeypatch.context() as patch:
        patch.setattr(dsprites_module.DSpritesImages, "_unpacked", lambda _: pytest.fail("unpacked again"))
        assert np.array_equal(read()[..., 0], images * 255)
    (unpacked,) = (tmp_path / "frames").rglob("*.npy")
    content = bytearray(unpacked.read_bytes())
    content[-7] ^= 255
    unpacked.write_bytes(content)
    assert np.array_equal(read()[..., 0], images * 255)


def test_a_file_of_the_official_size_must_have_the_official_checksum(tmp_path, monkeypatch):
    sizes = (5, 5, 3, 4, 3, 4)
    monkeypatch.setattr(Shapes3DData, "official", sizes)
    monkeypatch.setattr(shapes3d, "OFFICIAL", sizes)
    labels = grid(sizes) / 10
    with h5py.File(tmp_path / "3dshapes.h5", "w") as file:
        file.create_dataset("images", data=telling_images(len(labels), 8))
        file.create_dataset("labels", data=labels)
    with pytest.raises(DataError, match=f"expected the MD5 {shapes3d.MD5}"):
        Shapes3DData(tmp_path, steps=1).setup()
