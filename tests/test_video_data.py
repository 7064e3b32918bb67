import os
import pickle
import shutil
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from PIL import Image

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path.insert(0, str(EXAMPLES))

from flowvae.data import cityscapes, video  # noqa: E402
from flowvae.data.calms21 import CalMS21Data  # noqa: E402
from flowvae.data.cityscapes import CityscapesData  # noqa: E402
from flowvae.data.clips import read_clip  # noqa: E402
from flowvae.data.egocentric import egocentric, heading  # noqa: E402
from flowvae.data.files import DataError, reading  # noqa: E402
from flowvae.data.frames import _save, pack, read_image  # noqa: E402
from flowvae.data.png_folder import Falcor3DData  # noqa: E402
from flowvae.data.standins.writing import write_video  # noqa: E402
from flowvae.data.video import VideoData  # noqa: E402

REAL = Path(__file__).parents[2] / "shared" / "data" / "videos"


@pytest.fixture(autouse=True)
def float32_in_a_folder_of_its_own(tmp_path, monkeypatch):
    torch.set_default_dtype(torch.float32)
    for module in (video, cityscapes):
        monkeypatch.setattr(module, "FRAMES", tmp_path / "frames")


def grey_frames(count, first=0, step=1, shape=(32, 48)):
    """Frames whose brightness tells their number."""
    return [np.full((*shape, 3), first + step * k, np.uint8) for k in range(count)]


def numbers_of(frames):
    return (frames.mean((-1, -2, -3)) * 255).round().long()


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clip.mp4"
    write_video(path, grey_frames(160), 30)
    return path


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "clip").mkdir()
    for number, frame in enumerate(grey_frames(160)):
        Image.fromarray(frame).save(tmp_path / "clip" / f"{number:04}.png")
    return tmp_path / "clip"


@pytest.mark.parametrize("source", ["clip", "folder"])
def test_a_snippet_holds_every_n_th_frame_from_its_start(source, request):
    data = VideoData(request.getfixturevalue(source), image_size=16, stride=3, steps=4, batch_size=32, epoch=32)
    batch = next(iter(data.train_dataloader()))
    assert batch["frames"].shape == (32, 5, 3, 16, 16)
    assert batch["weights"].shape == (32, 4, 0)
    assert (batch["factor"] == -1).all()
    expected = batch["start"][:, 1:] + 3 * torch.arange(5)
    # Video files keep no exact grey, but one frame differs from the next.
    assert (numbers_of(batch["frames"]) - expected).abs().max() <= (1 if source == "clip" else 0)


@pytest.mark.parametrize(("flips", "ways"), [("none", 1), ("horizontal", 2), ("both", 4)])
def test_training_snippets_are_mirrored_whole_and_others_are_not(tmp_path, flips, ways):
    # A bright corner: which of the four it is tells how a frame was mirrored.
    frame = np.zeros((16, 16, 3), np.uint8)
    frame[:8, :8] = 255
    write_video(tmp_path / "corner.mp4", [frame] * 80, 30)
    data = VideoData(tmp_path / "corner.mp4", image_size=16, stride=1, flips=flips, steps=2, batch_size=64, epoch=64)

    def corners(loader):
        frames = next(iter(loader))["frames"].mean(2)
        four = torch.stack([frames[..., y, x] for y in (3, 12) for x in (3, 12)], -1).argmax(-1)
        assert (four == four[:, :1]).all()
        return set(four.flatten().tolist())

    assert len(corners(data.train_dataloader())) == ways
    assert corners(data.val_dataloader()) == {0}
    with pytest.raises(ValueError, match="flips"):
        VideoData(tmp_path / "corner.mp4", flips="vertical")


def test_without_its_background_a_clip_shows_what_moves_on_black(tmp_path):
    frames = []
    for n in range(120):
        frame = np.full((16, 16, 3), 200, np.uint8)
        frame[:, :2] = 40
        place = 3 + n % 12
        frame[4:8, place : place + 2] = 20
        frames.append(frame)
    write_video(tmp_path / "runner.mp4", frames, 30)
    data = VideoData(tmp_path / "runner.mp4", image_size=16, stride=1, steps=2, background="remove", epoch=64)
    assert data.name == "runner, background removed"
    for loader in (data.train_dataloader(), data.test_dataloader()[-1]):
        seen = next(iter(loader))["frames"]
        assert seen.amax(-1).amin() < 0.1 < 0.5 < seen[..., 4:8, :].amax((-1, -2)).min()
        assert seen[..., 10:, :].max() < 0.1
    with pytest.raises(ValueError, match="background"):
        VideoData(tmp_path / "runner.mp4", background="blur")


