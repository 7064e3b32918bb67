"""Video files and folders of frames: found, named and read."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from .files import DataError
from .frames import Crop, read_image, shrink

_VIDEOS, _IMAGES = {".mp4", ".avi", ".mov", ".mkv"}, {".png", ".jpg", ".jpeg"}


def find_clips(root: Path) -> list[Path]:
    """Video files and frame folders at or below a path, sorted by `in_order`.

    Raises:
        DataError: If there are none.
    """
    if root.is_file() and root.suffix.lower() in _VIDEOS:
        return [root]
    if root.is_dir():
        files = sorted(
            (path for path in root.rglob("*") if path.is_file() and not _is_hidden(path, root)), key=in_order
        )
        videos = [path for path in files if path.suffix.lower() in _VIDEOS]
        folders = sorted({path.parent for path in files if path.suffix.lower() in _IMAGES}, key=in_order)
        if videos or folders:
            return videos or folders
    raise DataError(
        f"{root}: expected a video file ({', '.join(sorted(_VIDEOS))}) or a folder with videos or frames, found none. "
        f"Check --data.root."
    )


def in_order(path: Path) -> list[list[tuple[int, str]]]:
    """Key that sorts paths by their names, with numbers in them by their value: `frame2` comes before `frame10`."""
    # What is split off at odd places are the numbers; those of one value are told apart by their digits.
    parts = (enumerate(re.split(r"(\d+)", part)) for part in path.parts)
    return [[(int(text) if place % 2 else 0, text) for place, text in pieces] for pieces in parts]


def _is_hidden(path: Path, root: Path) -> bool:
    """Whether it is one of the files that systems leave beside others."""
    return any(part.startswith(".") or part == "__MACOSX" for part in path.relative_to(root).parts)


def check_sizes(paths: list[Path]) -> None:
    """Compare the width and height of video files with those of the first.

    Raises:
        DataError: If one has others, or is damaged.
    """
    sizes = {}
    for path in paths:
        try:
            with av.open(path) as container:
                sizes[path] = [(stream.width, stream.height) for stream in container.streams.video]
        except (av.FFmpegError, OSError) as error:
            raise DataError(f"{path}: expected a whole video file ({error}). Get it again.") from error
        if sizes[path] != sizes[paths[0]]:
            raise DataError(
                f"{path}: expected pictures of {sizes[paths[0]]} pixels, as in {paths[0].name}, got {sizes[path]}. "
                f"Get the file again."
            )


def read_clip(path: Path, crop: Crop, size: int, every: int = 1) -> Iterator[np.ndarray]:
    """Small frames `[size, size, 3]` of a video file or a frame folder.

    Raises:
        DataError: If the file is damaged or ends early.
    """
    if path.is_dir():
        images = [p for p in path.iterdir() if p.suffix.lower() in _IMAGES and not _is_hidden(p, path)]
        images.sort(key=in_order)
        yield from (read_image(image, crop, size) for image in images[::every])
        return
    decoded = 0
    try:
        with av.open(path) as container:
            if not container.streams.video:
                raise DataError(f"{path}: expected a video, got a file without pictures.")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            promised = stream.frames
            for decoded, frame in enumerate(container.decode(stream), 1):
                if (decoded - 1) % every == 0:
                    yield shrink(frame.to_image(), crop, size)
            if decoded and _is_last(frame, stream):
                # The header counts frames too that were cut off and are not shown.
                promised = decoded
    except (av.FFmpegError, OSError) as error:
        raise DataError(
            f"{path}: expected a whole video file ({error}), read {decoded} frames. Get it again."
        ) from error
    if decoded == 0 or decoded < promised:
        raise DataError(f"{path}: expected {promised} frames, as its header says, got {decoded}. Get the file again.")


def _is_last(frame: av.VideoFrame, stream: av.VideoStream) -> bool:
    """Whether a frame is shown when its video ends, by the clock, give or take the time of one or two."""
    if frame.pts is None or not stream.duration or not stream.average_rate:
        return False
    each = 1 / (stream.average_rate * stream.time_base)
    return frame.pts + 2 * each >= (stream.start_time or 0) + stream.duration


def packed_name(path: Path) -> str:
    """Name for the decoded frames of a clip, another one when the clip changes."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    state = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    return f"{path.stem}-{hashlib.sha256(repr((str(path.resolve()), state)).encode()).hexdigest()[:12]}.npy"
