"""The figures of an experiment's runs as Markdown, CSV and a picture."""

import csv
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from torchflowfield.viz import COLORS

from .experiments import Experiment
from .runs import Run

# Figures of one factor: key in the results, heading, digits.
_BY_FACTOR = (
    ("flow_relative", "relative error", 3),
    ("flow", "error", 1),
    ("ratio", "over re-encoding", 3),
    ("off_ratio", "off over on", 2),
    ("axis_relative", "one dimension", 3),
    ("affine_relative", "affine map", 3),
    ("log_p_gaussian", "log p, normal", 2),
    ("log_p_bernoulli", "log p, Bernoulli", 1),
)
_DIGITS = {heading: digits for _, heading, digits in _BY_FACTOR} | {"seconds": 0}
# Where a table has many models: one table per figure, models against factors.
_COMPARED = (
    "relative error", "error", "over re-encoding", "log p, normal", "log p, Bernoulli", "affine map", "F1",
    "speed correlation",
)  # fmt: skip
# What a page shows without scrolling.
_FIRST = ("F1", "speed correlation", "relative error", "over re-encoding")
_SCORES = ("mig", "dci_disentanglement", "dci_completeness", "dci_informativeness")

# What somebody has written between these lines of a page stays when the page is written again.
_NOTES = ("<!-- notes -->", "<!-- end of notes -->")

Values = dict[str, list[float]]


class Measured(NamedTuple):
    """The figures of a run, the name of the data that it was tested on, and the versions that trained it."""

    run: Run
    data: str
    versions: str
    figures: dict[str, float]


def columns(figures: dict[str, Any]) -> dict[str, float]:
    """The figures of a run as a flat row, `"factor: figure"` or `"figure"`."""
    flat: dict[str, float] = {}
    factors = factors_of(figures)
    for key, heading, _ in _BY_FACTOR:
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
    flat |= {name.replace("_", " "): v for name, v in figures.get("disentanglement", {}).items() if name in _SCORES}
    flat["seconds"] = figures["seconds"]
    return flat


def factors_of(figures: dict[str, Any]) -> list[str]:
    """Factors that a run was tested on, in their order."""
    return [name for name, value in figures.items() if isinstance(value, dict) and "flow_relative" in value]


def write_table(path: Path, experiment: Experiment, command: str, planned: Sequence[Run], preset: str) -> list[Path]:
    """Write `path` with `.md`, `.csv` and `.png`; what is missing stays out and is named.

    Where a run is not here, but a table beside this one has its figures, of the same configuration and seed, they are
    kept. So is what was written by hand between `<!-- notes -->` and `<!-- end of notes -->`.

    Raises:
        SystemExit: If no run is done.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    measured = _measured(path.with_suffix(".csv"), planned)
    if not measured:
        raise SystemExit(f"reproduce: no run of {experiment.title!r} finished; see the logs.")
    with path.with_suffix(".csv").open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["row", "seed", "figure", "value", "run", "data", "versions"])
        for run, data, versions, figures in measured:
            values, about = figures.items(), (run.folder.name, data, versions)
            writer.writerows([run.row.name, run.seed, key, f"{value:.6g}", *about] for key, value in values)
    found = read_rows(path.with_suffix(".csv"))
    rows: dict[str, Values] = {run.row.name: found.get(run.row.name, {}) for run in planned}
    # Rows on several data sets have different factors.
    alike = len({tuple(row_factors(values)) for values in found.values()}) == 1
    factors = row_factors(next(iter(found.values())))
    data_names = sorted({each.data for each in measured})
    versions = sorted({each.versions for each in measured if each.versions})
    seeds = sorted({run.seed for run in planned})
    lines = [
        f"# {experiment.title}",
        "",
        f"Data: {'; '.join(data_names)}. {_seeds(seeds)}",
        f"Command: `{command}`. {'; '.join(versions)}{', ' * bool(versions)}{preset} preset.",
        "",
    ]
    known = [each.run for each in measured]
    earlier = [run for run in known if run.results() is None]
    for words, runs in (
        ("Not finished", [run for run in planned if run not in known]),
        # Which of them are not here says something only where others are.
        ("From an earlier run", earlier if earlier != known else []),
    ):
        if runs:
            lines += [f"{words}: {'; '.join(f'{run.row.name}, seed {run.seed}' for run in runs)}.", ""]
    drawn = alike and factors and len(found) > 1
    if drawn:
        lines += [f"![Errors of the models]({path.name}.png)", ""]
    lines += _notes(path.with_suffix(".md"))
    if len(experiment.rows) > 4:
        lines += _comparison(rows, factors)
    else:
        for name, values in rows.items():
            if values:
                lines += [f"## {name}", "", *_factor_table(values), ""]
    path.with_suffix(".md").write_text("\n".join(lines).rstrip() + "\n")
    written = [path.with_suffix(".md"), path.with_suffix(".csv")]
    if drawn:
        draw_errors(path.with_suffix(".png"), found, factors, "; ".join(data_names))
        written.append(path.with_suffix(".png"))
    return written


def append_rows(path: Path, rows: Iterable[tuple[str, int, str, float]]) -> None:
    """Add figures that are no table's to its CSV: row, seed, figure and value."""
    with path.with_suffix(".csv").open("a", newline="") as stream:
        lines = ((row, seed, figure, f"{value:.6g}", "", "", "") for row, seed, figure, value in rows)
        csv.writer(stream, lineterminator="\n").writerows(lines)