def animal(x: torch.Tensor, y: torch.Tensor, middle, angle: float, *, tail: float = 0.4, taper: float = 0.15):
    """A bright body that heads along `angle` (clockwise from the right), a dimmer tail, a green spot at its right."""
    cos, sin = np.cos(angle), np.sin(angle)
    ahead, right = (x - middle[0]) * cos + (y - middle[1]) * sin, (y - middle[1]) * cos - (x - middle[0]) * sin
    body = torch.exp(-((ahead / 9) ** 2 + (right / (4.5 - taper * ahead)) ** 2))
    drawn_out = tail * torch.exp(-(((ahead + 18) / 9) ** 2 + (right / 1.5) ** 2))
    spot = 0.1 * torch.exp(-((ahead - 2) ** 2 + (right - 10) ** 2) / 4)
    return torch.stack((torch.maximum(body, drawn_out), spot, torch.zeros_like(body)))


def test_egocentric_snippets_begin_in_the_middle_and_head_to_the_right():
    y, x = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    generator = torch.Generator().manual_seed(0)
    middles = (40 + 48 * torch.rand(24, 2, generator=generator)).tolist()
    angles = (torch.arange(24) / 24 * 2 * torch.pi).tolist()
    # Every one goes four pixels ahead, then turns to its right.
    snippets = torch.stack([
        torch.stack([
            animal(x, y, (mx, my), angle),
            animal(x, y, (mx + 4 * np.cos(angle), my + 4 * np.sin(angle)), angle),
            animal(x, y, (mx + 4 * np.cos(angle), my + 4 * np.sin(angle)), angle + 0.5),
        ])
        for (mx, my), angle in zip(middles, angles, strict=True)
    ])  # fmt: skip
    found, headings = heading(snippets[:, 0])
    # The middle of the body lies a little towards the broader end of it.
    behind = ((heading(animal(x, y, (63.5, 63.5), 0.0)[None])[0] + 1) * 64 - 64)[0, 0].item()
    assert -2 < behind < 0
    middle = torch.tensor(middles) + behind * torch.tensor(angles)[:, None].add(torch.tensor([0, -np.pi / 2])).cos()
    assert ((found + 1) * 64 - 0.5 - middle).abs().max() < 0.1
    assert (torch.tensor(angles) - headings).cos().min() > np.cos(0.02)
    cut = egocentric(snippets, snippets[:, 0], 64)
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    first, second = (31.5 - behind, 31.5), (35.5 - behind, 31.5)
    expected = torch.stack([animal(x, y, first, 0.0), animal(x, y, second, 0.0), animal(x, y, second, 0.5)])
    assert cut.shape == (24, 3, 3, 64, 64)
    # Turned, not mirrored: the green spot is at the right of them all.
    near = torch.tensor([0.08, 0.02, 1e-6])
    assert ((cut - expected).abs().amax((0, 1, 3, 4)) < near).all()
    later = egocentric(snippets, snippets[:, 2], 64)
    assert ((later[:, 2] - expected[0]).abs().amax((0, 2, 3)) < near).all()


@pytest.mark.parametrize("angle", [0.3, 2.0, 4.0])
@pytest.mark.parametrize("shape", [{"taper": 0.0}, {"tail": 0.0}, {}])
@pytest.mark.parametrize("strip", [0.0, 0.35])
def test_an_animal_heads_away_from_its_tail_and_where_it_tapers_beside_what_a_wall_left_of_the_background(
    shape, angle, strip
):
    y, x = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    ahead = (x - 60) * np.cos(angle) + (y - 66) * np.sin(angle)
    right = (y - 66) * np.cos(angle) - (x - 60) * np.sin(angle)
    wall = strip * (((right + 17).abs() < 4) & ((ahead - 8).abs() < 14))
    frames = animal(x, y, (60, 66), angle, **shape)
    frames[0] = torch.maximum(frames[0], wall)
    _, found = heading(frames[None])
    assert np.cos(found.item() - angle) > np.cos(0.05)


