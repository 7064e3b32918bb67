"""Run a table or a figure of the papers: every model of it for every seed, then tables and pictures.

    python examples/reproduce.py --list
    python examples/reproduce.py mnist_table --data.root data/mnist --jobs 2

What is done is skipped and what was interrupted goes on from its last checkpoint: results are kept under a hash of the
configuration and the seed, and experiments with the same model share its run.
"""

import argparse
import re
import shlex
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
import yaml
from flowvae.data.files import title_of
from flowvae.experiments import EXPERIMENTS, Experiment
from flowvae.finish import FINISHERS, OTHER_DATA, check_data
from flowvae.records import other_seeds
from flowvae.rows import DATA, data_of, on_footage, paper_row
from flowvae.runs import Run
from flowvae.tables import write_table
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

# A run of the paper preset was never finished here: no time is promised.
_PRESETS = ("quick", "paper")
# A root without its data set's folder is other footage.
OFFICIAL_FOLDERS = {"calms21": "task1_videos_mp4", "cityscapes": "leftImg8bit_sequence"}
# Options of `train.py` that every run is given, of which a second value would be for all runs alike.
_OWN = r"--(seed\w*|data(\.init_args)?\.seed|trainer\.default_root_dir|ckpt_path|config|checkpoint\.dirpath)\+?"
# Lines of a log that are shown when its run fails.
_SHOWN = 8


def main(arguments: list[str] | None = None) -> None:
    """Run what is missing of an experiment and write its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("experiment", nargs="?", choices=EXPERIMENTS, help="name of the experiment")
    add("--list", action="store_true", help="show the experiments, or the one named, with their times; run nothing")
    add("--data.root", "--data.init_args.root", "--root", dest="root", action="append", default=[],
        metavar="[NAME=]DIR", help="folder with official files, several by name; stand-ins without one")  # fmt: skip
    add("--preset", choices=_PRESETS, default="quick", help="small networks for CPU cores, or the published sizes")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of every row")
    add("--jobs", type=int, default=1, help="runs at the same time, each in a process of its own")
    add("--threads", type=int, help="threads of one run; if not given, the cores are divided among the jobs")
    add("--retest", action="store_true", help="test finished runs again that lack figures")
    add("--output", type=Path, default=Path("docs/results"), help="folder for the table")
    add("--runs", type=Path, default=Path("runs/reproduce"), help="folder for checkpoints, logs and figures")
    add("--extra", nargs="*", default=[], metavar="ARGUMENT", help="more arguments of train.py, --name=value")
    options, rest = parser.parse_known_args(arguments)
    options.extra = _joined([*options.extra, *rest])
    options.seeds = list(dict.fromkeys(options.seeds))
    if options.threads is None:
        options.threads = max(1, torch.get_num_threads() // max(1, options.jobs))
    if min(options.jobs, options.threads) < 1 or min(options.seeds) < 0:
        parser.error("expected --jobs and --threads of at least 1 and --seeds of at least 0")
    console = Console()
    if options.list or options.experiment is None:
        show(console, options)
    else:
        reproduce(console, options)


def _joined(arguments: list[str]) -> list[str]:
    """Arguments for `train.py` as `--name=value`, although a value may have been given apart from its name."""
    joined: list[str] = []
    for argument in arguments:
        if joined and "=" not in joined[-1] and not argument.startswith("--"):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    for argument in joined:
        name, equals, value = argument.partition("=")
        try:
            yaml.safe_load(value)
        except yaml.YAMLError:
            equals = ""
        if not equals or not re.fullmatch(r"--[\w.]+\+?", name):
            raise SystemExit(f"reproduce: expected an option of this command or --name=value, got {argument!r}.")
        if re.fullmatch(_OWN, name):
            raise SystemExit(f"reproduce: {name} is set for every run by itself; for seeds use --seeds. Leave it out.")
    # One name for what can be said in two ways, as runs are kept under what was said.
    return [re.sub(r"^--(data|model)\.init_args\.", r"--\1.", argument) for argument in joined]


def plan(experiment: Experiment, options: argparse.Namespace) -> list[Run]:
    """Every run of an experiment, seed by seed, so that a table of one seed is there first."""
    rows = experiment.rows
    if options.preset == "paper":
        rows = [paper_row(row) for row in rows]
    extra = tuple(options.extra)
    roots = _roots(options.root, experiment.data)
    footage = other_footage(experiment, options)
    if footage is not None:
        rows = [on_footage(row, footage) for row in rows]
        return [Run(row, seed, footage, options.runs, extra) for seed in options.seeds for row in rows]
    return [Run(row, seed, roots.get(data_of(row)), options.runs, extra) for seed in options.seeds for row in rows]


def other_footage(experiment: Experiment, options: argparse.Namespace) -> Path | None:
    """The video or folder that a video experiment runs on instead of its own data set; None where there is none."""
    root = _roots(options.root, experiment.data).get(experiment.data)
    folder = OFFICIAL_FOLDERS.get(experiment.data)
    return root if root is not None and folder is not None and not (root / folder).is_dir() else None


def _roots(given: list[str], data: str) -> dict[str, Path]:
    """Folder of every data set: `DIR` is that of the experiment's own data, `NAME=DIR` of others."""
    roots, names = {}, (*DATA, *OTHER_DATA)
    for entry in given:
        name, _, folder = entry.rpartition("=")
        if name and name not in names:
            raise SystemExit(f"reproduce: expected --data.root NAME=DIR with one of {', '.join(names)}, got {entry!r}.")
        if not Path(folder).exists():
            raise SystemExit(f"reproduce: expected files for --data.root, found nothing at {folder}.")
        roots[name or data] = Path(folder)
    return roots