def _measured(table: Path, planned: Sequence[Run]) -> list[Measured]:
    """What is known of the planned runs: from their results, or from this and other tables with the same runs."""
    earlier: dict[str, tuple[str, str, dict[str, float]]] = {}
    others = sorted(other for other in table.parent.glob("*.csv") if other != table)
    for file in [*others, table] if table.exists() else others:
        with file.open(newline="") as stream:
            for entry in csv.DictReader(stream):
                if entry.get("run"):
                    about = (entry["data"], entry.get("versions") or "", {})
                    earlier.setdefault(entry["run"], about)[-1][entry["figure"]] = float(entry["value"])
    measured = []
    for run in planned:
        if (results := run.results()) is not None:
            measured.append(Measured(run, results["data"], results.get("versions", ""), columns(results)))
        elif run.folder.name in earlier:
            measured.append(Measured(run, *earlier[run.folder.name]))
    return measured


def _notes(page: Path) -> list[str]:
    """The lines of a page that somebody has written, with their marks."""
    lines = page.read_text().splitlines() if page.exists() else []
    if not all(mark in lines for mark in _NOTES):
        return []
    first, last = (lines.index(mark) for mark in _NOTES)
    return [*lines[first : last + 1], ""]


def row_factors(values: Values) -> list[str]:
    """Factors that a row has figures of, in their order."""
    return list(dict.fromkeys(name.split(": ")[0] for name in values if ": " in name))


def read_rows(path: Path) -> dict[str, Values]:
    """The figures of every row of a table's CSV, one value for each seed."""
    rows: dict[str, Values] = {}
    with path.open(newline="") as stream:
        for entry in csv.DictReader(stream):
            rows.setdefault(entry["row"], {}).setdefault(entry["figure"], []).append(float(entry["value"]))
    return rows


def _seeds(seeds: list[int]) -> str:
    if len(seeds) == 1:
        return f"Seed {seeds[0]}."
    return f"Seeds {', '.join(map(str, seeds))}; mean ± standard deviation."


def cell(values: Values, name: str) -> str:
    """Mean and spread of a figure, empty if there is none."""
    if not values.get(name):
        return ""
    digits = _DIGITS.get(name.split(": ")[-1], 3)
    spread = f" ± {statistics.stdev(values[name]):.{digits}f}" if len(values[name]) > 1 else ""
    return f"{statistics.mean(values[name]):.{digits}f}{spread}"


def _comparison(rows: dict[str, Values], factors: list[str]) -> list[str]:
    """One table per figure with a row for each model, then one of the figures without factors."""
    lines: list[str] = []
    for heading in _COMPARED:
        present = {name: v for name, v in rows.items() if any(f"{factor}: {heading}" in v for factor in factors)}
        if present:
            cells = {name: [cell(v, f"{factor}: {heading}") for factor in factors] for name, v in present.items()}
            lines += [f"## {heading[0].upper()}{heading[1:]}", "", *_markdown(["", *factors], cells), ""]
    scores = [score.replace("_", " ") for score in _SCORES]
    wanted = [*scores, "mean F1", "largest surplus usage", "selector accuracy", "seconds"]
    others = [name for name in wanted if any(name in v for v in rows.values())]
    cells = {name: [cell(v, other) for other in others] for name, v in rows.items() if v}
    return [*lines, "## Further figures", "", *_markdown(["", *others], cells), ""]


def _factor_table(values: Values) -> list[str]:
    factors = row_factors(values)
    present = dict.fromkeys(n.split(": ")[1] for n in values if ": " in n)
    kinds = [kind for kind in _FIRST if kind in present] + [kind for kind in present if kind not in _FIRST]
    cells = {factor: [cell(values, f"{factor}: {kind}") for kind in kinds] for factor in factors}
    others = [f"{name}: {cell(values, name)}" for name in values if ": " not in name]
    table = [*_markdown(["", *kinds], cells), ""] if factors else []
    return [*table, "; ".join(others) + "."]


def _markdown(header: list[str], cells: dict[str, list[str]]) -> list[str]:
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    return [*lines, *(f"| {name} | {' | '.join(row)} |" for name, row in cells.items())]


def draw_errors(path: Path, rows: dict[str, Values], factors: list[str], data: str) -> None:
    """Relative error of every model for every factor, with the seeds' spread."""
    figure = Figure(figsize=(2.2 + 1.5 * len(factors), 0.34 * len(rows) * 1.6 + 1.6), layout="constrained")
    axes = figure.subplots(1, len(factors), sharey=True, squeeze=False)[0]
    for axis, factor in zip(axes, factors, strict=True):
        errors = [values.get(f"{factor}: relative error", [float("nan")]) for values in rows.values()]
        means = [statistics.mean(e) for e in errors]
        spread = [statistics.stdev(e) if len(e) > 1 else 0.0 for e in errors]
        colors = [COLORS[1] if name.startswith("ours") else COLORS[0] for name in rows]
        axis.barh(range(len(rows)), means, xerr=spread, color=colors, height=0.7)
        axis.set_title(factor.replace("_", " "), fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_yticks(range(len(rows)), list(rows))
    axes[0].invert_yaxis()
    figure.supxlabel(f"equivariance error relative to the frames, {data}", fontsize=9)
    figure.savefig(path, dpi=120)
