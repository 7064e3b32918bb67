"""One model with one seed: trained and tested in a process of its own, kept under a hash of all that it depends on."""

import functools
import hashlib
import importlib
import json
import os
import platform
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from filelock import FileLock

from .rows import Row

EXAMPLES = Path(__file__).parents[1]
CONFIGS = EXAMPLES / "configs"
# A figure that every evaluation has had since it last grew.
_NEWEST_FIGURE = "needs_labels"
# glibc gives freed memory back after every step, and every page then faults again: a fifth of the time of a step.
_ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": str(1 << 29), "MALLOC_MMAP_THRESHOLD_": str(1 << 25)}
PARENT = "FLOWVAE_PARENT"
"""Environment variable with the process that a training belongs to, see `train.py`."""

# Files of a data set that are looked into, and bytes at each of their ends.
_LOOKED_INTO, _END = 64, 1 << 16
# Raised when the training of these models changes without their configurations.
_VERSIONS = {"/supervised": 2, "/weak": 2, "unsupervised": 4, "unsupervised_double": 2, "unsupervised_choose": 3}


class Run(NamedTuple):
    """A row with one seed."""

    row: Row
    seed: int
    root: Path | None
    runs: Path
    extra: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Where the run keeps everything, named by a hash of all that it depends on."""
        versions = [version for name, version in _VERSIONS.items() if name in self.row.config]
        data = self.root is not None and contents(self.root)
        given = [self._config(), self.row.overrides, self.seed, self.extra, data, versions]
        key = json.dumps(given, sort_keys=True)
        return self.runs / hashlib.sha256(key.encode()).hexdigest()[:12]

    @property
    def checkpoint(self) -> Path:
        """What training wrote last."""
        return self.folder / "last.ckpt"

    @property
    def has_checkpoint(self) -> bool:
        """Whether that is there and whole: what was being written when the machine stopped is no archive yet."""
        return zipfile.is_zipfile(self.checkpoint)

    @property
    def needs_labels(self) -> bool:
        """Whether training reads which transformation a sequence shows."""
        module, name = self._config()["model"]["class_path"].rsplit(".", 1)
        return getattr(importlib.import_module(module), name).needs_labels

    @property
    def data_arguments(self) -> dict[str, Any]:
        """What the data module is made with, beside its root, as far as the row and the command line say it."""
        given = dict(self.row.overrides)
        for argument in self.extra:
            name, _, value = argument.lstrip("-").partition("=")
            given[name] = yaml.safe_load(value)
        named = {name.replace("data.init_args.", "data."): value for name, value in given.items()}
        return {name.removeprefix("data."): value for name, value in named.items() if name.startswith("data.")}

    def _config(self) -> dict[str, Any]:
        return yaml.safe_load((CONFIGS / self.row.config).read_text())

    def results(self) -> dict[str, Any] | None:
        """Figures of a finished run."""
        file = self.folder / "results.json"
        return json.loads(file.read_text()) if file.exists() else None

    def outdated(self) -> bool:
        """Whether the run was tested before the evaluation had all of its figures."""
        results = self.results()
        return results is not None and _NEWEST_FIGURE not in results and self.has_checkpoint

    def state(self) -> str:
        """`"done"`, `"interrupted"` or `"missing"`."""
        if self.results() is not None:
            return "done"
        return "interrupted" if self.has_checkpoint else "missing"

    def execute(self, threads: int) -> None:
        """Train from the last checkpoint, if there is one, and test; a finished run is tested again.

        Where another process is at the same run, wait for it and leave what it did as it is.

        Raises:
            subprocess.CalledProcessError: If a command fails; `log.txt` says why.
            FileNotFoundError: If the test left no figures.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        finished = self.results() is not None
        with FileLock(self.folder / "lock"):
            if finished or self.results() is None:
                self._execute(threads)

    def _execute(self, threads: int) -> None:
        folder = self.folder
        # Training and the first test count; a later test does not.
        counted = nullcontext() if self.results() is not None else _counting(folder / "seconds", self.seconds())
        with counted, (folder / "log.txt").open("a") as log:
            for command in self._commands():
                subprocess.run(
                    [sys.executable, str(EXAMPLES / "train.py"), *command],
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**_ALLOCATOR, **os.environ, "OMP_NUM_THREADS": str(threads), PARENT: str(os.getpid())},
                    check=True,
                )
        tests = sorted(folder.rglob("test.json"), key=lambda file: file.stat().st_mtime)
        if not tests:
            raise FileNotFoundError(f"{folder}: expected the figures of the test in a test.json, found none.")
        figures = json.loads(tests[-1].read_text())
        earlier = self.results() or {"seconds": self.seconds(), "versions": versions_here()}
        figures |= {name: earlier[name] for name in ("seconds", "versions") if name in earlier}
        unfinished = folder / "results.part"
        unfinished.write_text(json.dumps(figures, indent=1) + "\n")
        unfinished.replace(folder / "results.json")

    def seconds(self) -> float:
        """Time spent on the run so far."""
        clock = self.folder / "seconds"
        return float(clock.read_text()) if clock.exists() else 0.0

    def _commands(self) -> list[list[str]]:
        folder, last = self.folder, self.checkpoint
        common = ["--config", str(CONFIGS / self.row.config), "--seed_everything", str(self.seed)]
        for name, value in self.row.overrides.items():
            common += [f"--{name}", json.dumps(value) if isinstance(value, bool | list | None) else str(value)]
        common += ["--data.init_args.seed", str(self.seed), "--trainer.default_root_dir", str(folder)]
        common += ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
        if self.root is not None:
            common += ["--data.init_args.root", str(self.root)]
        common += self.extra
        # A second device would have the figures of half of the sequences.
        one = ["--trainer.devices", "1", "--trainer.num_nodes", "1", "--trainer.strategy", "auto"]
        test = ["test", *common, *one, "--ckpt_path", str(last)]
        if self.results() is not None:
            return [test]
        resume = ["--ckpt_path", str(last)] if self.has_checkpoint else []
        # Within an epoch the loader would begin again with batches that the model has seen.
        between = ["--checkpoint.every_n_epochs", "1", "--checkpoint.save_on_train_epoch_end", "true"]
        return [["fit", *common, *between, *resume], test]


