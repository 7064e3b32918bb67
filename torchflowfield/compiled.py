"""A compiled rollout of any length, composed of pieces so that few graphs serve all lengths."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchflowfield.path import FlowPath, join_paths


class CompiledRollout:
    """A rollout compiled whole; lengths other than the first one's are composed of pieces from a short list.

    Args:
        rollout: Called with z, weights, controls, the time of the first frame and the options.
        how: A mode of `torch.compile`, its options, or True for neither.
    """

    # Modes of `torch.compile` that use CUDA graphs.
    _GRAPH_MODES = ("reduce-overhead", "max-autotune")

    def __init__(self, rollout: Callable[..., FlowPath], how: bool | str | dict[str, Any]) -> None:
        given: dict[str, Any] = {"mode" if isinstance(how, str) else "options": how} if how is not True else {}
        self._rollout = torch.compile(rollout, fullgraph=True, **given, **_recompile_limit())
        self._graphs = how.get("triton.cudagraphs", False) if isinstance(how, dict) else how in self._GRAPH_MODES
        self._usual_steps: int | None = None

    def __call__(
        self, z: Tensor, weights: Tensor, controls: Tensor, start: Tensor, options: tuple[Any, ...]
    ) -> FlowPath:
        """The path that the rollout gives with these arguments."""
        steps, reverse = len(weights), options[2]
        self._usual_steps = self._usual_steps or steps
        done, paths = 0, []
        for length in [steps] if steps == self._usual_steps else pieces(steps):
            first = steps - done - length if reverse else done
            acting = slice(first, first + length)
            # Only the first piece forwards begins at time 0.
            here = (*options[:-1], options[-1] and not done)
            path = self._rollout(z, weights[acting], controls[acting], start + first, *here)
            # What a CUDA graph returns is written over by its next replay, unless it waits for its backward pass.
            if self._graphs and z.is_cuda and not path.z.requires_grad:
                own: dict[str, Any] = {k: x.clone() for k, x in path._asdict().items() if isinstance(x, Tensor)}
                path = path._replace(**own)
            z, done = path.z[-1], done + length
            paths.append(path)
        return join_paths(paths, reverse)


def pieces(steps: int) -> list[int]:
    """`steps` as a sum of powers of two, at most 32 each, the largest first."""
    lengths = [32] * (steps // 32) + [2**n for n in reversed(range(5)) if steps % 32 & 2**n]
    return lengths or [0]


def _recompile_limit() -> dict[str, Any]:
    # Lengths, recording and direction each have their graph; PyTorch's own limit of 8 is for accidents.
    return {"recompile_limit": 64} if "recompile_limit" in inspect.signature(torch.compile).parameters else {}
