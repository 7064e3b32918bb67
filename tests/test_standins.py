import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path.insert(0, str(EXAMPLES))

import make_data  # noqa: E402
from flowvae.data import dsprites as dsprites_module  # noqa: E402
from flowvae.data import standins, video  # noqa: E402
from flowvae.data.calms21 import CalMS21Data  # noqa: E402
from flowvae.data.dsprites import DSpritesData, still_sprites  # noqa: E402
from flowvae.data.files import DataError  # noqa: E402
from flowvae.data.standins.behaviour import BEHAVIOURS, HEIGHT, MARGIN, WIDTH, simulate  # noqa: E402
from flowvae.data.standins.calms21 import make_calms21  # noqa: E402
from flowvae.data.standins.dsprites import draw_sprite, make_dsprites  # noqa: E402
from flowvae.data.standins.mice import _DISCS, _place  # noqa: E402

SMALL = (1, 3, 2, 2, 4, 4)


@pytest.fixture(autouse=True)
def float32_in_a_folder_of_its_own(tmp_path, monkeypatch):
    torch.set_default_dtype(torch.float32)
    monkeypatch.setattr(video, "FRAMES", tmp_path / "frames")
    monkeypatch.chdir(tmp_path)


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_the_dsprites_loader_reads_its_stand_in(tmp_path):
    make_dsprites(tmp_path / "d", SMALL)
    data = DSpritesData(tmp_path / "d", steps=1, batch_size=8, epoch=8)
    frames = next(iter(data.train_dataloader()))["frames"]
    assert data.name == "stand-in for dSprites (192 images)"
    assert frames.shape == (8, 2, 3, 64, 64)
    assert frames.max() == 1
    assert frames.min() == 0


def test_stand_ins_have_the_keys_of_the_original(tmp_path):
    make_dsprites(tmp_path, SMALL)
    with np.load(tmp_path / dsprites_module.FILE) as content:
        assert set(content.files) == {"imgs", "latents_classes", "latents_values", "metadata"}
        assert content["imgs"].shape == (192, 64, 64)
        assert content["latents_values"].shape == content["latents_classes"].shape == (192, 6)


def test_shapes_lie_where_they_should_with_the_right_area_and_smooth_edges():
    image = draw_sprite("square", 1.0, 0.0, 0.25, 0.75).astype(float) / 255
    y, x = np.mgrid[:64, :64] + 0.5
    assert abs((image * x).sum() / image.sum() - 24) < 0.05
    assert abs((image * y).sum() / image.sum() - 40) < 0.05
    assert abs(image.sum() - 17**2) < 1
    turned = draw_sprite("square", 1.0, np.pi / 6, 0.25, 0.75).astype(float) / 255
    assert abs(turned.sum() - 17**2) < 1
    assert ((turned > 0.1) & (turned < 0.9)).sum() > 20
    ellipse = draw_sprite("ellipse", 0.5, 1.0, 0.5, 0.5).astype(float) / 255
    assert abs(ellipse.sum() - np.pi * 5.5**2 * 0.6) < 1


@pytest.mark.parametrize("shape", ["square", "ellipse", "heart"])
def test_no_shape_is_cut_off_at_an_edge(shape):
    areas = [
        draw_sprite(shape, 1.0, angle, x, y).sum() / 255
        for angle in np.linspace(0, 2 * np.pi, 7)
        for x, y in ((0, 0), (1, 1), (0.5, 0.5), (0, 1))
    ]
    assert max(areas) - min(areas) < 0.02 * max(areas)


def test_damage_to_a_stand_in_is_reported_by_the_loader_and_repaired_by_the_command(tmp_path):
    folder = tmp_path / "d"
    make_dsprites(folder, SMALL)
    whole = (folder / dsprites_module.FILE).read_bytes()
    flip_a_byte(folder / dsprites_module.FILE)
    flip_a_byte(folder / "parts/1-0.npz")
    untouched = (folder / "parts/0-0.npz").stat().st_mtime_ns
    with pytest.raises(DataError, match="2 are missing or altered.*make_data.py dsprites"):
        DSpritesData(folder, steps=1).setup()
    cache = make_dsprites(folder, SMALL)
    assert cache.verify() == []
    assert (folder / "parts/0-0.npz").stat().st_mtime_ns == untouched
    with np.load(folder / dsprites_module.FILE) as repaired:
        (tmp_path / "whole.npz").write_bytes(whole)
        with np.load(tmp_path / "whole.npz") as before:
            assert np.array_equal(repaired["imgs"], before["imgs"])


def test_still_sprites_are_as_large_as_digits(tmp_path):
    make_dsprites(tmp_path, SMALL)
    images = still_sprites(tmp_path)
    assert images.shape == (6, 1, 28, 28)
    assert images[:, :, 4:24, 4:24].flatten(1).sum(1).min() > 30
    assert images[:, :, :3].max() == 0


