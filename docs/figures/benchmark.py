"""The tables and plots of the performance page, from the times that the benchmark measured.

python examples/benchmark --threads 1 --output runs/one_thread
python examples/benchmark --threads 2 --only train rollout mnist --output runs/two_threads
cp runs/one_thread/benchmark.json docs/results/benchmark.json
cp runs/two_threads/benchmark.json docs/results/benchmark_two_threads.json

and without AVX-512, on a CPU that has it

export ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2
python examples/benchmark --threads 1 --only train --output runs/avx2
python examples/benchmark --threads 1 --only mnist --match float32 --output runs/avx2
cp runs/avx2/benchmark.json docs/results/benchmark_avx2.json

and on a GPU

python examples/benchmark --device cuda --output runs/cuda
cp runs/cuda/benchmark.json docs/results/benchmark_cuda.json

then
python docs/figures/benchmark.py
"""

import json
import re
import sys
from pathlib import Path

from style import FOLDER

_ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(_ROOT / "examples" / "benchmark"))

from report import NOTES, digits, draw, spread  # noqa: E402

_PAGE = _ROOT / "docs" / "performance.md"
# Headings of the page: what a table's first column has, and shorter names for the widest table.
_AXES = {"determinant": "B, D, H", "memory": "T"}
_NAMES = {
    "six products, φ and φ′": "+ φ, φ′",
    "torchflowfield, eager": "eager",
    "torchflowfield, compiled": "compiled",
    "torchflowfield, compiled, C++ wrapper": "compiled, C++ wrapper",
    "nested autograd, one probe": "nested, one probe",
    "nested autograd, exact": "nested, exact",
    "torch.func, one probe": "`torch.func`, one probe",
    "torch.func, exact": "`torch.func`, exact",
}


def sizes(results: dict, section: str) -> list[str]:
    """A section with one line for each size: median and range in milliseconds, ratio, and memory where T grows."""
    parts = results[section]
    names = list(dict.fromkeys(name for part in parts.values() for name in part["rows"]))
    short = _NAMES if section == "train" else {}
    lines = _head(_AXES.get(section, "B, D, K"), *(short.get(name, name) for name in names))
    for label, part in parts.items():
        rows = [part["rows"].get(name) for name in names]
        lines.append(_line(label.strip("()"), *("–" if row is None else _cell(row, section) for row in rows)))
    return lines


def roofline(results: dict) -> list[str]:
    """Arithmetic and traffic of the six products against what the machine can do."""
    peak, bandwidth = results["machine"]["peak_gflops"], results["machine"]["peak_gbytes"]
    lines = _head("B, D, K", "GFLOP of the products", "FLOP per byte", "roofline bound, ms", "products, GFLOP/s",
                  "share of peak", "compiled step, GFLOP/s of its products", "compile s",
                  "peak MiB eager / compiled / nested exact")  # fmt: skip
    for label, part in results["train"].items():
        rows, work, intensity = part["rows"], part["gflop"], part["flop_per_byte"]
        reached, whole = (work / rows[name]["ms"][0] * 1e3 for name in ("six products", "torchflowfield, compiled"))
        peaks = (rows[f"torchflowfield, {how}"]["peak_mib"] for how in ("eager", "compiled"))
        memory = " / ".join(map(digits, (*peaks, rows["nested autograd, exact"]["peak_mib"])))
        bound = 1e3 * max(work / peak, work / intensity / bandwidth)
        lines.append(
            _line(label.strip("()"), f"{work:.3g}", f"{intensity:.3g}", f"{bound:.3g}", f"{reached:.3g}",
                  _percent(reached / peak), f"{whole:.3g}", f"{part['compile_s']:.1f}", memory)
        )  # fmt: skip
    return lines


def shares(results: dict) -> list[str]:
    """How much of a training step of the MNIST presets lies outside networks and optimizer."""
    lines = _head("preset", "whole step, ms", "compiled, ms", "encoder, decoder, pair network and optimizer, ms",
                  "share outside", "share outside, compiled")  # fmt: skip
    for label, part in results["mnist"].items():
        preset, *networks = label.split(", ")
        times = (spread(row["ms"]) for row in part["rows"].values())
        lines.append(
            _line(
                ", ".join([f"`{preset}`", *networks]),
                *times,
                *(_percent(part[f"share_outside{c}"]) for c in ("", "_compiled")),
            )
        )
    return lines


