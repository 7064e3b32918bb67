import json
import os
import signal
import subprocess
import sys
import time
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path.insert(0, str(EXAMPLES))

pytest.importorskip("mitsuba", reason="needs the extra render")
h5py = pytest.importorskip("h5py")
Image = pytest.importorskip("PIL.Image")

from flowvae.data.scenes import cityscapes, falcor3d, isaac3d, kitchen, shapes3d  # noqa: E402
from flowvae.data.scenes.png_grids import png_bytes  # noqa: E402
from flowvae.data.scenes.rendering import hue, load, render, to_bytes  # noqa: E402
from flowvae.data.standins import MAKERS, maker  # noqa: E402

SMALL = (2, 2, 2, 2, 2, 2)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes3d")
    return shapes3d.make_shapes3d(folder, SMALL, image_size=8, samples=4)


@pytest.fixture(scope="module")
def falcor(tmp_path_factory):
    folder = tmp_path_factory.mktemp("falcor3d")
    return falcor3d.make_falcor3d(folder, (2, 1, 2, 1, 2, 1, 1), image_size=8, samples=4, sky_samples=4)


@pytest.fixture(scope="module")
def isaac(tmp_path_factory):
    folder = tmp_path_factory.mktemp("isaac3d")
    return isaac3d.make_isaac3d(folder, (2, 2, 1, 1, 1, 2, 1, 2, 2), image_size=8, samples=4, sky_samples=4)


def pixels(path):
    return np.asarray(Image.open(path))


class TestShapes3D:
    def test_the_file_has_the_official_keys_types_and_shapes(self, shapes):
        with h5py.File(shapes.folder / "3dshapes.h5") as file:
            assert set(file) == {"images", "labels"}
            assert file["images"].shape == (64, 8, 8, 3)
            assert file["images"].dtype == np.uint8
            assert file["labels"].shape == (64, 6)
            assert file["labels"].dtype == np.float64

    def test_labels_are_the_full_grid_with_the_last_factor_fastest(self, shapes):
        values = [(0, 0.5), (0, 0.5), (0, 0.5), (0.75, 1.25), (0, 1), (-30, 30)]
        with h5py.File(shapes.folder / "3dshapes.h5") as file:
            assert file["labels"][:].tolist() == [list(row) for row in product(*values)]

    def test_each_image_shows_its_labels(self, shapes):
        with h5py.File(shapes.folder / "3dshapes.h5") as file:
            for number in (0, 13, 38, 63):
                floor, wall, thing, scale, shape, angle = file["labels"][number]
                light = shapes3d.light_on_surfaces(scale, int(shape), angle, 8, 4)
                expected = to_bytes(shapes3d.coloured(light, floor, wall, thing))
                assert (file["images"][number] == expected).all()

    def test_the_default_grid_has_room_for_seven_steps_of_every_moving_factor(self):
        moving = [size for k, size in enumerate(shapes3d.SIZES) if k != 4]
        assert min(moving) > 7

    def test_default_values_lie_in_the_official_ranges(self):
        values = shapes3d.factor_values(shapes3d.SIZES)
        assert all(v[0] == 0 and v[-1] < 1 for v in values[:3])
        assert (values[3][0], values[3][-1]) == (0.75, 1.25)
        assert values[4].tolist() == [0, 1, 2, 3]
        assert (values[5][0], values[5][-1]) == (-30, 30)

    @pytest.mark.parametrize("shape", range(4))
    def test_colouring_the_light_equals_rendering_with_the_colours(self, shape):
        hues = (0.1, 0.6, 0.35)
        light = shapes3d.light_on_surfaces(1.1, shape, 20, 16, 16)
        image = shapes3d.light_on_surfaces(1.1, shape, 20, 16, 16, colours=np.stack([hue(h) for h in hues]))
        sky = shapes3d.coloured(np.zeros((16, 16, 4), np.float32), *hues) * (1 - image[..., 3:])
        np.testing.assert_allclose(shapes3d.coloured(light, *hues), image[..., :3] + sky, atol=1e-5)

    def test_the_object_grows_with_scale_and_the_shapes_differ(self):
        def outline(scale, shape):
            return shapes3d.light_on_surfaces(scale, shape, 0, 32, 4)[..., 2] > 0.05

        for shape in range(4):
            assert outline(1.25, shape).sum() > 1.5 * outline(0.75, shape).sum()
        for first, second in combinations([outline(1, shape) for shape in range(4)], 2):
            assert (first != second).sum() > 10

    def test_the_camera_goes_round_so_walls_swap_sides_and_the_object_stays(self):
        left, right = (shapes3d.light_on_surfaces(1, 2, angle, 32, 16) for angle in (-30, 30))
        thing = [np.nonzero(view[..., 2] > 0.05)[1].mean() for view in (left, right)]
        assert np.allclose(thing, 15.5, atol=0.5)
        # The left wall turns its back on the sun.
        shade = [view[12:16, :4, 1].mean() / view[12:16, -4:, 1].mean() for view in (left, right)]
        assert shade[1] < 0.6 < 1 < shade[0]

    def test_wrong_sizes_raise(self, tmp_path):
        with pytest.raises(ValueError, match=r"expected 6 sizes of at least 1 .* got \(2, 2, 2, 2, 5, 2\)"):
            shapes3d.make_shapes3d(tmp_path, (2, 2, 2, 2, 5, 2))


