r"""Speed of torchflowfield against the alternatives, all in one process and in turn.

    python examples/benchmark --quick                      # a minute
    python examples/benchmark                              # everything
    python examples/benchmark --only train rollout         # some of it; results are added to the same file
    python examples/benchmark --device cuda

Results go to `benchmark.json`, from which `benchmark.md` and the plots are written. A part that is there already is not
measured again, so that a run can be cut into pieces; `--fresh` starts over. Devices and quick runs have folders of
their own.
"""

import argparse
import json
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

import sections
import torch
from report import write
from timing import Clock, keep_freed_memory, machine

WIDE, NARROW = ([(128 if d < 256 else 32, d, h or d) for d in (16, 32, 64, 128, 256, 512)] for h in (0, 32))
PRESETS = ["supervised", "unsupervised_single"]


def parts(quick: bool, device: str) -> list[tuple[str, str, list]]:
    """Section, label and arguments of everything that is measured."""
    gpu = device == "cuda"
    sizes = sections.SIZES[1:2] if quick else sections.SIZES
    listed = [("train", str(size), [size, not quick]) for size in sizes]
    chosen = dict.fromkeys(("unsupervised", "rollout", "density"), sizes)
    if gpu and not quick:
        listed += [("train", str(size), [size, False]) for size in sections.LARGE_SIZES]
        # There most of the time goes to compiling, and a launch costs the same at every size.
        few = [sections.SIZES[1], sections.SIZES[4]]
        chosen = {"unsupervised": few, "rollout": [sections.SIZES[0], *few], "density": few}
    listed += [(name, str(size), [size, not quick]) for name in chosen for size in chosen[name]]
    widths = [(32, 64, 64), (32, 64, 16)] if quick else [*WIDE, *NARROW]
    listed += [("determinant", str(size), [size, not quick]) for size in dict.fromkeys(widths)]
    if not quick:
        listed += [
            ("scaling", axis, [axis, [first << n for n in range(4)]])
            for axis, first in sections.SCALING[device].items()
        ]
        listed += [("memory", str(steps), [steps]) for steps in (2, 8, 32, *(() if gpu else (128,)))]
        listed += [("mnist", preset, [preset]) for preset in PRESETS]
        listed += [("mnist", f"{preset}, networks in float32", [preset, False]) for preset in PRESETS]
    return listed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output", type=Path, help="folder; runs/benchmark, with what is special about the run, if none"
    )
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--rounds", type=int, default=9, help="timed calls of every contender, at least 9 to report")
    parser.add_argument("--only", nargs="*", help="sections: train, unsupervised, rollout, density, determinant, …")
    parser.add_argument("--match", default="", help="only parts whose label contains this, for instance '324'")
    parser.add_argument("--quick", action="store_true", help="one size, no slow contenders")
    parser.add_argument("--fresh", action="store_true", help="measure again what is there already")
    options, start = parser.parse_args(), time.perf_counter()
    if options.output is None:
        special = "_cuda" * (options.device == "cuda") + "_quick" * options.quick
        options.output = Path(f"runs/benchmark{special}")
    known = {section for section, _, _ in parts(False, options.device)}
    if unknown := set(options.only or ()) - known:
        sys.exit(f"benchmark: expected --only with {', '.join(sorted(known))}, got {', '.join(sorted(unknown))}.")
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("benchmark: no GPU here, nothing measured.")
    if options.device == "cpu":
        # Inductor's pool of compiler processes would share the cores with what is timed.
        os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    torch.set_num_threads(options.threads)
    # An empty one, gone at the end: compile times are those of a first run.
    cache = tempfile.TemporaryDirectory()
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", cache.name)
    keep_freed_memory()
    warnings.filterwarnings("ignore")

    options.output.mkdir(parents=True, exist_ok=True)
    file = options.output / "benchmark.json"
    results = json.loads(file.read_text()) if file.exists() and not options.fresh else {}
    spent = results.get("wall_s", 0.0)
    here = {"on": options.device, "quick": options.quick, "threads": options.threads, "torch": torch.__version__}
    if "machine" not in results:
        results["machine"] = here | machine(options.device)
    # Files from before these were noted tell a GPU by its ceilings; none of them is of a quick run.
    before = {"on": "cuda" if "peak_gflops_tf32" in results["machine"] else "cpu", "quick": False}
    there = {name: (before | results["machine"]).get(name) for name in here}
    if there != here:
        sys.exit(f"benchmark: expected {there}, as {file} has, got {here}. Name another --output, or pass --fresh.")
    clock = Clock(options.device, options.rounds)
    for section, label, arguments in parts(options.quick, options.device):
        wanted = not options.only or section in options.only
        if not wanted or options.match not in label or label in results.get(section, {}):
            continue
        print(f"{section} {label}", flush=True)
        begin = time.perf_counter()
        part = getattr(sections, section)(clock, *arguments)
        results.setdefault(section, {})[label] = part | {"wall_s": time.perf_counter() - begin}
        results["wall_s"] = spent + time.perf_counter() - start
        file.write_text(json.dumps(results, indent=1, ensure_ascii=False))
    write(results, options.output)
    print((options.output / "benchmark.md").read_text())


if __name__ == "__main__":
    main()
