"""The figures of runs: taken from their results, written to a table's CSV, and found there again."""

import csv
import io
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .runs import Run

# Figures of one factor: key in the results, heading, digits.
BY_FACTOR = (
    ("flow_relative", "relative error", 3),
    ("flow", "error", 1),
    ("ratio", "over re-encoding", 3),
    ("off_ratio", "off over on", 2),
    ("axis_relative", "one dimension", 3),
    ("affine_relative", "affine map", 3),
    ("log_p_gaussian", "log p, normal", 2),
    ("log_p_bernoulli", "log p, Bernoulli", 1),
)
SCORES = ("mig", "dci_disentanglement", "dci_completeness", "dci_informativeness")
_HEADER = ("row", "seed", "figure", "value", "run", "data", "versions")

Values = dict[str, list[float]]


class Measured(NamedTuple):
    """The figures of a run, the name of the data that it was tested on, and the versions that trained it."""

    run: Run
    data: str
    versions: str
    figures: dict[str, float]


class Further(NamedTuple):
    """A figure that is not of the evaluation, measured with the model of a run, and the row that shows it.

    In a CSV it has no data and versions of its own.
    """

    run: Run
    row: str
    figure: str
    value: float


def columns(figures: dict[str, Any]) -> dict[str, float]:
    """The figures of a run as a flat row, `"factor: figure"` or `"figure"`."""
    flat: dict[str, float] = {}
    factors = factors_of(figures)
    for key, heading, _ in BY_FACTOR:
        flat |= {f"{factor}: {heading}": figures[factor][key] for factor in factors if key in figures[factor]}
    if "selector" in figures:
        flat["selector accuracy"] = figures["selector"]["accuracy"]
    if "recovery" in figures and factors:
        recovery = figures["recovery"]
        if len(recovery["f1"]) == len(factors):
            flat |= {f"{factor}: F1": f1 for factor, f1 in zip(factors, recovery["f1"], strict=True)}
        flat["mean F1"] = recovery["mean_f1"]
        if recovery["slab_correlation"] is not None:
            for factor, value in zip(factors, recovery["slab_correlation"], strict=True):
                flat[f"{factor}: speed correlation"] = value
        surplus = [u for k, u in enumerate(recovery["usage"]) if k not in recovery["matching"]]
        if surplus:
            flat["largest surplus usage"] = max(surplus)
        for factor, kind in zip(factors, recovery.get("kind", []), strict=False):
            flat[f"{factor}: rotational"] = float(kind == "rotational")
    flat |= {name.replace("_", " "): v for name, v in figures.get("disentanglement", {}).items() if name in SCORES}
    flat["seconds"] = figures["seconds"]
    return flat


def factors_of(figures: dict[str, Any]) -> list[str]:
    """Factors that a run was tested on, in their order."""
    return [name for name, value in figures.items() if isinstance(value, dict) and "flow_relative" in value]


def row_factors(values: Values) -> list[str]:
    """Factors that a row has figures of, in their order."""
    return list(dict.fromkeys(name.split(": ")[0] for name in values if ": " in name))


def known_figures(table: Path, planned: Sequence[Run]) -> list[Measured]:
    """What is known of the planned runs: from their results, or from this and other tables with the same runs."""
    earlier: dict[str, tuple[str, str, dict[str, float]]] = {}
    others = sorted(other for other in table.parent.glob("*.csv") if other != table)
    for entry in (entry for file in [*others, table] for entry in _entries(file)):
        if entry["run"] and entry["data"]:
            about = (entry["data"], entry["versions"], {})
            earlier.setdefault(entry["run"], about)[-1][entry["figure"]] = float(entry["value"])
    measured = []
    for run in planned:
        if (results := run.results()) is not None:
            measured.append(Measured(run, results["data"], results.get("versions", ""), columns(results)))
        elif run.folder.name in earlier:
            measured.append(Measured(run, *earlier[run.folder.name]))
    return measured


def other_seeds(table: Path, planned: Sequence[Run]) -> list[Run]:
    """Runs of the planned rows with further seeds whose figures a table has, of the same configuration."""
    known = {(entry["row"], int(entry["seed"]), entry["run"]) for entry in _entries(table) if entry["data"]}
    rows, have = {run.row.name: run for run in planned}, {(run.row.name, run.seed) for run in planned}
    seeds = sorted({seed for _, seed, _ in known})
    others = [run._replace(seed=seed) for seed in seeds for run in rows.values() if (run.row.name, seed) not in have]
    return [run for run in others if (run.row.name, run.seed, run.folder.name) in known]


def described_seeds(table: Path) -> list[int]:
    """Seeds of the runs whose flows a table tells the usage of, of all that it has now."""
    return sorted({int(entry["seed"]) for entry in _entries(table) if entry["figure"] == "flow 0: usage"})


def write_figures(table: Path, measured: Sequence[Measured]) -> None:
    """Write a table's CSV anew; further figures of the same runs stay."""
    lines: list[Iterable[Any]] = []
    runs = set()
    for run, data, versions, figures in measured:
        about = (run.folder.name, data, versions)
        runs.add(about[0])
        lines += [(run.row.name, run.seed, name, f"{value:.6g}", *about) for name, value in figures.items()]
    _write(
        table, [*lines, *(entry.values() for entry in _entries(table) if entry["run"] in runs and not entry["data"])]
    )


def add_further(table: Path, figures: Sequence[Further]) -> dict[str, Values]:
    """Put further figures into a table's CSV, in the place of the same runs' earlier ones; all that it has then."""
    lines = [(row, run.seed, name, f"{value:.6g}", run.folder.name, "", "") for run, row, name, value in figures]
    runs = {line[4] for line in lines}
    kept = [entry.values() for entry in _entries(table) if entry["data"] or entry["run"] not in runs]
    _write(table, [*kept, *lines])
    return _by_row(entry for entry in _entries(table) if entry["run"] and not entry["data"])


def read_rows(table: Path, data: Container[str] | None = None) -> dict[str, Values]:
    """The figures of every row of a table's CSV, one value for each seed, without further figures.

    Of several data sets, those on the ones that are named.
    """
    return _by_row(entry for entry in _entries(table) if entry["data"] and (data is None or entry["data"] in data))


def write_whole(path: Path, text: str) -> None:
    """Write a file beside its place and move it there, so that a process that is stopped leaves what was there."""
    unfinished = path.with_name(f"{path.name}.part")
    unfinished.write_text(text, newline="")
    unfinished.replace(path)


def _entries(table: Path) -> list[dict[str, str]]:
    if not table.exists():
        return []
    with table.open(newline="") as stream:
        return [{name: entry.get(name) or "" for name in _HEADER} for entry in csv.DictReader(stream)]


def _write(table: Path, lines: Iterable[Iterable[Any]]) -> None:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([_HEADER, *lines])
    write_whole(table, stream.getvalue())


def _by_row(entries: Iterable[dict[str, str]]) -> dict[str, Values]:
    rows: dict[str, Values] = {}
    for entry in entries:
        rows.setdefault(entry["row"], {}).setdefault(entry["figure"], []).append(float(entry["value"]))
    return rows