@functools.cache
def contents(root: Path) -> str:
    """Hash of a data set's files, which is the same wherever they lie: of names and sizes, and of the ends of some."""
    above = root.parent if root.is_file() else root
    seen = (path for path in root.rglob("*") if path.is_file() and not path.name.startswith("."))
    files = [root] if root.is_file() else sorted(seen)
    digest = hashlib.sha256()
    for number, path in enumerate(files):
        digest.update(f"{path.relative_to(above).as_posix()} {path.stat().st_size}\n".encode())
        # Files of different images may have the same names and sizes. Of very many, some will tell.
        if number % max(1, len(files) // _LOOKED_INTO) == 0:
            with path.open("rb") as stream:
                digest.update(stream.read(_END))
                stream.seek(max(0, path.stat().st_size - _END))
                digest.update(stream.read(_END))
    return digest.hexdigest()


def versions_here() -> str:
    """What trains here, for captions."""
    torch_version, cores = torch.__version__.split("+")[0], os.cpu_count()
    return f"PyTorch {torch_version}, Python {platform.python_version()}, {cores} CPU cores"


@contextmanager
def _counting(clock: Path, before: float, tick: float = 10.0) -> Iterator[None]:
    """Keep the seconds spent, beyond those `before`, in a file that tells them even after a kill."""
    started, over, unfinished = time.monotonic(), threading.Event(), clock.with_suffix(".part")

    def write() -> None:
        unfinished.write_text(str(before + time.monotonic() - started))
        unfinished.replace(clock)

    def count() -> None:
        while not over.wait(tick):
            write()

    counter = threading.Thread(target=count, daemon=True)
    counter.start()
    try:
        yield
    finally:
        over.set()
        counter.join()
        write()