@pytest.mark.parametrize("angle", [0.3, 2.0, 4.0])
def test_two_animals_lie_on_a_line_with_the_dimmer_one_ahead(angle):
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    ahead = (x - 30) * np.cos(angle) + (y - 34) * np.sin(angle)
    right = (y - 34) * np.cos(angle) - (x - 30) * np.sin(angle)
    pair = 0.8 * torch.exp(-((ahead - 9) ** 2 + right**2) / 18) + torch.exp(-((ahead + 9) ** 2 + right**2) / 18)
    _, found = heading(pair.expand(1, 3, 64, 64))
    assert np.cos(found.item() - angle) > 0.999


def test_black_pictures_are_cut_without_a_heading():
    black = torch.zeros(2, 3, 3, 32, 32)
    cut = egocentric(black, black[:, 0], 16)
    assert cut.shape == (2, 3, 3, 16, 16)
    assert (cut == 0).all()


@pytest.mark.parametrize("flips", ["none", "both"])
def test_training_snippets_are_seen_from_starts_about_their_own_and_others_from_their_first_frame(flips):
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    # It goes a pixel ahead in every frame, so that the place where it is first seen tells from when it is seen.
    ahead = [(255 * animal(x, y, (14 + n, 32), 0.0)).permute(1, 2, 0).byte().numpy() for n in range(36)]
    clips = [np.stack(ahead), np.stack(ahead[:9])]
    segments = [video.Segment(0, 0, 18), video.Segment(0, 18, 36), video.Segment(1, 0, 9)]

    def seen(spread: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        sequences = video.ClipSequences(
            clips, segments, 2, spread=spread, flips=flips, steps=3, length=1200, seed=0, cut=32
        )
        batch = sequences.draw(torch.arange(sequences.length), torch.Generator().manual_seed(0))
        red, green = batch["frames"][:, 0, :2].unbind(1)
        red = red**4
        place = (red * torch.arange(32.0)).sum((-1, -2)) / red.sum((-1, -2)) - 15.5
        return batch["start"], place, green.sum(-1).argmax(-1) > 16

    start, place, spot_at_the_right = seen(spread=False)
    away = -2 * (place / 2).round().long()
    assert (place + away).abs().max() < 0.3
    middle = away[(start[:, 0] == 0) & (start[:, 1] == 6)]
    assert set(middle.tolist()) == {-6, -4, -2, 0, 2, 4}
    # Starts end six frames before their segment does, and nothing is seen from beyond them.
    for clip, first, last in ((0, 0, 11), (0, 18, 29), (1, 0, 2)):
        inside = (start[:, 0] == clip) & (start[:, 1] >= first) & (start[:, 1] <= last)
        seen_from = (start[:, 1] + away)[inside]
        assert len(seen_from) > 10
        assert (seen_from.min(), seen_from.max()) == (first, last)
    share = spot_at_the_right.double().mean()
    assert share == 1 if flips == "none" else abs(share - 0.5) < 0.1
    _, place, spot_at_the_right = seen(spread=True)
    assert place.abs().max() < 0.3
    assert spot_at_the_right.all()


def test_footage_in_egocentric_coordinates(tmp_path):
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(192.0), indexing="ij")
    frames = [
        (250 * animal(x, y, (30 + 1.2 * n, 48), 0.0)[:1].expand(3, 96, 192)).permute(1, 2, 0).byte().numpy()
        for n in range(110)
    ]
    write_video(tmp_path / "runner.mp4", frames, 30)
    data = VideoData(
        tmp_path / "runner.mp4", image_size=64, stride=1, steps=2, background="remove", crop="padded", egocentric=3,
        batch_size=64, epoch=64,
    )  # fmt: skip
    assert data.name == "runner, background removed, egocentric"
    for loader in (data.train_dataloader(), *data.test_dataloader()):
        seen = next(iter(loader))["frames"]
        assert seen.shape[1:] == (3, 3, 64, 64)
        mass = seen.mean(2) ** 4
        place = ((mass.sum(-2) * torch.arange(64.0)).sum(-1) / mass.sum((-2, -1)) - 31.5).mean(0)
        assert (place - place[0] - torch.tensor([0, 1.2, 2.4])).abs().max() < 0.1
        assert abs(place[0]) < 0.7
        # The tail is at the left, and not squeezed: the body is still twice as long as it is wide.
        first = seen[:, 0].mean(1) > 0.25
        assert 1.4 < (first.any(-2).sum(-1) / first.any(-1).sum(-1)).double().mean() < 4
    assert data.clips[0].shape[1:] == (192, 192, 3)
    for options in ({"egocentric": 2}, {"egocentric": 0.5, "background": "remove"}):
        with pytest.raises(ValueError, match="expected egocentric of 0, or of at least 1 with background='remove'"):
            VideoData(tmp_path / "runner.mp4", **options)


