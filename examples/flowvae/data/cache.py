"""Files that are made once, checked whenever they are asked for, and made again when they are damaged."""

import hashlib
import json
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from filelock import FileLock
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Maker = Callable[[Path], None]
"""Writes one file at the path that it is given, in the format that the path's suffix names."""

_MANIFEST, _UNFINISHED = "manifest.jsonl", ".unfinished"


class Cache:
    """A folder of made files with a SHA-256 of each.

    A file is written under another name, moved into place when it is complete, and then listed in `manifest.jsonl`, so
    a process that is killed leaves nothing that counts. Any number of processes may ask for the same files: one makes
    a file, the others wait for it.

    Args:
        folder: Where the files are; made when the first one is written.
        recipe: What the files depend on, as JSON values: a file made by another recipe is made again. Put everything in
            it that changes the content: sizes, seeds, and a version number of the code that writes.

    Example:
        >>> cache = Cache(Path("data/shapes"), {"size": 64, "seed": 0, "version": 1})
        >>> path = cache.ensure("images/000001.png", lambda path: draw().save(path))  # doctest: +SKIP
    """

    def __init__(self, folder: Path, recipe: dict) -> None:
        self.folder, self.recipe = Path(folder), recipe
        self.fingerprint = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]
        self._manifest = self.folder / _MANIFEST
        self._read_to = 0
        self._listed: dict[str, dict] = {}
        self._reading = threading.RLock()

    def ensure(self, name: str, make: Maker) -> Path:
        """The file of that name, made if it is missing, unfinished, altered, or of another recipe.

        Args:
            name: Path relative to the cache's folder, with forward slashes.
            make: Writes the file at the path that it gets: another name with the same suffix in a folder that exists.
                It may ask the cache for other files.

        Returns:
            The path of a file whose checksum is right.

        Raises:
            ValueError: If the name leaves the folder or is one of the cache's own.
            RuntimeError: If `make` wrote no file.
        """
        path = self._path(name)
        if self._is_good(name):
            return path
        unfinished = self.folder / _UNFINISHED / name
        unfinished.parent.mkdir(parents=True, exist_ok=True)
        lock = unfinished.with_name(unfinished.name + ".lock")
        with FileLock(lock):
            # Another process may have made it in the meantime.
            if not self._is_good(name):
                unfinished.unlink(missing_ok=True)
                make(unfinished)
                if not unfinished.is_file():
                    raise RuntimeError(
                        f"Cache: expected the maker of {name} to write {unfinished}, found no file there."
                    )
                self._put(name, unfinished, path)
            # Whoever waits for this lock finds a good file, so it does not matter that a third one makes a new lock.
            lock.unlink(missing_ok=True)
        return path

    def ensure_all(self, makers: Mapping[str, Maker], title: str, *, jobs: int = 1) -> list[Path]:
        """Every one of the named files, with a progress bar if one has to be made.

        Args:
            makers: Name and maker of every file, as `ensure` takes them.
            title: What the bar shows.
            jobs: Threads that make files, for makers that wait for the disk or a library most of the time.
        """
        wanted = [name for name in makers if not self._is_good(name)]
        if wanted:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            with Progress(*columns) as progress, ThreadPoolExecutor(jobs) as pool:
                made = pool.map(lambda name: self.ensure(name, makers[name]), wanted)
                for _ in progress.track(made, total=len(wanted), description=title):
                    pass
        return [self._path(name) for name in makers]

    def verify(self) -> list[str]:
        """Names of files that are listed but missing, altered or of another recipe, or that were left unfinished."""
        self._read_manifest()
        damaged = {name for name in self._listed if not self._is_good(name)}
        unfinished = self.folder / _UNFINISHED
        for path in unfinished.rglob("*"):
            if path.is_file() and path.suffix != ".lock":
                damaged.add(path.relative_to(unfinished).as_posix())
        return sorted(damaged)

    def _path(self, name: str) -> Path:
        parts = Path(name).parts
        if not parts or Path(name).is_absolute() or ".." in parts or parts[0] in (_MANIFEST, _UNFINISHED):
            raise ValueError(f"Cache: expected a file name inside the cache's folder, got {name!r}.")
        return self.folder / name

    def _is_good(self, name: str) -> bool:
        self._read_manifest()
        entry = self._listed.get(name)
        return entry is not None and entry["recipe"] == self.fingerprint and self._is_intact(name)

    def _is_intact(self, name: str) -> bool:
        entry, path = self._listed[name], self.folder / name
        return path.is_file() and path.stat().st_size == entry["bytes"] and sha256(path) == entry["sha256"]

    def _put(self, name: str, unfinished: Path, path: Path) -> None:
        entry = {
            "name": name,
            "bytes": unfinished.stat().st_size,
            "sha256": sha256(unfinished),
            "recipe": self.fingerprint,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("rb+") as stream:
            os.fsync(stream.fileno())
        unfinished.replace(path)
        with FileLock(self.folder / _UNFINISHED / "manifest.lock"):
            self._append(entry)

    def _append(self, entry: dict) -> None:
        self._read_manifest()
        lines = [entry]
        if all(other["recipe"] != self.fingerprint for other in self._listed.values()):
            lines.insert(0, {"recipe": self.fingerprint, "values": self.recipe})
        torn = self._manifest.is_file() and not _ends_in_newline(self._manifest)
        text = "\n" * torn + "".join(json.dumps(line) + "\n" for line in lines)
        with self._manifest.open("a", encoding="utf-8") as stream:
            stream.write(text)

    def _read_manifest(self) -> None:
        """Take in the lines that were added since the last look; a line that cannot be read lists nothing."""
        with self._reading:
            self._read_new_lines()

    def _read_new_lines(self) -> None:
        if not self._manifest.is_file():
            self._listed, self._read_to = {}, 0
            return
        if self._manifest.stat().st_size == self._read_to:
            return
        with self._manifest.open("rb") as stream:
            if self._manifest.stat().st_size < self._read_to:
                self._listed, self._read_to = {}, 0
            stream.seek(self._read_to)
            content = stream.read()
        content = content[: content.rfind(b"\n") + 1]
        self._read_to += len(content)
        for line in content.splitlines():
            try:
                entry = json.loads(line)
                self._listed[entry["name"]] = {key: entry[key] for key in ("bytes", "sha256", "recipe")}
            except (ValueError, KeyError, TypeError):
                continue


def is_foreign(folder: Path) -> bool:
    """Whether a folder has files in it and none of them was made by a cache."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return any(not name.startswith(".") for name in names) and not {_MANIFEST, _UNFINISHED} & set(names)


def damaged_files(folder: Path) -> list[str]:
    """Names of the files in a cache's folder that are listed but missing or altered, whatever made them."""
    cache = Cache(folder, {})
    cache._read_manifest()
    return sorted(name for name in cache._listed if not cache._is_intact(name))


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _ends_in_newline(path: Path) -> bool:
    with path.open("rb") as stream:
        if stream.seek(0, os.SEEK_END) == 0:
            return True
        stream.seek(-1, os.SEEK_END)
        return stream.read() == b"\n"
