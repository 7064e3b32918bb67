"""Run a table of results: every row for every seed, then means and spreads as Markdown and CSV.

    python examples/reproduce.py --list
    python examples/reproduce.py mnist --root data/mnist --jobs 2

What is done is skipped and what was interrupted goes on from its last checkpoint: results are kept under a hash of the
configuration and the seed.
"""

import argparse
import csv
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from flowvae.data.transforms import FACTORS
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
CONFIGS = HERE / "configs"


class Row(NamedTuple):
    """One row of a table: a configuration file and what differs from it."""

    name: str
    config: str
    overrides: dict[str, Any] = {}  # noqa: RUF012


_SINGLE = "mnist/unsupervised_single.yaml"
_MODEL = "model.init_args."
_CHOOSE = {_MODEL + "learn_rates": True, "trainer.callbacks": "flowvae.selection.BackwardSelection"}

EXPERIMENTS: dict[str, tuple[str, list[Row]]] = {
    "mnist_supervised": (
        "Supervised flows (FFRL)",
        [Row("supervised", "mnist/supervised.yaml")],
    ),
    "mnist_weak": (
        "Weakly supervised flows (FFRL): one unknown transformation per sequence",
        [Row("weak", "mnist/weak.yaml")],
    ),
    "mnist_unsupervised": (
        "Unsupervised flows (STA)",
        [
            Row("single control, spikes", _SINGLE),
            Row("single control, spikes and slabs", "mnist/unsupervised_slab.yaml"),
            Row("double control, spikes", "mnist/unsupervised_double.yaml"),
        ],
    ),
    "mnist_choose_k": (
        "Choosing K: banks with more flows than the data have transformations",
        [Row(f"K = {k}, learnable rates", "mnist/unsupervised_choose.yaml", {_MODEL + "fields": k}) for k in (5, 8)],
    ),
    "mnist_ablations": (
        "Ablations of the unsupervised model (STA)",
        [
            Row("spikes only, Helmholtz, K = 3, on/keep 0.1/0.9", _SINGLE),
            Row("spikes and slabs", "mnist/unsupervised_slab.yaml"),
            Row("slabs from the start", "mnist/unsupervised_slab.yaml", {_MODEL + "slab_from": 0.0}),
            Row("potential flows alone", _SINGLE, {_MODEL + "kind": "potential"}),
            Row("rotational flows alone", _SINGLE, {_MODEL + "kind": "rotational"}),
            *(Row(f"K = {k}", _SINGLE, {_MODEL + "fields": k}) for k in (2, 5, 8)),
            Row("on/keep 0.3/0.7", _SINGLE, {_MODEL + "on": 0.3, _MODEL + "keep": 0.7}),
        ],
    ),
}


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
        config = (CONFIGS / self.row.config).read_text()
        key = json.dumps([config, self.row.overrides, self.seed, self.extra], sort_keys=True)
        return self.runs / hashlib.sha256(key.encode()).hexdigest()[:12]

    def results(self) -> dict[str, Any] | None:
        """Figures of a finished run."""
        file = self.folder / "results.json"
        return json.loads(file.read_text()) if file.exists() else None

    def execute(self, threads: int) -> None:
        """Train from the last checkpoint, if there is one, and test."""
        folder = self.folder
        folder.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        clock = folder / "seconds"
        before = float(clock.read_text()) if clock.exists() else 0.0
        last = folder / "last.ckpt"
        common = ["--config", str(CONFIGS / self.row.config), "--seed_everything", str(self.seed)]
        common += ["--data.seed", str(self.seed), "--trainer.default_root_dir", str(folder)]
        common += ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
        if self.root is not None:
            common += ["--data.root", str(self.root)]
        for name, value in self.row.overrides.items():
            common += [f"--{name}", json.dumps(value) if isinstance(value, bool) else str(value)]
        common += self.extra
        saving = ["--trainer.callbacks+", "lightning.pytorch.callbacks.ModelCheckpoint"]
        saving += ["--trainer.callbacks.dirpath", str(folder), "--trainer.callbacks.save_last", "true"]
        saving += ["--trainer.callbacks.every_n_train_steps", "250", "--trainer.callbacks.filename", "step"]
        resume = ["--ckpt_path", str(last)] if last.exists() else []
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        with (folder / "log.txt").open("a") as log:
            for command in (["fit", *common, *saving, *resume], ["test", *common, "--ckpt_path", str(last)]):
                subprocess.run(
                    [sys.executable, str(HERE / "train.py"), *command],
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    check=True,
                )
                clock.write_text(str(before + time.monotonic() - started))
        newest = max(folder.rglob("test.json"), key=lambda file: file.stat().st_mtime)
        figures = json.loads(newest.read_text())
        figures["seconds"] = before + time.monotonic() - started
        (folder / "results.json").write_text(json.dumps(figures, indent=1) + "\n")