def test_a_background_is_that_of_the_training_part_or_of_all_where_there_is_none():
    clip = np.concatenate([np.full((8, 2, 2, 3), 10), np.full((4, 2, 2, 3), 90)]).astype(np.uint8)
    assert (video._median(clip, video.Segment(0, 0, 6)) == 10).all()
    assert (video._median(clip, video.Segment(0, 8, 12)) == 90).all()
    for nothing in (None, video.Segment(0, 0, 0)):
        assert (video._median(clip, nothing) == 10).all()


def test_parts_are_split_by_time_with_a_gap(folder):
    data = VideoData(folder, image_size=8, stride=2, steps=3, gap=7, epoch=500)
    shown = {
        part: {n for batch in loader for n in numbers_of(batch["frames"]).flatten().tolist()}
        for part, loader in {
            "train": data.train_dataloader(),
            "val": data.val_dataloader(),
            "test": data.test_dataloader()[0],
        }.items()
    }
    assert shown["train"] == set(range(116))
    assert min(shown["val"]) == 116 + 7
    assert max(shown["val"]) < min(shown["test"]) - 7
    assert max(shown["test"]) == 159


def test_one_test_loader_as_no_factor_is_known(clip):
    data = VideoData(clip, image_size=8)
    assert data.factors == ()
    assert len(data.test_dataloader()) == 1
    assert data.name == "clip"
    with pytest.raises(ValueError, match="VideoData: expected no factor"):
        data.sequences("test", seed=0, factor=1)


def test_worker_processes_change_nothing_and_seeds_do(clip):
    frames = [
        torch.cat([batch["frames"] for batch in data.train_dataloader()])
        for workers, seed in ((0, 0), (2, 0), (0, 1))
        for data in [VideoData(clip, image_size=8, workers=workers, seed=seed, epoch=64, batch_size=16)]
    ]
    assert torch.equal(frames[0], frames[1])
    assert not torch.equal(frames[0], frames[2])


def test_several_clips_are_each_split_by_time(tmp_path):
    for name in ("a", "b"):
        write_video(tmp_path / f"{name}.mp4", grey_frames(160), 30)
    data = VideoData(tmp_path, image_size=8)
    data.setup()
    assert [segment.clip for segment in data.parts["test"]] == [0, 1]
    assert next(iter(data.train_dataloader()))["start"][:, 0].unique().tolist() == [0, 1]


def test_every_keeps_a_part_of_the_frames(folder):
    data = VideoData(folder, image_size=8, every=2, stride=1, steps=2, epoch=16)
    batch = next(iter(data.train_dataloader()))
    assert torch.equal(numbers_of(batch["frames"]), 2 * (batch["start"][:, 1:] + torch.arange(3)))


def test_crops_are_taken_where_they_should_be(tmp_path):
    frame = np.zeros((20, 40, 3), np.uint8)
    frame[:, 30:] = 255
    (tmp_path / "f").mkdir()
    for number in range(160):
        Image.fromarray(frame).save(tmp_path / "f" / f"{number:03}.png")

    def bright(crop):
        data = VideoData(tmp_path / "f", image_size=8, crop=crop)
        data.setup()
        return float((data.clips[0][0] > 127).mean())

    assert bright("whole") == 0.25
    assert bright("square") == 0
    assert bright("padded") == 0.125
    assert bright((0.5, 0.0, 1.0, 1.0)) == 0.5
    with pytest.raises(ValueError, match="left < right"):
        bright((0.5, 0.0, 0.5, 1.0))