def reproduce(console: Console, options: argparse.Namespace) -> None:
    """Run what is missing of an experiment and write its table and pictures."""
    experiment = EXPERIMENTS[options.experiment]
    if options.preset == "paper" and not experiment.paper_sizes:
        raise SystemExit(f"reproduce: {options.experiment} is short runs by design; it has no paper preset.")
    planned = plan(experiment, options)
    _check_used(options, experiment, planned)
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SystemExit(f"reproduce: expected a folder for --output that can be made ({error}).") from error
    missing = [run for run in planned if run.results() is None or (options.retest and run.outdated())]
    console.print(f"{options.experiment}: {len(planned) - len(missing)} of {len(planned)} runs are done")
    roots = _roots(options.root, experiment.data)
    if missing:
        try:
            check_data(missing, experiment.after, roots)
        except (ImportError, OSError, TypeError, ValueError) as error:
            raise SystemExit(f"reproduce: no run was started, as the data cannot be set up. {error}") from error
    failed = _execute(console, missing, experiment, options)
    footage = other_footage(experiment, options)
    name = options.experiment
    if footage is not None:
        # A dot would begin a suffix.
        title = title_of(footage)
        name += "_" + re.sub(r"[^\w-]", "_", title)
        experiment = experiment._replace(title=f"Footage ({title}): {experiment.title.partition(': ')[2]}")
    name += "_paper" if options.preset == "paper" else ""
    # What is known of further seeds stays in the table.
    planned += other_seeds((options.output / name).with_suffix(".csv"), planned)
    command = _command(options, sorted({run.seed for run in planned}))
    written = write_table(options.output / name, experiment, command, planned, options.preset)
    if experiment.after is not None:
        models = [run for run in planned if run.results() is not None and run.has_checkpoint]
        if not models:
            console.print(
                f"No pictures of {name}: none of its models is in {options.runs}. For them run the command again until "
                f"a training has ended, or name the folder of ended ones by --runs."
            )
        written += FINISHERS[experiment.after](options.output / name, models, roots)
    for path in written:
        console.print(f"wrote {path}")
    if failed:
        raise SystemExit(f"reproduce: {failed} of {len(missing)} runs failed; run the same command again to go on.")


def _check_used(options: argparse.Namespace, experiment: Experiment, planned: list[Run]) -> None:
    """Raise for a named folder that nothing in the experiment reads."""
    read = {data_of(run.row) for run in planned} | ({"dsprites"} if experiment.after == "unseen_data" else set())
    unread = [name for name in _roots(options.root, experiment.data) if name not in read]
    if unread:
        raise SystemExit(
            f"reproduce: {options.experiment} reads {', '.join(sorted(read))}, got --data.root for "
            f"{', '.join(unread)}. Leave it out."
        )