class TestFalcor3D:
    def test_labels_are_read_by_numpy_and_are_the_full_grid(self, falcor):
        labels = np.load(falcor.folder / "Falcor3D_down128/train-rec.labels")
        assert labels.dtype == np.float64
        assert labels.tolist() == [[a, 0, b, 0, c, 0, 0] for a, b, c in product((0, 1), repeat=3)]

    def test_there_is_one_image_per_row(self, falcor):
        names = sorted(path.name for path in (falcor.folder / "Falcor3D_down128/images").iterdir())
        assert names == [f"{k:06}.png" for k in range(8)]
        assert pixels(falcor.folder / "Falcor3D_down128/images/000000.png").shape == (8, 8, 3)

    def test_the_first_factor_is_the_slowest_and_brightens_the_room(self, falcor):
        images = [pixels(falcor.folder / f"Falcor3D_down128/images/{k:06}.png").astype(int) for k in range(8)]
        for k in range(4):
            assert (images[4 + k] >= images[k]).all()
            assert images[4 + k].mean() > 1.3 * images[k].mean()

    def test_an_image_is_sky_plus_intensity_times_lamp(self, falcor):
        spot = [falcor3d._between(span, share) for span, share in zip(falcor3d._CAMERA, (1, 0, 0), strict=True)]
        lamp = [falcor3d._between(span, share) for span, share in zip(falcor3d._LAMP, (0, 1, 0), strict=True)]
        light = falcor3d.light_of_sky(*spot, 8, 4) + falcor3d._BRIGHTNESS[1] * falcor3d.light_of_lamp(lamp, spot, 8, 4)
        assert (pixels(falcor.folder / "Falcor3D_down128/images/000007.png") == to_bytes(light)).all()


class TestIsaac3D:
    def test_labels_are_the_full_grid_with_numbered_shapes_and_colours(self, isaac):
        labels = np.load(isaac.folder / "Isaac3D_down128/labels.npy")
        assert labels.tolist() == [[a, b, 0, 0, 0, c, 0, d, e] for a, b, c, d, e in product((0, 1), repeat=5)]
        assert len(list((isaac.folder / "Isaac3D_down128/images").glob("*.png"))) == 32

    def test_colouring_the_light_equals_rendering_with_the_colours(self):
        pose, lamp = isaac3d.Pose(1, 0.2, 0.0, 1.5, 0.2), -0.5
        colours = isaac3d._WALLS[1], isaac3d._OBJECTS[2]
        parts = isaac3d.light_of_lamp(pose, lamp, 16, 16).coloured(*colours)
        whole = render(load(isaac3d.scene(pose, 16, 16, True, *colours, lamp=True)), lamp=(-0.55, lamp, 2.75))
        np.testing.assert_allclose(parts, whole[..., :3], atol=1e-5)

    def test_the_last_factor_recolours_the_wall_alone(self, isaac):
        first, second = (pixels(isaac.folder / f"Isaac3D_down128/images/{k:06}.png").astype(int) for k in (0, 1))
        changed = np.abs(first - second).max(-1) > 20
        assert changed[:2].mean() > 0.3
        assert not changed[-2:].any()

    @pytest.mark.parametrize("reach", [(x, y) for x in isaac3d._REACH for y in isaac3d._DEPTH])
    def test_the_links_of_the_arm_keep_their_lengths_wherever_the_hand_is(self, reach):
        wrist = np.array([*reach, 1.12 + kitchen._HAND])
        elbow = kitchen._elbow(wrist)
        assert np.linalg.norm(elbow - kitchen._SHOULDER) == pytest.approx(kitchen._UPPER)
        assert np.linalg.norm(wrist - elbow) == pytest.approx(kitchen._FORE)