def test_decoding_happens_once_and_again_after_damage(clip, tmp_path, monkeypatch):
    VideoData(clip, image_size=8).setup()
    with monkeypatch.context() as patch:
        patch.setattr(video, "read_clip", lambda *_: pytest.fail("decoded again"))
        VideoData(clip, image_size=8).setup()
    (packed,) = (tmp_path / "frames").rglob("*.npy")
    content = bytearray(packed.read_bytes())
    content[-7] ^= 1
    packed.write_bytes(content)
    data = VideoData(clip, image_size=8)
    data.setup()
    assert numbers_of(torch.from_numpy(data.clips[0][-1].copy())[None] / 255.0).item() in (158, 159, 160)


def test_damaged_missing_and_short_videos_are_reported(clip, tmp_path):
    content = clip.read_bytes()
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="expected a whole video file"):
        VideoData(broken, image_size=8).setup()
    with pytest.raises(DataError, match="expected a video file .* found none.*--data.root"):
        VideoData(tmp_path / "nowhere").setup()
    with pytest.raises(DataError, match="VideoData: expected a video file or a folder, got none"):
        VideoData().setup()
    write_video(tmp_path / "short.mp4", grey_frames(20), 30)
    with pytest.raises(DataError, match=r"expected 11 or more frames in a row for .*--data.stride"):
        VideoData(tmp_path / "short.mp4", image_size=8).setup()


