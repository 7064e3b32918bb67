"""The figures of an experiment's runs as Markdown, CSV and a picture."""

import statistics
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from torchflowfield.viz import COLORS

from .experiments import Experiment
from .records import (
    BY_FACTOR,
    SCORES,
    Values,
    described_seeds,
    known_figures,
    read_rows,
    row_factors,
    write_figures,
    write_whole,
)
from .runs import Run
from .verdicts import verdict

_DIGITS = {heading: digits for _, heading, digits in BY_FACTOR} | {"seconds": 0}
# Where a table has many models: one table per figure, models against factors.
_COMPARED = (
    "relative error", "error", "over re-encoding", "log p, normal", "log p, Bernoulli", "one dimension", "affine map",
    "F1", "speed correlation",
)  # fmt: skip
# The table of a data set's baselines that read no labels, with settings of their searches.
_SEARCHED = "{}_best_baselines.csv"
# What a page shows without scrolling.
_FIRST = ("F1", "speed correlation", "relative error", "over re-encoding")
# As many rows as a chart can show, and as many runs as a sentence can name.
_DRAWN, _NAMED = 30, 30

FROM_MODELS = "## What each flow does, seed "
"""Headings of sections that are written with a model, and stay where it is elsewhere."""

# What somebody has written between these lines of a page stays when the page is written again.
_NOTES = ("<!-- notes -->", "<!-- end of notes -->")


def write_table(path: Path, experiment: Experiment, command: str, planned: Sequence[Run], preset: str) -> list[Path]:
    """Write `path` with `.md`, `.csv` and, up to 30 rows, `.png`; what is missing stays out and is named.

    Where a run is not here, but a table beside this one has its figures, of the same configuration and seed, they are
    kept. So is what was written by hand between `<!-- notes -->` and `<!-- end of notes -->`, and what each flow of
    these runs does.

    Raises:
        SystemExit: If no run is done.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    table, page = path.with_suffix(".csv"), path.with_suffix(".md")
    measured = known_figures(table, planned)
    if not measured:
        raise SystemExit(f"reproduce: no run of {experiment.title!r} finished; see the logs.")
    write_figures(table, measured)
    found = read_rows(table)
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
            lines += [f"{words}: {_listed(runs)}.", ""]
    drawn = alike and factors and 1 < len(found) <= _DRAWN
    if drawn:
        lines += [f"![Errors of the models]({path.name}.png)", ""]
    lines += _notes(page)
    sections, _ = _sections(page)
    kept = [sections.get(f"{FROM_MODELS}{seed}", []) for seed in described_seeds(table)]
    if len(experiment.rows) > 4:
        # Of the same data and the usual settings; other sizes and tasks are not measured by them.
        usual = preset == "quick" and not any(run.extra for run in planned)
        searched = read_rows(path.with_name(_SEARCHED.format(experiment.data)), data_names) if usual else {}
        lines += _comparison(rows, factors, {run.row.name: run.needs_labels for run in planned}, searched)
    else:
        for name, values in rows.items():
            if values:
                lines += [f"## {name}", "", *_factor_table(values), ""]
    lines += [line for section in kept if section for line in [*section, ""]]
    write_whole(page, "\n".join(lines).rstrip() + "\n")
    written = [page, table]
    if drawn:
        draw_errors(path.with_suffix(".png"), found, factors, "; ".join(data_names))
        written.append(path.with_suffix(".png"))
    else:
        path.with_suffix(".png").unlink(missing_ok=True)
    return written


def _listed(runs: Sequence[Run]) -> str:
    names = [f"{run.row.name}, seed {run.seed}" for run in runs[:_NAMED]]
    return "; ".join(names) + (f" and {len(runs) - _NAMED} more" if len(runs) > _NAMED else "")


def take_sections(path: Path) -> dict[str, list[str]]:
    """Take the sections that `FROM_MODELS` begins out of an experiment's Markdown; their lines by heading."""
    page = path.with_suffix(".md")
    taken, kept = _sections(page)
    if taken:
        write_whole(page, "\n".join(kept).rstrip() + "\n")
    return taken