def _execute(console: Console, missing: list[Run], experiment: Experiment, options: argparse.Namespace) -> int:
    """Run what is missing with a progress bar over the whole table; the number of runs that failed."""
    failed, started, durations = 0, time.monotonic(), []
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"), console=console,
    )  # fmt: skip

    def left() -> str:
        # Finished runs tell best; before the first one, what such a run usually takes.
        each = sum(durations) / len(durations) if durations else 60 * experiment.minutes
        seconds = each * (len(missing) - len(durations) - failed) / options.jobs
        return f"about {_duration(max(0.0, seconds))} left"

    with bar, ThreadPoolExecutor(options.jobs) as pool:
        task = bar.add_task(options.experiment, total=len(missing), left=left())

        def execute(run: Run) -> None:
            nonlocal failed
            begun = time.monotonic()
            bar.console.print(f"{run.row.name}, seed {run.seed}: {run.folder}")
            try:
                run.execute(options.threads)
                durations.append(time.monotonic() - begun)
            except Exception as error:
                failed += 1
                bar.console.print(_failure(run, error), markup=False, highlight=False)
            bar.update(task, advance=1, left=left())

        for _ in pool.map(execute, missing):
            pass
    if missing:
        console.print(f"{len(missing) - failed} runs in {_duration(time.monotonic() - started)}")
    return failed


def _failure(run: Run, error: Exception) -> str:
    """Which run failed, and why: for a command its log says it."""
    failed, log = f"failed: {run.row.name}, seed {run.seed}", run.folder / "log.txt"
    if not isinstance(error, subprocess.CalledProcessError) or not log.exists():
        return f"{failed}: {type(error).__name__}: {error}"
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return "\n    ".join([f"{failed}, with exit status {error.returncode}; {log} ends with", *lines[-_SHOWN:]])


def show(console: Console, options: argparse.Namespace) -> None:
    """All experiments with their state and the time that the missing runs will take."""
    # A name is there to be typed, however narrow the terminal.
    column = Column("experiment", no_wrap=True, min_width=max(map(len, EXPERIMENTS)))
    table = Table(column, "of", "what", "done", "a run", "left", title=f"{options.preset} preset")
    shown = EXPERIMENTS if options.experiment is None else {options.experiment: EXPERIMENTS[options.experiment]}
    unnamed = [entry for entry in options.root if "=" not in entry]
    if options.experiment is None and unnamed:
        raise SystemExit(
            f"reproduce: expected --data.root NAME=DIR beside --list, got {unnamed[0]!r}. Name its data set, or name "
            f"an experiment to see that alone."
        )
    for name, experiment in shown.items():
        planned = plan(experiment, options)
        states = [run.state() for run in planned]
        seconds = [r["seconds"] for run in planned if (r := run.results()) is not None]
        measured = sum(seconds) / len(seconds) if seconds else None
        each = measured if measured is not None else 60 * experiment.minutes
        missing = len(planned) - len(seconds)
        done = f"{len(seconds)}/{len(planned)}"
        done += f", {states.count('interrupted')} interrupted" if "interrupted" in states else ""
        known = measured is not None or options.preset == "quick"
        table.add_row(
            name,
            experiment.paper,
            f"{experiment.title}; {experiment.data}",
            done,
            ("" if measured is not None else "~") + _duration(each) if known else "unknown",
            _duration(each * missing / options.jobs) if known else "unknown",
        )
    console.print(table)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 90 else f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _command(options: argparse.Namespace, seeds: list[int]) -> str:
    parts = [f"python examples/reproduce.py {options.experiment}"]
    experiment = EXPERIMENTS[options.experiment]
    footage = other_footage(experiment, options)
    shown = _shown_roots(options.root, experiment.data) if footage is None else [footage.name]
    parts += [f"--data.root {name}" for name in shown]
    parts += ["--preset paper"] if options.preset == "paper" else []
    parts += ["--seeds " + " ".join(map(str, seeds))] if seeds != [0, 1, 2] else []
    return " ".join([*parts, *map(_quoted, options.extra)])


def _quoted(argument: str) -> str:
    # Only the value, so that the option reads as it was typed.
    name, equals, value = argument.partition("=")
    return name + equals + shlex.quote(value) if equals else shlex.quote(argument)


def _shown_roots(given: list[str], data: str) -> list[str]:
    # Tables do not tell where somebody keeps the files.
    names = _roots(given, data)
    return [f"data/{name}" if name == data else f"{name}=data/{name}" for name in names]


if __name__ == "__main__":
    main()