def test_a_video_that_ends_before_its_header_says_is_reported(tmp_path):
    whole, fast = tmp_path / "whole.mp4", tmp_path / "fast.mp4"
    random = np.random.RandomState(0)
    write_video(whole, (random.randint(0, 255, (64, 64, 3)).astype(np.uint8) for _ in range(60)), 30)
    with av.open(str(whole)) as source, av.open(str(fast), "w", options={"movflags": "faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    content = fast.read_bytes()
    fast.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(DataError, match=r"expected (60 frames|a whole video file)"):
        VideoData(fast, image_size=8).setup()


def test_a_video_that_was_cut_without_encoding_it_anew_is_whole(clip, tmp_path):
    cut = tmp_path / "cut.mp4"
    with av.open(str(clip)) as source, av.open(str(cut), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                # What lies before time 0 is in the file, and in its count of frames, but not shown.
                for name in ("pts", "dts"):
                    setattr(packet, name, getattr(packet, name) - round(10 / (30 * packet.time_base)))
                packet.stream = stream
                target.mux(packet)
    with av.open(str(cut)) as container:
        assert container.streams.video[0].frames == 160
    shown = list(read_clip(cut, "whole", 8))
    assert len(shown) == 150
    assert abs(shown[0].mean() - 10) <= 1
    assert abs(shown[-1].mean() - 159) <= 1
    # The last entry of its list of edits says how long it lasts: three seconds, in place of five.
    content = bytearray(cut.read_bytes())
    entry = content.index(b"elst") + 12
    content[entry : entry + 4] = (3000).to_bytes(4, "big")
    cut.write_bytes(content)
    assert len(list(read_clip(cut, "whole", 8))) == 90


def test_frames_and_clips_are_in_the_order_of_their_numbers(tmp_path):
    for name in ("take10", "take9"):
        (tmp_path / name).mkdir()
        for number, frame in enumerate(grey_frames(101)):
            Image.fromarray(frame).save(tmp_path / name / f"frame{number}.png")
    data = VideoData(tmp_path, image_size=8, steps=1, stride=1)
    data.setup()
    assert [path.name for path in data.find_clips()] == ["take9", "take10"]
    assert data.clips[0][:, 0, 0, 0].tolist() == list(range(101))


def test_what_systems_leave_beside_files_is_no_footage(folder):
    (folder / "._0000.png").write_bytes(b"nothing")
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX" / "clip.mp4").write_bytes(b"nothing")
    data = VideoData(folder, image_size=8)
    data.setup()
    assert len(data.clips) == 1
    assert len(data.clips[0]) == 160


def test_sixteen_bits_are_scaled_to_eight(tmp_path):
    values = np.array([0, 257, 32_896, 65_535], np.uint16).repeat(16).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / "deep.png")
    assert read_image(tmp_path / "deep.png", "whole", 8)[:, :, 0].flatten()[::16].tolist() == [0, 1, 128, 255]


def test_many_clips_keep_few_files_open_and_none_travels_to_a_worker(tmp_path):
    clips = {f"{k}.npy": lambda k=k: iter(grey_frames(20, first=k)) for k in range(100)}
    packed = pack(tmp_path / "packed", {}, clips, "packing")
    assert [int(clip[3].max()) for clip in packed] == [k + 3 for k in range(100)]
    assert sum("packed" in link for link in open_files()) < 70
    assert len(pickle.dumps(packed)) < packed[0][:].nbytes
    assert np.array_equal(pickle.loads(pickle.dumps(packed))[7][:], packed[7][:])
    np.save(tmp_path / "other.npy", packed[8][:])
    (tmp_path / "other.npy").replace(packed[1].path)
    with pytest.raises(DataError, match="expected the frames that were there at first"):
        packed[1][:]


def open_files():
    """What this process has open, where Linux tells."""
    if not os.path.isdir("/proc/self/fd"):
        return []
    links = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
    return [link for link in links if os.path.exists(link)]


def test_parts_that_overlap_are_refused(clip):
    with pytest.raises(ValueError, match="expected gap of at least 0, got -30"):
        VideoData(clip, gap=-30)


def test_the_root_may_be_a_string(clip):
    VideoData(str(clip), image_size=8).setup()


def test_the_command_line_has_the_arguments_of_a_class_and_of_its_parents():
    parser = ArgumentParser()
    parser.add_class_arguments(CalMS21Data)
    defaults = parser.get_defaults().as_dict()
    shared = {"root", "steps", "batch_size", "epoch", "workers", "seed"}
    assert set(defaults) == shared | {
        "image_size",
        "crop",
        "stride",
        "every",
        "flips",
        "background",
        "egocentric",
        "evaluation",
    }
    assert (defaults["crop"], defaults["every"]) == ("whole", 2)
    for fixed in ("gap", "stpes"):
        with pytest.raises(TypeError, match=fixed):
            CalMS21Data(**{fixed: 1})


# CalMS21


def write_calms21(root, train=3, test=1):
    for part, count in {"train": train, "test": test}.items():
        (root / "task1_videos_mp4" / part).mkdir(parents=True, exist_ok=True)
        for k in range(count):
            frames = grey_frames(40, first=80 * k)
            write_video(root / f"task1_videos_mp4/{part}/mouse{k + 1:03}_task1_annotator1.mp4", frames, 30)


def test_calms21_keeps_the_official_test_videos_and_holds_out_whole_ones(tmp_path, monkeypatch):
    write_calms21(tmp_path)
    monkeypatch.setattr("flowvae.data.calms21.OFFICIAL", {"train": 3, "test": 1})
    data = CalMS21Data(tmp_path, image_size=8, every=1, stride=2, epoch=100)
    data.setup()
    assert data.name == "CalMS21"
    assert [[segment.clip for segment in data.parts[part]] for part in ("train", "val", "test")] == [[0, 1], [2], [3]]
    assert data.parts["test"] == [(3, 0, 40)]


def test_a_calms21_video_of_another_size_is_reported(tmp_path, monkeypatch):
    write_calms21(tmp_path)
    monkeypatch.setattr("flowvae.data.calms21.OFFICIAL", {"train": 3, "test": 1})
    odd = tmp_path / "task1_videos_mp4/train/mouse002_task1_annotator1.mp4"
    write_video(odd, [frame[:-4] for frame in grey_frames(40)], 30)
    with pytest.raises(DataError, match=r"mouse002_task1_annotator1.mp4: expected pictures of .* as in mouse001"):
        CalMS21Data(tmp_path, image_size=8).setup()


def test_calms21_with_missing_or_strange_videos_is_reported(tmp_path):
    with pytest.raises(DataError, match="task1_videos_mp4: expected CalMS21 there.*10.22002"):
        CalMS21Data(tmp_path).setup()
    write_calms21(tmp_path)
    with pytest.raises(DataError, match="expected 70 videos mouseNNN_task1_annotator1.mp4, got 3"):
        CalMS21Data(tmp_path).setup()


# Cityscapes


def write_cityscapes(root, cities, frames=30):
    for part, names in cities.items():
        for name in names:
            folder = root / "leftImg8bit_sequence" / part / name
            folder.mkdir(parents=True)
            for sequence in range(2):
                for frame in range(100, 100 + frames):
                    image = np.full((8, 16, 3), frame + 60 * sequence, np.uint8)
                    Image.fromarray(image).save(folder / f"{name}_{sequence:06}_{frame:06}_leftImg8bit.png")


@pytest.fixture
def few_snippets(monkeypatch):
    monkeypatch.setattr("flowvae.data.cityscapes.OFFICIAL", {"train": 2, "val": 2, "test": 2})


def test_cityscapes_snippets_keep_the_official_parts(tmp_path, monkeypatch):
    write_cityscapes(tmp_path, {"train": ["aachen", "ulm"], "val": ["lindau"], "test": ["bonn"]})
    monkeypatch.setattr("flowvae.data.cityscapes.OFFICIAL", {"train": 4, "val": 2, "test": 2})
    data = CityscapesData(tmp_path, image_size=8, stride=3, epoch=64)
    batch = next(iter(data.train_dataloader()))
    assert data.name == "Cityscapes"
    assert {part: len(segments) for part, segments in data.parts.items()} == {"train": 4, "val": 2, "test": 2}
    assert batch["start"][:, 0].unique().tolist() == [0, 1, 2, 3]
    steps = (batch["frames"].mean((-1, -2, -3)) * 255).diff(dim=1)
    assert torch.allclose(steps, torch.tensor(3.0), atol=1e-3)


@pytest.mark.usefixtures("few_snippets")
def test_without_a_test_part_the_validation_snippets_are_halved(tmp_path):
    write_cityscapes(tmp_path, {"train": ["aachen"], "val": ["lindau"]})
    data = CityscapesData(tmp_path, image_size=8)
    data.setup()
    assert {part: len(segments) for part, segments in data.parts.items()} == {"train": 2, "val": 1, "test": 1}


@pytest.mark.usefixtures("few_snippets")
def test_a_missing_city_and_a_frame_of_another_size_are_reported(tmp_path):
    write_cityscapes(tmp_path, {"train": ["aachen"], "val": ["lindau"], "test": ["bonn"]})
    odd = tmp_path / "leftImg8bit_sequence/val/lindau/lindau_000001_000110_leftImg8bit.png"
    Image.new("RGB", (4, 3)).save(odd)
    with pytest.raises(DataError, match=r"lindau_000001_000110.*: expected 16×8 pixels.*got 4×3"):
        CityscapesData(tmp_path, image_size=8).setup()
    shutil.rmtree(tmp_path / "leftImg8bit_sequence/train/aachen")
    with pytest.raises(DataError, match="train: expected 2 snippets, got 0 of 0 cities.*--data.partial=true"):
        CityscapesData(tmp_path, image_size=8).setup()


def test_a_part_of_cityscapes_is_called_one(tmp_path):
    write_cityscapes(tmp_path, {"train": ["aachen", "ulm"], "val": ["lindau"]})
    data = CityscapesData(tmp_path, partial=True, image_size=8)
    assert data.name == "part of Cityscapes (6 snippets)"
    assert {part: len(segments) for part, segments in data.parts.items()} == {"train": 4, "val": 1, "test": 1}


def test_a_part_of_cityscapes_has_snippets_for_every_part(tmp_path):
    write_cityscapes(tmp_path, {"train": ["aachen"], "val": ["lindau"]})
    for file in (tmp_path / "leftImg8bit_sequence/val/lindau").glob("lindau_000001_*"):
        file.unlink()
    with pytest.raises(DataError, match="expected snippets for test, or two or more of the validation part.*got 1"):
        CityscapesData(tmp_path, partial=True, image_size=8).setup()


def test_snippets_in_order_show_all_of_a_clip_as_it_was_filmed(folder):
    data = VideoData(folder, image_size=8, stride=2, steps=3, flips="both")
    loaders = data.filmed_order(40)
    assert list(loaders) == ["train", "val", "test"]
    shown = {
        part: torch.cat([numbers_of(batch["frames"])[:, 0] for batch in loader]) for part, loader in loaders.items()
    }
    assert sum(map(len, shown.values())) == pytest.approx(40, abs=2)
    # All that there are: a gap of six frames lies between two parts, and six are left after the last start of each.
    assert sum(len(loader.dataset) for loader in data.filmed_order(1000).values()) == 160 - 2 * 6 - 3 * 6
    for part, firsts in shown.items():
        segment = data.parts[part][0]
        assert firsts[0] == segment.first
        assert (firsts.diff() > 0).all()
        assert segment.stop - firsts[-1] <= 2 * 2 * 3 + 8
    # Even distances: training has as many as its length asks for.
    assert shown["train"].diff().unique().numel() <= 2
    assert len(shown["train"]) > 5 * len(shown["test"])


def test_an_image_without_a_byte_between_its_chunks_is_reported(tmp_path):
    path = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)).save(path)
    whole = path.read_bytes()
    between = whole.index(b"IDAT", whole.index(b"IDAT") + 4) - 6
    path.write_bytes(whole[:between] + whole[between + 1 :])
    with pytest.raises(DataError, match=r"noise\.png: expected a whole image file \(broken PNG file"):
        read_image(path, "square", 8)
    source = Falcor3DData.source
    with pytest.raises(DataError, match="a whole PNG"), reading(path, "a whole PNG file", source):
        Image.open(path).load()