def _sections(page: Path) -> tuple[dict[str, list[str]], list[str]]:
    """The lines of such sections by heading, and those of the rest."""
    taken: dict[str, list[str]] = {}
    kept: list[str] = []
    section = kept
    for line in page.read_text().splitlines() if page.exists() else []:
        if line.startswith("## "):
            section = taken.setdefault(line, []) if line.startswith(FROM_MODELS) else kept
        section.append(line)
    return {heading: "\n".join(lines).rstrip().split("\n") for heading, lines in taken.items()}, kept


def append_lines(path: Path, lines: Sequence[str]) -> None:
    """Add a section to an experiment's Markdown."""
    page = path.with_suffix(".md")
    write_whole(page, "\n".join([page.read_text(), *lines]) + "\n")


def append_table(
    path: Path, heading: str, rows: Mapping[str, Values], *, digits: int = 3, below: Sequence[str] = ()
) -> None:
    """Add a table of further figures to an experiment's Markdown, and what is said below it; none without figures."""
    if rows:
        names = list(dict.fromkeys(name for values in rows.values() for name in values))
        cells = {row: [cell(values, name, digits) for name in names] for row, values in rows.items()}
        append_lines(path, [f"## {heading}", "", *_markdown(["", *names], cells), *below])


def _notes(page: Path) -> list[str]:
    """The lines of a page that somebody has written, with their marks."""
    lines = page.read_text().splitlines() if page.exists() else []
    if not all(mark in lines for mark in _NOTES):
        return []
    first, last = (lines.index(mark) for mark in _NOTES)
    return [*lines[first : last + 1], ""]


def _seeds(seeds: list[int]) -> str:
    if len(seeds) == 1:
        return f"Seed {seeds[0]}."
    return f"Seeds {', '.join(map(str, seeds))}; mean ± standard deviation."


def cell(values: Values, name: str, digits: int | None = None) -> str:
    """Mean and spread of a figure, empty if there is none."""
    if not values.get(name):
        return ""
    digits = _DIGITS.get(name.split(": ")[-1], 3) if digits is None else digits
    spread = f" ± {statistics.stdev(values[name]):.{digits}f}" if len(values[name]) > 1 else ""
    return f"{statistics.mean(values[name]):.{digits}f}{spread}"


def _comparison(
    rows: dict[str, Values], factors: list[str], needs_labels: Mapping[str, bool], searched: Mapping[str, Values]
) -> list[str]:
    """One table per figure with a row for each model, then one of the figures without factors."""
    lines: list[str] = []
    for heading in _COMPARED:
        present = {name: v for name, v in rows.items() if any(f"{factor}: {heading}" in v for factor in factors)}
        if present:
            cells = {name: [cell(v, f"{factor}: {heading}") for factor in factors] for name, v in present.items()}
            lines += [f"## {heading[0].upper()}{heading[1:]}", "", *_markdown(["", *factors], cells), ""]
            lines += verdict(present, factors, needs_labels, searched) if heading == "relative error" else []
    scores = [score.replace("_", " ") for score in SCORES]
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
    figure = Figure(figsize=(2.8 + 1.5 * len(factors), 0.34 * len(rows) * 1.6 + 1.6), layout="constrained")
    axes = figure.subplots(1, len(factors), sharey=True, squeeze=False)[0]
    for axis, factor in zip(axes, factors, strict=True):
        errors = [values.get(f"{factor}: relative error", [float("nan")]) for values in rows.values()]
        means = [statistics.mean(e) for e in errors]
        spread = [statistics.stdev(e) if len(e) > 1 else 0.0 for e in errors]
        colors = [COLORS[1] if name.startswith("ours") else COLORS[0] for name in rows]
        axis.barh(range(len(rows)), means, xerr=spread, color=colors, height=0.7)
        axis.set_title(factor.replace("_", " "), fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_yticks(range(len(rows)), [textwrap.fill(name, 32) for name in rows])
    axes[0].invert_yaxis()
    figure.supxlabel(f"equivariance error relative to the frames, {data}", fontsize=9)
    figure.savefig(path, dpi=120)
