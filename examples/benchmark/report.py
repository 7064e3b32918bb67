"""Markdown tables and plots of the results."""

from pathlib import Path

import matplotlib
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from torchflowfield.viz import COLORS

TITLES = {
    "train": "One training step (B, D, K): forward and backward, Hamilton–Jacobi residual and divergence",
    "unsupervised": "Unsupervised training step (B, D, K): Helmholtz fields, two steps of a schedule, its divergence",
    "rollout": "Rollout of 16 steps without gradient (B, D, K)",
    "density": "Log-density of a path of four frames (B, D, K)",
    "determinant": "Exact log-determinant (B, D, H)",
    "scaling": "Training rollouts while one size grows",
    "memory": "Training rollouts of T frames: memory and time",
    "mnist": "A training step of the MNIST quick presets, on random frames",
}
COMPILED = "Compiled is `torch.compile` of stepper and loss together, not `ODEStepper(compile=True)`."
NOTES = {"train": COMPILED, "unsupervised": COMPILED}
INKS = {"light": ("#222222", "#9a9a9a"), "dark": ("#e4e4e4", "#757b86")}


def digits(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def spread(values: list[float]) -> str:
    """Median, least and largest."""
    median, least, largest = map(digits, values)
    return f"{median} [{least}–{largest}]"


def table(part: dict) -> list[str]:
    """Rows of one part."""
    lines = [
        "| contender | ms, median [min–max] | ratio, pair by pair | peak MiB | launches | ms of kernels | rounds |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in part["rows"].items():
        found = (row["peak_mib"], row.get("launches"), row.get("device_ms"))
        known = ("–" if x is None else digits(x) for x in found)
        cells = (name, spread(row["ms"]), spread(row["ratio"]), *known, row["rounds"])
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def write(results: dict, folder: Path) -> None:
    """Write `benchmark.md` and the plots."""
    lines = ["# Benchmark", ""]
    lines += [
        f"- {key}: {value:.4g}" if isinstance(value, float) else f"- {key}: {value}"
        for key, value in [*results["machine"].items(), ("wall_s", results.get("wall_s", "not recorded"))]
    ]
    for section, title in TITLES.items():
        if section not in results:
            continue
        lines += ["", f"## {title}", *(["", NOTES[section]] if section in NOTES else [])]
        for label, part in results[section].items():
            facts = [
                f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in part.items() if k != "rows" and v
            ]
            lines += ["", f"### {label}", "", *([", ".join(facts), ""] if facts else []), *table(part)]
    (folder / "benchmark.md").write_text("\n".join(lines) + "\n")
    draw(results, folder)


def draw(results: dict, folder: Path) -> None:
    """Draw the plots, each for a light and for a dark page."""
    for mode, (ink, faint) in INKS.items():
        settings = {
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": faint,
            "legend.frameon": False,
            "svg.hashsalt": "torchflowfield",
            **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), ink),
        }
        with matplotlib.rc_context(settings):
            if "train" in results:
                _save(_training(results["train"], ink), folder / f"training-step-{mode}.svg")
            if "scaling" in results and "memory" in results:
                _save(_growth(results), folder / f"scaling-{mode}.svg")


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, transparent=True, metadata={"Date": None})


def _training(parts: dict, ink: str) -> Figure:
    """Time of each contender relative to the six products, one group per size."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    # The floor is the line at 1, and an empty step no contender.
    left_out = ("six products", "an empty compiled step")
    names = [n for n in dict.fromkeys(n for p in parts.values() for n in p["rows"]) if n not in left_out]
    for i, name in enumerate(names):
        at = [(x, p["rows"][name]["ratio"]) for x, p in enumerate(parts.values()) if name in p["rows"]]
        x = [a + (i - len(names) / 2 + 0.5) * 0.8 / len(names) for a, _ in at]
        middle = [r[0] for _, r in at]
        error = [[r[0] - r[1] for _, r in at], [r[2] - r[0] for _, r in at]]
        axes.bar(
            x,
            middle,
            0.8 / len(names),
            yerr=error,
            color=COLORS[i % len(COLORS)],
            label=name,
            error_kw={"elinewidth": 0.8, "ecolor": ink},
        )
    axes.axhline(1, color=ink, linewidth=0.8)
    axes.set_yscale("log")
    axes.set_xticks(range(len(parts)), [label.strip("()") for label in parts])
    axes.set_xlabel("B, D, K")
    axes.set_ylabel("time / six products")
    figure.legend(loc="outside upper center", fontsize=7, ncols=4)
    return figure


def _growth(results: dict) -> Figure:
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for color, (axis, part) in zip(COLORS, results["scaling"].items(), strict=False):
        values = [float(v) for v in part["rows"]]
        times = [r["ms"][0] for r in part["rows"].values()]
        left.loglog(
            [v / values[0] for v in values],
            [t / times[0] for t in times],
            "o-",
            color=color,
            label=f"{axis} from {values[0]:.0f}: exponent {part['exponent']:.2f}",
        )
    left.loglog([1, 8], [1, 8], ":", color="grey", label="linear")
    left.set_xlabel("size, relative to the smallest")
    left.set_ylabel("time, relative")
    left.legend(fontsize=7)
    for axis in (left.xaxis, left.yaxis):
        _plain_ticks(axis, [1, 2, 4, 8])
    steps = list(results["memory"])
    for color, name in zip(COLORS, results["memory"][steps[0]]["rows"], strict=False):
        right.loglog(
            [int(s) for s in steps],
            [results["memory"][s]["rows"][name]["peak_mib"] for s in steps],
            "o-",
            color=color,
            label=name,
        )
    right.set_xlabel("frames T")
    right.set_ylabel("peak memory, MiB")
    right.legend(fontsize=7)
    _plain_ticks(right.xaxis, [int(s) for s in steps])
    _plain_ticks(right.yaxis, [1, 10, 100, 1000])
    return figure


def _plain_ticks(axis: Axis, ticks: list[int]) -> None:
    axis.set_ticks(ticks, [str(tick) for tick in ticks])
    axis.set_minor_locator(NullLocator())