@pytest.mark.usefixtures("few_snippets")
def test_incomplete_cityscapes_are_reported(tmp_path):
    with pytest.raises(DataError, match="leftImg8bit_sequence: expected Cityscapes.*login"):
        CityscapesData(tmp_path).setup()
    write_cityscapes(tmp_path, {"train": ["aachen"], "val": ["lindau"]})
    folder = tmp_path / "leftImg8bit_sequence/train/aachen"
    broken = folder / "aachen_000001_000110_leftImg8bit.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-30])
    with pytest.raises(DataError, match="expected a whole image file"):
        CityscapesData(tmp_path, image_size=8).setup()
    first = folder / "aachen_000000_000100_leftImg8bit.png"
    header = first.read_bytes()
    first.write_bytes(b"nothing")
    with pytest.raises(DataError, match="aachen_000000_000100.*expected a whole image file"):
        CityscapesData(tmp_path, image_size=8).setup()
    first.write_bytes(header)
    broken.unlink()
    with pytest.raises(DataError, match="snippets of 30 frames, got 10 in a row from aachen_000001_000100"):
        CityscapesData(tmp_path, image_size=8).setup()
    broken.with_name("photo.png").write_bytes(whole)
    with pytest.raises(DataError, match="expected a name like aachen_000000_000000_leftImg8bit.png"):
        CityscapesData(tmp_path, image_size=8).setup()


