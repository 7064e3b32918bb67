"""CalMS21: two mice in a cage from above."""

import re
from pathlib import Path
from typing import Any

from .base import Part
from .clips import check_sizes
from .files import DataError, Source, is_stand_in, require
from .frames import Crop
from .video import Segment, VideoData

SOURCE = Source("CalMS21", "CC BY-NC-SA", "https://doi.org/10.22002/D1.1991 (data.caltech.edu)", stand_in="calms21")
OFFICIAL = {"train": 70, "test": 19}
_NAME = re.compile(r"mouse\d{3}_task1_annotator1\.mp4")


class CalMS21Data(VideoData):
    """Snippets of CalMS21: a resident mouse and an intruder in a cage from above (Sun et al., 2021; CC BY-NC-SA).

    `root` holds `task1_videos_mp4/{train,test}/mouseNNN_task1_annotator1.mp4`: 70 and 19 videos at 30 frames a second,
    from https://doi.org/10.22002/D1.1991. The licence is as stated in https://openreview.net/forum?id=NevK78-K4bZ; no
    checksum of single files is published. Test videos are the official ones; the last tenth of the training videos is
    for validation.

    Args:
        root: Folder with the official files; without one, a simulated stand-in that is made when it is first needed.
        crop: As for `VideoData`; the cage is about as wide as the frame.
        every: Keep only every n-th frame; the official videos have several hundred thousand.
        others: As for `VideoData`, but `camera`, `gap` and `title`.
    """

    source = SOURCE

    def __init__(self, root: Path | None = None, *, crop: Crop = "whole", every: int = 2, **others: Any) -> None:
        super().__init__(root, crop=crop, every=every, camera="rests", gap=0, title=None, **others)

    @property
    def name(self) -> str:
        """What the data are, for captions."""
        self.setup()
        return self.describe("stand-in for CalMS21 (simulated)" if is_stand_in(self._folder()) else "CalMS21")

    def find_clips(self) -> list[Path]:
        """The videos of the official layout."""
        root = self._checked_folder()
        videos = require(root / "task1_videos_mp4", SOURCE)
        found = []
        for part, official in OFFICIAL.items():
            paths = sorted(require(videos / part, SOURCE).glob("*.mp4"))
            strange = [path.name for path in paths if not _NAME.fullmatch(path.name)]
            expected = "two or more" if is_stand_in(root) and part == "train" else "one or more"
            enough = len(paths) >= (2 if part == "train" else 1) if is_stand_in(root) else len(paths) == official
            if strange or not enough:
                expected = expected if is_stand_in(root) else official
                raise DataError(
                    f"{videos / part}: expected {expected} videos mouseNNN_task1_annotator1.mp4, got {len(paths)}"
                    f"{', among them ' + strange[0] if strange else ''}. {SOURCE.remedy()}"
                )
            found += paths
        check_sizes(found)
        return found

    def split_clips(self, paths: list[Path], lengths: list[int]) -> dict[Part, list[Segment]]:
        """Whole videos: the official test ones, and the last tenth of the training ones for validation."""
        whole = [Segment(clip, 0, length) for clip, length in enumerate(lengths)]
        test = [s for s in whole if paths[s.clip].parent.name == "test"]
        train = [s for s in whole if paths[s.clip].parent.name == "train"]
        held = max(1, len(train) // 10)
        return {"train": train[:-held], "val": train[-held:], "test": test}
