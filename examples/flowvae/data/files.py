"""What every loader asks of a file before it is used, and the error that says what is wrong with it."""

import hashlib
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from .cache import damaged_files


class DataError(ValueError):
    """A data file is missing or is not what its name says."""


class Source(NamedTuple):
    """A data set's title, its licence, where users get it, and its name among the stand-ins (`""`: there is none)."""

    title: str
    licence: str
    where: str
    stand_in: str = ""

    def remedy(self) -> str:
        """What a user can do about a missing or damaged file."""
        other = f", or make a stand-in with make_data.py {self.stand_in}" if self.stand_in else ""
        return f"Get {self.title} from {self.where} ({self.licence}) and give its folder as --data.root{other}."


def title_of(path: Path) -> str:
    """Name of a file without its suffix, or of a folder."""
    return path.name if path.is_dir() else path.stem


def require(path: Path, source: Source) -> Path:
    """The path, if there is something.

    Raises:
        DataError: If there is no such file or folder.
    """
    if path.exists():
        return path
    folder = path.parent
    found = sorted(p.name for p in folder.iterdir())[:8] if folder.is_dir() else "no such folder"
    raise DataError(f"{path}: expected {source.title} there, found {found}. {source.remedy()}")


# What reading a damaged file raises; the SyntaxError is Pillow's for a PNG with a broken chunk.
_DAMAGED = (OSError, EOFError, ValueError, SyntaxError, zipfile.BadZipFile, zlib.error, tokenize.TokenError)


@contextmanager
def reading(path: Path, expected: str, source: Source) -> Iterator[None]:
    """Read a file inside; what `expected` calls it, for the error.

    Raises:
        DataError: If the file turns out to be damaged.
    """
    try:
        yield
    except DataError:
        raise
    except _DAMAGED as error:
        raise DataError(f"{path}: expected {expected} ({error}). {source.remedy()}") from error


def check_md5(path: Path, md5: str, source: Source) -> None:
    """Compare a file with the published checksum.

    Raises:
        DataError: If it differs.
    """
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "md5").hexdigest()
    if found != md5:
        raise DataError(f"{path}: expected the MD5 {md5}, got {found}: the file is damaged. {source.remedy()}")


def is_stand_in(root: Path) -> bool:
    """Whether the files in a folder were made by a command of this project."""
    return (root / "manifest.jsonl").is_file()


def check_stand_in(root: Path, source: Source) -> None:
    """Compare the files of a stand-in with the checksums that were noted when they were made.

    Raises:
        DataError: If a file is missing or altered.
    """
    damaged = damaged_files(root)
    if damaged:
        raise DataError(
            f"{root}: expected the files as they were made, but {len(damaged)} are missing or altered: "
            f"{', '.join(damaged[:3])}. Repair them with make_data.py {source.stand_in} --output {root}."
        )
