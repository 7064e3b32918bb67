"""Interleaved timing, peak memory, and what the machine can do at best."""

import contextlib
import ctypes
import datetime
import gc
import os
import platform
import shlex
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import Tensor
from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, profile
from torch.profiler._utils import traverse_bfs


class Clock:
    """Times contenders on one device, all of them in turn in every round.

    Args:
        device: `"cpu"` or `"cuda"`; on a GPU, CUDA events time what the device did.
        rounds: Timed calls of every contender.
        patience: Seconds of one call beyond which a contender gets three rounds only, and says so.
    """

    def __init__(self, device: str, rounds: int, patience: float = 5.0) -> None:
        self.device, self.rounds, self.patience = device, rounds, patience

    def once(self, call: Callable[[], object], repeats: int) -> float:
        """Seconds of one call, averaged over `repeats` calls in a row."""
        if self.device == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            for _ in range(repeats):
                call()
            end.record()
            torch.cuda.synchronize()
            return begin.elapsed_time(end) / 1e3 / repeats
        begin = time.perf_counter()
        for _ in range(repeats):
            call()
        return (time.perf_counter() - begin) / repeats

    def compare(
        self,
        contenders: dict[str, Callable[[], object]],
        reference: str,
        *,
        memory: bool = True,
        leaves: Iterable[Tensor] = (),
    ) -> dict:
        """Medians, ranges, and ratios to `reference` taken pair by pair within each round.

        Args:
            contenders: What is called.
            reference: Name of the contender that the others are divided by.
            memory: Measure the peak memory of each too.
            leaves: Tensors to which the contenders give gradients.
        """
        repeats, rounds, peaks, launches, running = {}, {}, {}, {}, {}
        for name, call in contenders.items():
            call()  # may compile
            # What a CUDA graph holds was taken when it was recorded.
            peaks[name] = self.peak_memory(call, leaves) if memory and "CUDA graph" not in name else None
            seconds = self.once(call, 1)
            # The second call may still record a CUDA graph.
            seconds = min(self.once(call, 1) for _ in range(3)) if seconds < 0.5 else seconds
            if self.device == "cuda" and seconds < 0.1:
                launches[name], running[name] = on_device(call)
            # Short calls are timed in groups, so that the clock and the interpreter's noise do not count.
            repeats[name] = max(1, min(500, round(1e-2 / max(seconds, 1e-6))))
            rounds[name] = self.rounds if seconds < self.patience else min(3, self.rounds)
        times: dict[str, list[float]] = {name: [] for name in contenders}
        gc.collect()
        gc.disable()
        try:
            for turn in range(self.rounds):
                for name, call in contenders.items():
                    if turn < rounds[name]:
                        if repeats[name] > 1:
                            call()  # brings code and data back into the caches that the contender before has filled
                        times[name].append(self.once(call, repeats[name]))
        finally:
            gc.enable()
        return {
            name: {
                "ms": [1e3 * f(taken) for f in (statistics.median, min, max)],
                "ratio": _spread([a / b for a, b in zip(taken, times[reference], strict=False)]),
                "rounds": len(taken),
                "peak_mib": peaks[name],
                "launches": launches.get(name),
                "device_ms": running.get(name),
            }
            for name, taken in times.items()
        }

    def peak_memory(self, call: Callable[[], object], leaves: Iterable[Tensor] = ()) -> float:
        """Largest amount in MiB of the tensor memory that a call takes; gradients from before are cleared first."""
        for leaf in leaves:
            leaf.grad = None
        if self.device == "cuda":
            gc.collect()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            call()
            return (torch.cuda.max_memory_allocated() - before) / 2**20
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
            call()
        events = traverse_bfs(recorded.profiler.kineto_results.experimental_event_tree())
        taken = [e for e in events if e.tag == _EventType.Allocation]
        sizes: dict[int, int] = {}
        held = peak = 0
        for event in sorted(taken, key=lambda e: e.start_time_ns):
            block, size = event.extra_fields.ptr, event.extra_fields.alloc_size
            if size > 0:
                sizes[block] = size
                held += size
            else:
                # Blocks from before the call are not in the list.
                held -= sizes.pop(block, 0)
            peak = max(peak, held)
        return peak / 2**20


def on_device(call: Callable[[], object]) -> tuple[int, float]:
    """How often the host starts a kernel or a graph on the GPU in one call, and the milliseconds that these run."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
        call()
        torch.cuda.synchronize()
    events = recorded.profiler.kineto_results.events()
    started = sum("LaunchKernel" in event.name() or "GraphLaunch" in event.name() for event in events)
    running = [event.duration_ns() for event in events if event.device_type() == torch.autograd.DeviceType.CUDA]
    return started, sum(running) / 1e6


def _spread(values: list[float]) -> list[float]:
    return [statistics.median(values), min(values), max(values)]


@contextlib.contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    """Products of float32 in the precision that `torch.set_float32_matmul_precision` calls `name`."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def keep_freed_memory() -> None:
    """Let glibc keep freed memory: it else goes back to the system after each step, and every page faults again."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL("libc.so.6")
        trim, mmap = -1, -3
        libc.mallopt(mmap, 1 << 25)
        libc.mallopt(trim, 1 << 29)


def versions() -> dict[str, str]:
    """Versions of this package and of those it is compared with, where they are installed, and of the repository."""
    found = {}
    for package in ("torchflowfield", "torchdiffeq", "torchode", "torchdyn", "zuko"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    git = f"git -C {shlex.quote(str(Path(__file__).parent))} describe --always --dirty --exclude='*'"
    status, commit = subprocess.getstatusoutput(git)
    return found if status else found | {"commit": commit}


def machine(device: str) -> dict:
    """Machine and versions, and the measured ceilings of arithmetic and memory."""
    load = os.getloadavg()[0]
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        name = next((x.split(":")[1].strip() for x in cpuinfo.read_text().splitlines() if "model name" in x), name)
    if device == "cuda":
        name = torch.cuda.get_device_name()
    clock = Clock(device, 9)
    # Large enough to fill the device, and its caches many times.
    side, length = (8192, 1 << 28) if device == "cuda" else (1536, 1 << 25)
    a, b = (torch.randn(side, side, device=device) for _ in range(2))
    long, out = torch.randn(length, device=device), torch.empty(length, device=device)

    def median(call: Callable[[], object]) -> float:
        clock.once(call, 3)
        return statistics.median(clock.once(call, 1) for _ in range(9))

    def gflops() -> float:
        return 2 * side**3 / median(lambda: a @ b) / 1e9

    facts = {
        "device": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        **versions(),
        "date": datetime.date.today().isoformat(),
        "peak_gflops": gflops(),
        "peak_gbytes": 2 * 4 * length / median(lambda: out.copy_(long)) / 1e9,
        "load_at_start": load,
    }
    if device == "cuda":
        with matmul_precision("high"):
            facts["peak_gflops_tf32"] = gflops()
        a, b = a.bfloat16(), b.bfloat16()
        facts["peak_gflops_bfloat16"] = gflops()
    return facts
