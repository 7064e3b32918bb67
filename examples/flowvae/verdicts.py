"""What a table of methods says of itself: where ours are not below the baselines."""

import itertools
import statistics
from collections.abc import Mapping

from .experiments import METHODS
from .records import Values

_BELOW = "Ours are below every baseline that they are compared with."
_COMPARED_WITH = "Ours that train without labels are compared with the baselines that do so too."


def verdict(
    rows: Mapping[str, Values], factors: list[str], needs_labels: Mapping[str, bool], searched: Mapping[str, Values]
) -> list[str]:
    """Where ours are not below the best baseline in relative error, means over seeds; nothing without methods of both.

    A model whose training reads labels is compared with every baseline, others with those whose training reads none.

    Args:
        rows: Figures of every model.
        factors: What is compared.
        needs_labels: Whether the training of a model reads labels.
        searched: Figures of baselines that read none, with settings of their searches, with which all are compared;
            empty where they are not known.
    """
    ours = [name for name in rows if name.startswith("ours")]
    baselines = [name for name in rows if name in METHODS and name not in ours]
    if not ours or not baselines:
        return []
    behind = []
    for name in ours:
        rivals = {other: rows[other] for other in baselines if needs_labels[name] or not needs_labels[other]}
        behind += _behind(name, rows[name], rivals, factors)
    words = f"Not below every baseline: {'; '.join(behind)}." if behind else _BELOW
    told = [words] if all(needs_labels[name] for name in ours) else [words, _COMPARED_WITH]
    known = [len(values[key]) for values in searched.values() for key in map(_key, factors) if key in values]
    if known:
        behind = list(itertools.chain(*(_behind(name, rows[name], searched, factors) for name in ours)))
        words = f"are not above ours everywhere: {'; '.join(behind)}" if behind else "are above ours"
        seeds = "one seed" if max(known) == 1 else f"up to {max(known)} seeds"
        told.append(f"With the best settings of their searches ({seeds}), baselines that read no labels {words}.")
    return [" ".join(told), ""]


def _key(factor: str) -> str:
    return f"{factor}: relative error"


def _behind(name: str, own: Values, rivals: Mapping[str, Values], factors: list[str]) -> list[str]:
    """A model and the factors for which the best of some rivals is not above it, with the errors of both, in words."""
    found = []
    for factor in factors:
        key = _key(factor)
        means = {rival: statistics.mean(values[key]) for rival, values in rivals.items() if key in values}
        best = min(means, key=means.__getitem__, default=None)
        if key in own and best is not None and (mean := statistics.mean(own[key])) >= means[best]:
            level = f"{mean:.3f}" == f"{means[best]:.3f}"
            found.append(f"{factor} ({mean:.3f}; {f'level with {best}' if level else f'{best} {means[best]:.3f}'})")
    return [f"{name}: {', '.join(found)}"] if found else []