def test_two_mice_stay_in_the_cage_apart_from_each_other_and_do_everything():
    track = simulate(3000, np.random.RandomState(0))
    assert (track.position >= MARGIN).all()
    assert (track.position <= (WIDTH - MARGIN, HEIGHT - MARGIN)).all()
    gaps = np.linalg.norm(track.position[:, 0] - track.position[:, 1], axis=-1)
    assert gaps.min() > 33
    shares = np.bincount(track.behaviour, minlength=len(BEHAVIOURS)) / 3000
    assert shares.min() > 0.03
    speed = np.linalg.norm(np.diff(track.position, axis=0), axis=-1)
    assert speed.max() < 8
    following = track.behaviour == BEHAVIOURS.index("follow")
    assert np.median(speed[following[1:], 0]) > 0.8
    closing = -np.diff(gaps)[track.behaviour[1:] == BEHAVIOURS.index("approach")]
    assert closing.mean() > 1


def test_bodies_never_overlap_and_one_that_follows_is_behind_the_other():
    track = simulate(3000, np.random.RandomState(0))
    discs = np.array([[_place(disc, heading) for disc in _DISCS] for heading in track.heading.reshape(-1, 2)])
    discs = discs.reshape(3000, 2, -1, 2) + track.position[:, :, None]
    radii = np.array([radius for *_, radius in _DISCS])
    apart = np.linalg.norm(discs[:, 0, :, None] - discs[:, 1, None], axis=-1) - radii[:, None] - radii
    assert apart.min() > 0
    # The first one and a half seconds are for setting out.
    following = track.behaviour == BEHAVIOURS.index("follow")
    following[45:] &= np.lib.stride_tricks.sliding_window_view(following, 46).all(-1)
    assert following.sum() > 300
    between = (track.position[:, 1] - track.position[:, 0])[following]
    gaps = np.linalg.norm(between, axis=-1)
    assert gaps.min() > 36
    assert gaps.max() < 54
    for heading in (track.heading[following, 0, 0], track.heading[following, 1, 1]):
        ahead = (np.stack((np.cos(heading), np.sin(heading)), -1) * between).sum(-1) / gaps
        assert np.quantile(ahead, 0.05) > 0.4
        assert np.median(ahead) > 0.85


def test_the_calms21_loader_reads_its_stand_in_and_the_poses_lie_on_the_animals(tmp_path):
    make_calms21(tmp_path / "c", {"train": 3, "test": 1}, frames=40)
    data = CalMS21Data(tmp_path / "c", image_size=64, every=1, stride=2, batch_size=8, epoch=8)
    assert next(iter(data.train_dataloader()))["frames"].shape == (8, 6, 3, 64, 64)
    assert data.name == "stand-in for CalMS21 (simulated)"
    poses = json.loads((tmp_path / "c/calms21_task1_test.json").read_text())["annotator-id_0"]
    sequence = poses["task1/test/mouse001_task1_annotator1"]
    keypoints = np.array(sequence["keypoints"])
    assert keypoints.shape == (40, 2, 2, 7)
    assert len(sequence["annotations"]) == 40
    frame = data.clips[data.parts["test"][0].clip][20].mean(-1)
    x = keypoints[20, :, 0, 3:6].mean(-1) * 64 / WIDTH
    y = keypoints[20, :, 1, 3:6].mean(-1) * 64 / HEIGHT
    dark, bright = (frame[int(y[k]), int(x[k])] for k in range(2))
    assert dark < 75
    assert bright > 150


def test_a_damaged_video_alone_is_filmed_again(tmp_path):
    cache = make_calms21(tmp_path, {"train": 2, "test": 1}, frames=20)
    videos = sorted(tmp_path.rglob("*.mp4"))
    before = {path: path.stat().st_mtime_ns for path in videos}
    flip_a_byte(videos[1])
    assert len(cache.verify()) == 1
    assert make_calms21(tmp_path, {"train": 2, "test": 1}, frames=20).verify() == []
    assert [path.stat().st_mtime_ns != before[path] for path in videos] == [False, True, False]


def test_the_command_makes_stand_ins_and_lists_them(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("flowvae.data.standins.dsprites.make_dsprites.__defaults__", (SMALL,))
    assert make_data.make_data("dsprites") == standins.default_folder("dsprites")
    assert "complete" in capsys.readouterr().out
    assert DSpritesData(steps=1).name == "stand-in for dSprites (192 images)"
    with pytest.raises(ValueError, match="expected one of .*dsprites.*, got 'digits'"):
        make_data.make_data("digits")


def test_official_files_are_not_written_over(tmp_path, monkeypatch):
    monkeypatch.setattr("flowvae.data.standins.dsprites.make_dsprites.__defaults__", (SMALL,))
    official = tmp_path / "dsprites" / dsprites_module.FILE
    official.parent.mkdir()
    official.write_bytes(b"the official file")
    with pytest.raises(DataError, match="expected an empty folder, or one with a stand-in.*--data.root.*--output"):
        make_data.make_data("dsprites", official.parent)
    assert official.read_bytes() == b"the official file"
    assert [path.name for path in official.parent.iterdir()] == [official.name]


@pytest.mark.parametrize("name", standins.MAKERS)
def test_every_stand_in_has_a_maker(name):
    pytest.importorskip("mitsuba") if name not in ("dsprites", "calms21") else None
    assert callable(standins.maker(name))