def main() -> None:
    """Run what is missing of an experiment and write its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("experiment", nargs="?", choices=EXPERIMENTS, help="name of the experiment")
    add("--list", action="store_true", help="show the experiments and their state, and run nothing")
    add("--root", type=Path, help="folder with MNIST's IDX files; scikit-learn's digits without one")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of every row")
    add("--jobs", type=int, default=1, help="runs at the same time, each in a process of its own")
    add("--threads", type=int, default=1, help="threads of one run")
    add("--output", type=Path, default=Path("docs/results"), help="folder for the table")
    add("--runs", type=Path, default=Path("runs/reproduce"), help="folder for checkpoints, logs and figures")
    add("--extra", nargs="*", default=[], metavar="ARGUMENT", help="more arguments of train.py, as --name=value")
    options, rest = parser.parse_known_args()
    options.extra += rest
    reproduce(**vars(options))


def reproduce(
    experiment: str | None,
    list: bool,
    root: Path | None,
    seeds: list[int],
    jobs: int,
    threads: int,
    output: Path,
    runs: Path,
    extra: list[str],
) -> None:
    """Run what is missing of an experiment and write its table."""
    console = Console()
    if list or experiment is None:
        _show(console, seeds, root, runs, tuple(extra))
        return
    title, rows = EXPERIMENTS[experiment]
    planned = [Run(row, seed, root, runs, tuple(extra)) for row in rows for seed in seeds]
    missing = [run for run in planned if run.results() is None]
    started, done = time.monotonic(), 0

    def execute(run: Run) -> None:
        nonlocal done
        try:
            run.execute(threads)
        except subprocess.CalledProcessError:
            console.print(f"failed: {run.row.name}, seed {run.seed}; see {run.folder / 'log.txt'}")
        done += 1
        elapsed = time.monotonic() - started
        left = elapsed / done * (len(missing) - done)
        console.print(
            f"{done}/{len(missing)} {run.row.name}, seed {run.seed}; {elapsed:.0f} s, about {left:.0f} s left"
        )

    console.print(f"{experiment}: {len(planned) - len(missing)} of {len(planned)} runs are done")
    with ThreadPoolExecutor(jobs) as pool:
        for _ in pool.map(execute, missing):
            pass
    command = f"python examples/reproduce.py {experiment}" + (" --root data/mnist" if root is not None else "")
    _write(output / experiment, title, command, rows, planned, seeds)
    console.print(f"Table: {output / experiment}.md")


def _show(console: Console, seeds: list[int], root: Path | None, runs: Path, extra: tuple[str, ...]) -> None:
    table = Table("experiment", "what", "done", "seconds a run")
    for name, (title, rows) in EXPERIMENTS.items():
        results = [Run(row, seed, root, runs, extra).results() for row in rows for seed in seeds]
        finished = [r["seconds"] for r in results if r is not None]
        average = f"{statistics.mean(finished):.0f}" if finished else ""
        table.add_row(name, title, f"{len(finished)}/{len(results)}", average)
    console.print(table)


def _columns(figures: dict[str, Any]) -> dict[str, float]:
    """The figures of a run as a flat row."""
    flat: dict[str, float] = {}
    for factor in FACTORS:
        flat[f"{factor}: relative error"] = figures[factor]["flow_relative"]
    for factor in FACTORS:
        flat[f"{factor}: over re-encoding"] = figures[factor]["ratio"]
    for factor in FACTORS:
        flat[f"{factor}: off over on"] = figures[factor]["off_ratio"]
    if "selector" in figures:
        flat["selector accuracy"] = figures["selector"]["accuracy"]
    if "recovery" in figures:
        recovery = figures["recovery"]
        if len(recovery["f1"]) == len(FACTORS):
            for factor, f1 in zip(FACTORS, recovery["f1"], strict=True):
                flat[f"{factor}: F1"] = f1
        flat["mean F1"] = recovery["mean_f1"]
        if recovery["slab_correlation"] is not None:
            for factor, value in zip(FACTORS, recovery["slab_correlation"], strict=True):
                flat[f"{factor}: speed correlation"] = value
        surplus = [u for k, u in enumerate(recovery["usage"]) if k not in recovery["matching"]]
        if surplus:
            flat["largest surplus usage"] = max(surplus)
    flat["seconds"] = figures["seconds"]
    return flat


def _write(path: Path, title: str, command: str, rows: list[Row], planned: list[Run], seeds: list[int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    finished = {(run.row.name, run.seed): run.results() for run in planned}
    present = [r for r in finished.values() if r is not None]
    if not present:
        raise SystemExit(f"reproduce: no run of {title!r} finished; see the logs.")
    lines = [
        f"# {title}",
        "",
        f"Data: {present[0]['data']}. Seeds {', '.join(map(str, seeds))}; mean ± standard deviation.",
    ]
    versions = f"PyTorch {torch.__version__.split('+')[0]}, Python {platform.python_version()}"
    lines += [f"Command: `{command}`. {versions}, {os.cpu_count()} CPU cores, quick preset.", ""]
    with path.with_suffix(".csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["row", "seed", "figure", "value"])
        for row in rows:
            values: dict[str, list[float]] = {}
            for seed in seeds:
                figures = finished[row.name, seed]
                for name, value in (_columns(figures) if figures else {}).items():
                    values.setdefault(name, []).append(value)
                    writer.writerow([row.name, seed, name, f"{value:.6g}"])
            lines += [f"## {row.name}", "", *_factor_table(values), ""]
            kinds = [f["recovery"].get("kind") for s in seeds if (f := finished[row.name, s]) and "recovery" in f]
            for seed, kind in zip(seeds, kinds, strict=False):
                if kind:
                    chosen = ", ".join(f"{f} by a {k} flow" for f, k in zip(FACTORS, kind, strict=True))
                    lines.append(f"- seed {seed}: {chosen}")
            lines.append("")
    path.with_suffix(".md").write_text("\n".join(lines).rstrip() + "\n")


def _factor_table(values: dict[str, list[float]]) -> list[str]:
    def cell(name: str) -> str:
        if name not in values:
            return ""
        digits = 0 if name == "seconds" else 3
        mean = statistics.mean(values[name])
        spread = f" ± {statistics.stdev(values[name]):.{digits}f}" if len(values[name]) > 1 else ""
        return f"{mean:.{digits}f}{spread}"

    kinds = tuple(dict.fromkeys(n.split(": ")[1] for n in values if ": " in n))
    lines = ["| | " + " | ".join(kinds) + " |", "|---" * (len(kinds) + 1) + "|"]
    for factor in FACTORS:
        lines.append(f"| {factor} | " + " | ".join(cell(f"{factor}: {kind}") for kind in kinds) + " |")
    others = [f"{name}: {cell(name)}" for name in values if ": " not in name]
    return [*lines, "", "; ".join(others) + "."]


if __name__ == "__main__":
    main()
