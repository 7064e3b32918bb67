"""A stand-in for CalMS21: two simulated mice in a cage, as mp4 files with poses."""

import json
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..cache import Cache
from .behaviour import BEHAVIOURS, Track, simulate
from .mice import draw_frames
from .writing import write_video

FPS = 30
PARTS = {"train": 8, "test": 2}


def make_calms21(folder: Path, parts: dict[str, int] | None = None, frames: int = 1200) -> Cache:
    """Write the videos and poses in the official layout: eight training and two test videos of 40 seconds.

    The animals approach, circle and follow each other in turn; `annotations` says which, by this stand-in's own names.

    Args:
        folder: Folder for the files.
        parts: Videos of every part.
        frames: Frames of every video.
    """
    parts = PARTS if parts is None else parts
    cache = Cache(folder, {"stand_in": "calms21", "frames": frames, "parts": parts, "version": 2})
    names = {part: [f"mouse{k + 1:03}_task1_annotator1" for k in range(count)] for part, count in parts.items()}
    videos = {
        f"task1_videos_mp4/{part}/{name}.mp4": _video_maker(part, name, frames)
        for part, group in names.items()
        for name in group
    }
    cache.ensure_all(videos, "filming CalMS21's stand-in")
    for part, group in names.items():
        cache.ensure(f"calms21_task1_{part}.json", _pose_maker(part, group, frames))
    return cache


def track_of(part: str, name: str, frames: int) -> Track:
    """How the animals of a video move."""
    return simulate(frames, np.random.RandomState(zlib.crc32(f"{part}/{name}".encode())))


def _video_maker(part: str, name: str, frames: int) -> Callable[[Path], None]:
    return lambda path: write_video(path, draw_frames(track_of(part, name, frames)), FPS)


def _pose_maker(part: str, names: list[str], frames: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        sequences = {}
        for name in names:
            track = track_of(part, name, frames)
            keypoints = track.keypoints()
            sequences[f"task1/{part}/{name}"] = {
                "keypoints": keypoints.round(2).tolist(),
                "scores": np.ones((frames, 2, keypoints.shape[-1])).tolist(),
                "annotations": track.behaviour.tolist(),
                "metadata": {"vocab": {behaviour: k for k, behaviour in enumerate(BEHAVIOURS)}, "simulated": True},
            }
        path.write_text(json.dumps({"annotator-id_0": sequences}))

    return make