# The real clips


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "frames", "options"),
    [
        ("mouse_openfield_m3v1", 2330, {"crop": "whole", "stride": 5}),
        ("driving_solidWhiteRight", 221, {"crop": (0.2, 0.45, 0.8, 0.98), "stride": 2}),
    ],
)
def test_real_clips_move_visibly_in_every_part(name, frames, options):
    path = REAL / f"{name}.mp4"
    if not path.is_file():
        pytest.skip("the real clips are not here")
    data = VideoData(path, **options)
    data.setup()
    assert len(data.clips[0]) == frames
    for loader in (data.train_dataloader(), data.val_dataloader(), *data.test_dataloader()):
        batch = next(iter(loader))["frames"]
        assert batch.shape[1:] == (6, 3, 64, 64)
        assert ((batch[:, -1] - batch[:, 0]).abs().amax(1) > 0.1).double().mean() > 0.02


def test_a_driving_camera_has_no_background_to_remove():
    with pytest.raises(ValueError, match="as the camera moves"):
        CityscapesData(background="remove")
    with pytest.raises(ValueError, match="egocentric=0, as the camera moves, got 1"):
        CityscapesData(egocentric=1)


def test_frames_are_kept_one_by_one_as_numpy_would_keep_them_together(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (123, 4, 5, 3), np.uint8)
    _save(tmp_path / "frames.npy", iter(frames))
    assert np.array_equal(np.load(tmp_path / "frames.npy", mmap_mode="r"), frames)
    with pytest.raises(DataError, match="expected frames, found none"):
        _save(tmp_path / "none.npy", iter(()))
    with pytest.raises(DataError, match=r"expected frames of shape \(4, 5, 3\).*got \(2, 5, 3\).*number 1"):
        _save(tmp_path / "odd.npy", iter((frames[0], frames[1, :2])))
