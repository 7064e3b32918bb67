"""CalMS21: two mice in a cage from above."""

import re
from pathlib import Path

from .base import Part
from .files import DataError, Source, check_stand_in, is_stand_in, require
from .frames import Crop
from .video import Segment, VideoData

SOURCE = Source(
    "CalMS21", "licence stated there", "https://doi.org/10.22002/D1.1991 (data.caltech.edu)", stand_in="calms21"
)
OFFICIAL = {"train": 70, "test": 19}
_NAME = re.compile(r"mouse\d{3}_task1_annotator1\.mp4")


class CalMS21Data(VideoData):
    """Snippets of CalMS21: a resident mouse and an intruder in a cage from above (Sun et al., 2021).

    `root` holds `task1_videos_mp4/{train,test}/mouseNNN_task1_annotator1.mp4`: 70 and 19 videos at 30 frames a second,
    from https://doi.org/10.22002/D1.1991, which states the licence. No checksum of single files is published. Test
    videos are the official ones; the last tenth of the training videos is for validation.

    Args:
        root: Folder with the official files; without one, a simulated stand-in that is made when it is first needed.
        image_size: Height and width of the frames.
        crop: As for `VideoData`; the cage is about as wide as the frame.
        stride: Frames per step, counted after `every`.
        every: Keep only every n-th frame; the official videos have several hundred thousand.
        evaluation: Most sequences of a validation or test loader.
        steps: Frames after the first.
        batch_size: Sequences per batch.
        epoch: Training sequences per epoch; every epoch has new ones.
        workers: Loader processes.
        seed: Seed of the training sequences. Validation and test sequences are always the same.
    """

    def __init__(
        self,
        root: Path | None = None,
        image_size: int = 64,
        crop: Crop = "whole",
        stride: int = 2,
        every: int = 2,
        evaluation: int = 512,
        steps: int = 5,
        batch_size: int = 128,
        epoch: int = 25_600,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            root, image_size, crop, stride, every, 0, evaluation, None, steps, batch_size, epoch, workers, seed
        )

    def prepare_data(self) -> None:
        """Make the stand-in if no files are given."""
        if self.root is None:
            from .standins import make

            make(SOURCE.stand_in)

    @property
    def name(self) -> str:
        """What the data are, for captions."""
        self.setup()
        return "stand-in for CalMS21 (simulated)" if is_stand_in(self._folder()) else "CalMS21"

    def find_clips(self) -> list[Path]:
        """The videos of the official layout."""
        self.prepare_data()
        root = self._folder()
        check_stand_in(root, SOURCE)
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
        return found

    def split_clips(self, paths: list[Path], lengths: list[int]) -> dict[Part, list[Segment]]:
        """Whole videos: the official test ones, and the last tenth of the training ones for validation."""
        whole = [Segment(clip, 0, length) for clip, length in enumerate(lengths)]
        test = [s for s in whole if paths[s.clip].parent.name == "test"]
        train = [s for s in whole if paths[s.clip].parent.name == "train"]
        held = max(1, len(train) // 10)
        return {"train": train[:-held], "val": train[-held:], "test": test}

    def _folder(self) -> Path:
        from .standins import default_folder

        return default_folder(SOURCE.stand_in) if self.root is None else Path(self.root)