def two_threads(results: dict) -> list[str]:
    """A training step and a rollout with both cores: ratios to the six products, and torchdiffeq's to ours."""
    lines = _head("B, D, K", "six products, ms", "+ φ, φ′", "eager", "compiled", "nested, exact",
                  "nested, one probe, over compiled", "torchdiffeq's Euler over ours, compiled",
                  "over the products and φ′ alone")  # fmt: skip
    for label, part in results["train"].items():
        rows, rollout = part["rows"], results["rollout"][label]["rows"]
        ours = [f"torchflowfield, {how}" for how in ("eager", "compiled")]
        shown = [rows[name]["ratio"][0] for name in ("six products, φ and φ′", *ours, "nested autograd, exact")]
        shown.append(rows["nested autograd, one probe"]["ms"][0] / rows[ours[1]]["ms"][0])
        floors = "torchflowfield euler, compiled", "products and φ′ alone"
        shown += [rollout["torchdiffeq euler"]["ms"][0] / rollout[name]["ms"][0] for name in floors]
        lines.append(_line(label.strip("()"), f"{rows['six products']['ms'][0]:.3g}", *map(_times, shown)))
    return lines


def launched(results: dict, section: str) -> list[str]:
    """Milliseconds and launches of every contender on a GPU, one line for each, one column for each size."""
    parts = results[section]
    lines = _head("ms", *(label.strip("()") for label in parts))
    for name in dict.fromkeys(name for part in parts.values() for name in part["rows"]):
        rows = (part["rows"].get(name) for part in parts.values())
        lines.append(_line(name.removeprefix("torchflowfield, "), *("–" if x is None else _launched(x) for x in rows)))
    return lines


def kernels(results: dict) -> list[str]:
    """What the GPU itself does in a training step, against what it can do."""
    peak, bandwidth = results["machine"]["peak_gflops"], results["machine"]["peak_gbytes"]
    ways = ("eager, one CUDA graph", "compiled, one CUDA graph", "CUDA graphs, TF32", "CUDA graphs, bfloat16")
    names = ["six products", *(f"torchflowfield, {way}" for way in ways), "nested autograd, one probe"]
    lines = _head("B, D, K", "six products", "eager", "compiled", "of peak FLOP/s", "of peak bandwidth",
                  "TF32", "bfloat16", "nested, one probe")  # fmt: skip
    for label, part in results["train"].items():
        times = [part["rows"][name]["device_ms"] if name in part["rows"] else None for name in names]
        work, seconds = part["gflop"], times[2] / 1e3
        cells = ["–" if x is None else digits(x) for x in times]
        cells[3:3] = _share(work / seconds / peak), _share(work / part["flop_per_byte"] / seconds / bandwidth)
        lines.append(_line(label.strip("()"), *cells))
    return lines


def _launched(row: dict) -> str:
    count = f"<br>{row['launches']} launched" if row["launches"] else ""
    return f"{spread(row['ms'])}{count}"


def _share(share: float) -> str:
    return f"{100 * share:.2g} %"


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %")


def _times(ratio: float) -> str:
    return f"{ratio:.2f}×" if ratio < 10 else f"{ratio:.0f}×"


def _cell(row: dict, section: str) -> str:
    ratio = row["ratio"][0]
    memory = f" {digits(row['peak_mib'])} MiB" if section == "memory" else ""
    return f"{spread(row['ms'])} **{_times(ratio)}**{memory}"


def _head(*names: str) -> list[str]:
    return [_line(*names), "|---" * len(names) + "|"]


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def with_tables(page: str, results: dict, both_cores: dict, avx2: dict, gpu: dict) -> str:
    """The page with every table between `<!-- table: NAME -->` and `<!-- end of table -->` written again."""
    special = {"roofline": roofline, "mnist": shares, "two_threads": lambda _: two_threads(both_cores),
               "mnist_two_threads": lambda _: shares(both_cores), "train_avx2": lambda _: sizes(avx2, "train"),
               "mnist_avx2": lambda _: shares(avx2), "train_gpu": lambda _: launched(gpu, "train"),
               "rollout_gpu": lambda _: launched(gpu, "rollout"), "kernels_gpu": lambda _: kernels(gpu)}  # fmt: skip

    def written(found: re.Match) -> str:
        name = found[1]
        lines = special[name](results) if name in special else sizes(results, name)
        lines += ["", NOTES[name]] if name in NOTES else []
        return "\n".join([f"<!-- table: {name} -->", "", *lines, "", "<!-- end of table -->"])

    return re.sub(r"<!-- table: (\w+) -->.*?<!-- end of table -->", written, page, flags=re.DOTALL)


if __name__ == "__main__":
    measured = [
        json.loads((_ROOT / "docs" / "results" / f"benchmark{end}.json").read_text())
        for end in ("", "_two_threads", "_avx2", "_cuda")
    ]
    _PAGE.write_text(with_tables(_PAGE.read_text(), *measured))
    draw(measured[0], FOLDER)
