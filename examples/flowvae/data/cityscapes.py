"""Cityscapes' sequences: snippets of 30 frames from a driving car."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .base import Part
from .files import DataError, Source, is_stand_in, require
from .frames import FRAMES, PackedFrames, open_image, pack, read_image
from .video import Segment, VideoData

SOURCE = Source(
    "Cityscapes",
    "leftImg8bit_sequence_trainvaltest.zip, own licence, login needed",
    "https://www.cityscapes-dataset.com/downloads",
    stand_in="cityscapes",
)
SNIPPET = 30
OFFICIAL = {"train": 2975, "val": 500, "test": 1525}
"""Snippets of every part."""
_NAME = re.compile(r"(?P<city>[A-Za-z-]+)_(?P<sequence>\d{6})_(?P<frame>\d{6})_leftImg8bit\.png")


class CityscapesData(VideoData):
    """Snippets of 30 frames of a drive at 17 frames a second (Cordts et al., 2016).

    `root` holds `leftImg8bit_sequence/{train,val,test}/CITY/CITY_SSSSSS_FFFFFF_leftImg8bit.png`, 2048×1024 pixels,
    from https://www.cityscapes-dataset.com (a login is needed; own licence for research; no checksum is published). The
    parts are the official ones, which share no city; where there is no `test`, the second half of the validation
    snippets is for test. Frames are decoded and shrunk once, which takes hours for the whole data set and goes on where
    it was stopped.

    Args:
        root: Folder with the official files; without one, a rendered stand-in that is made when it is first needed.
        partial: Take fewer snippets than the official ones, of some cities for instance.
        decoders: Threads that decode.
        others: As for `VideoData`, but `camera`, `every`, `gap` and `title`; no background can be removed,
            and no coordinates are egocentric.
    """

    source = SOURCE

    def __init__(self, root: Path | None = None, *, partial: bool = False, decoders: int = 2, **others: Any) -> None:
        super().__init__(root, camera="moves", every=1, gap=0, title=None, **others)
        self.partial, self.decoders = partial, decoders
        self._snippets: dict[Path, list[Path]] = {}

    @property
    def name(self) -> str:
        """What the data are, for captions."""
        self.setup()
        if is_stand_in(self._folder()):
            return self.describe("stand-in for Cityscapes (rendered)")
        some = sum(map(len, self.parts.values()))
        return self.describe(f"part of Cityscapes ({some:,} snippets)" if self.partial else "Cityscapes")

    def find_clips(self) -> list[Path]:
        """One made-up path per snippet: part, city, and the number of its first frame."""
        folder = require(self._checked_folder() / "leftImg8bit_sequence", SOURCE)
        for part in ("train", "val"):
            require(folder / part, SOURCE)
        self._snippets = {}
        for part, official in OFFICIAL.items():
            cities = sorted(path for path in (folder / part).glob("*") if path.is_dir())
            found = {city: snippets(city) for city in cities}
            count = sum(map(len, found.values()))
            counted = not self.partial and not is_stand_in(self._folder())
            if counted and count != official and (part != "test" or count):
                raise DataError(
                    f"{folder / part}: expected {official:,} snippets, got {count:,} of {len(cities)} cities. "
                    f"{SOURCE.remedy()} To take a part of it pass --data.partial=true."
                )
            for city, numbered in found.items():
                for frames in numbered:
                    first = frames[0].name.removesuffix("_leftImg8bit.png")
                    self._snippets[Path(part) / city.name / first] = frames
        return list(self._snippets)

    def split_clips(self, paths: list[Path], lengths: list[int]) -> dict[Part, list[Segment]]:
        """Whole snippets of the official parts."""
        parts: dict[Part, list[Segment]] = {"train": [], "val": [], "test": []}
        for clip, (path, length) in enumerate(zip(paths, lengths, strict=True)):
            parts[path.parts[0]].append(Segment(clip, 0, length))
        if not parts["test"] and len(parts["val"]) < 2:
            raise DataError(
                f"{self.root}: expected snippets for test, or two or more of the validation part to share with it, got "
                f"{len(parts['val'])}."
            )
        if not parts["test"]:
            half = len(parts["val"]) // 2
            parts["val"], parts["test"] = parts["val"][:half], parts["val"][half:]
        return parts

    def _decoded(self, paths: list[Path]) -> list[PackedFrames]:
        recipe = {"crop": self.crop, "size": self._size, "root": str(self._folder().resolve()), "version": 1}
        with open_image(self._snippets[paths[0]][0]) as image:
            size = image.size
        clips = {}
        for path in paths:
            frames = self._snippets[path]
            state = max(frame.stat().st_mtime_ns for frame in frames)
            clips[f"{path.as_posix()}-{state:x}.npy"] = self._frames(frames, size)
        return pack(FRAMES, recipe, clips, f"decoding {len(paths)} snippets", jobs=self.decoders)

    def _frames(self, paths: list[Path], size: tuple[int, int]) -> Callable[[], Iterator[np.ndarray]]:
        return lambda: (read_image(path, self.crop, self._size, expected=size) for path in paths)


def snippets(city: Path) -> list[list[Path]]:
    """Frames of every snippet in a city's folder, in order.

    Raises:
        DataError: If a name is strange or a frame is missing.
    """
    frames: dict[str, list[tuple[int, Path]]] = defaultdict(list)
    for path in sorted(city.glob("*.png")):
        match = _NAME.fullmatch(path.name)
        if match is None or match["city"] != city.name:
            raise DataError(f"{path}: expected a name like {city.name}_000000_000000_leftImg8bit.png.")
        frames[match["sequence"]].append((int(match["frame"]), path))
    if not frames:
        raise DataError(f"{city}: expected frames *_leftImg8bit.png, found none. {SOURCE.remedy()}")
    found = []
    for numbered in frames.values():
        runs: list[list[Path]] = []
        previous = None
        for number, path in numbered:
            if previous is None or number != previous + 1:
                runs.append([])
            runs[-1].append(path)
            previous = number
        for run in runs:
            if len(run) % SNIPPET:
                raise DataError(
                    f"{city}: expected snippets of {SNIPPET} frames, got {len(run)} in a row from {run[0].name} on. "
                    f"A frame is missing; get the files again."
                )
            found += [run[k : k + SNIPPET] for k in range(0, len(run), SNIPPET)]
    return found