class TestCityscapes:
    def test_snippets_lie_in_the_official_layout(self, tmp_path):
        cities = {"train": {"eastport": 1}, "val": {"lakeside": 1}}
        cache = cityscapes.make_cityscapes(tmp_path, cities, frames=2, image_size=(16, 8), samples=1)
        found = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png"))
        assert found == [
            f"leftImg8bit_sequence/{part}/{city}/{city}_000000_{frame:06}_leftImg8bit.png"
            for part, city in (("train", "eastport"), ("val", "lakeside"))
            for frame in range(2)
        ]
        assert pixels(tmp_path / found[0]).shape == (8, 16, 3)
        assert cache.verify() == []

    def test_the_parts_share_no_city(self):
        cities = [city for group in cityscapes.CITIES.values() for city in group]
        assert len(cities) == len(set(cities))

    def test_every_part_has_every_motion_as_often(self):
        for group in cityscapes.CITIES.values():
            assert all(count % len(cityscapes.MOTIONS) == 0 for count in group.values())

    @pytest.mark.parametrize("seed", range(5))
    def test_the_car_ahead_comes_closer_or_falls_back(self, seed):
        for motion, sign in (("approach", -1), ("recede", 1)):
            way = cityscapes.drive(motion, 30, np.random.RandomState(seed))
            gap = way.ahead - way.position[:, 1]
            assert (sign * np.diff(gap) > 0).all()
            assert gap.min() > 5
            assert (way.heading == 0).all()

    @pytest.mark.parametrize("seed", range(5))
    def test_turns_go_to_their_side_and_never_back(self, seed):
        for motion, sign in (("turn_left", 1), ("turn_right", -1)):
            way = cityscapes.drive(motion, 30, np.random.RandomState(seed))
            assert (sign * np.diff(way.heading) >= 0).all()
            assert 60 < np.rad2deg(sign * way.heading[-1]) < 80
            assert sign * (way.position[0, 0] - way.position[-1, 0]) > 2

    def test_snippets_have_streets_of_their_own(self):
        first, other = (cityscapes.draw_frame("eastport", k, 0, 2, (16, 8), 1) for k in (0, 4))
        assert np.abs(first.astype(int) - other).max() > 30


def test_every_scene_is_a_known_stand_in():
    for name in ("shapes3d", "falcor3d", "isaac3d", "cityscapes"):
        assert name in MAKERS
        assert callable(maker(name))


def test_a_png_file_gives_its_pixels_back(tmp_path):
    image = np.random.RandomState(0).randint(0, 256, (5, 7, 3)).astype(np.uint8)
    (tmp_path / "image.png").write_bytes(png_bytes(image))
    assert (pixels(tmp_path / "image.png") == image).all()


def test_one_altered_byte_is_found_and_only_that_file_made_again(tmp_path):
    def make():
        return falcor3d.make_falcor3d(tmp_path, (2, 1, 1, 1, 2, 1, 1), image_size=8, samples=1, sky_samples=1)

    cache = make()
    path = tmp_path / "Falcor3D_down128/images/000002.png"
    others = {p: p.stat().st_mtime_ns for p in path.parent.iterdir() if p != path}
    content = path.read_bytes()
    path.write_bytes(content[:60] + content[61:])
    assert cache.verify() == ["Falcor3D_down128/images/000002.png"]
    assert make().verify() == []
    assert path.read_bytes() == content
    assert {p: p.stat().st_mtime_ns for p in others} == others


def test_a_damaged_h5_file_is_put_together_again_without_rendering(tmp_path, monkeypatch):
    sizes = (2, 1, 1, 1, 2, 1)
    shapes3d.make_shapes3d(tmp_path, sizes, image_size=8, samples=1)
    path = tmp_path / "3dshapes.h5"
    content = path.read_bytes()
    path.write_bytes(content[:900] + content[901:])
    monkeypatch.setattr(shapes3d, "light_on_surfaces", None)
    assert shapes3d.make_shapes3d(tmp_path, sizes, image_size=8, samples=1).verify() == []
    with h5py.File(path) as file:
        assert file["images"].shape == (4, 8, 8, 3)


def test_a_killed_rendering_goes_on_where_it_was(tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        f"sys.path.insert(0, {str(EXAMPLES)!r})\n"
        "from flowvae.data.scenes.shapes3d import make_shapes3d\n"
        f"make_shapes3d(Path({str(tmp_path)!r}), (1, 1, 1, 4, 4, 2), image_size=8, samples=256)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    parts, deadline = tmp_path / "parts", time.time() + 120
    while not (parts.is_dir() and len(list(parts.iterdir())) >= 3):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.time() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    made = {path: path.stat().st_mtime_ns for path in parts.iterdir()}
    assert not (tmp_path / "3dshapes.h5").exists()
    cache = shapes3d.make_shapes3d(tmp_path, (1, 1, 1, 4, 4, 2), image_size=8, samples=256)
    assert cache.verify() == []
    listed = {json.loads(line).get("name") for line in (tmp_path / "manifest.jsonl").read_text().splitlines()}
    kept = [path for path in made if path.relative_to(tmp_path).as_posix() in listed]
    assert len(kept) >= 3
    assert sum(path.stat().st_mtime_ns == made[path] for path in kept) >= len(made) - 1
