"""What is made of an experiment's checkpoints beside its table of errors: pictures, and tables of compositions."""

import importlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .compositions import composition_errors, digit_frames, predict, superpose, switch, true_frames
from .data.digits import load_digits
from .data.dsprites import DSpritesData, still_sprites
from .model import load_model
from .pictures import save_pictures
from .records import Further, add_further
from .rows import DATA, data_of
from .runs import Run
from .surfaces import draw_coefficients, draw_potentials
from .tables import append_table
from .video_results import finish_video

Roots = Mapping[str, Path]
Finisher = Callable[[Path, Sequence[Run], Roots], list[Path]]
OTHER_DATA = ("dsprites",)
"""Data sets that finishers show and no model is trained on."""
_SAMPLES, _SEQUENCES = 6, 256


def open_data(run: Run, **changes: Any) -> Any:
    """The data module that a run was trained on, set up."""
    known = DATA[data_of(run.row)]
    module, name = run.row.overrides.get("data", known.cls).rsplit(".", 1)
    arguments = {"root": run.root, "steps": known.steps, **run.data_arguments, **changes}
    data = getattr(importlib.import_module(module), name)(**arguments)
    data.setup()
    return data


def check_data(runs: Sequence[Run], finisher: str | None, roots: Roots) -> None:
    """Set up every data set once that the runs and a finisher read, before the runs start.

    Raises:
        ValueError: If files are missing or damaged, or do not suit the arguments.
    """
    for run in {data_of(run.row): run for run in runs}.values():
        open_data(run)
    if finisher == unseen_data.__name__:
        DSpritesData(roots.get("dsprites"), steps=1).setup()


def _errors(run: Run, row: str, errors: dict[str, float]) -> list[Further]:
    """Errors of compositions in the row of a table."""
    errors = {**errors, "over re-encoding": errors["flow"] / errors["re-encoding"]}
    return [Further(run, row, name, value) for name, value in errors.items()]


def latent_evolution(path: Path, runs: Sequence[Run], roots: Roots) -> list[Path]:
    """Every transformation on every data set: predicted frames over true ones, from the first seed's model.

    One picture for each transformation, and one for each data set with a sample of all of them.
    """
    written = []
    for run in runs:
        if run.seed != runs[0].seed:
            continue
        model, data = load_model(run.checkpoint), open_data(run)
        overview = []
        picture = path.parent / "pictures" / f"{path.name}_{data_of(run.row)}"
        for k, factor in enumerate(data.factors):
            schedule = superpose([k], data.steps, len(data.factors))
            truth = true_frames(data, schedule, _SAMPLES, seed=k)
            predicted = predict(model, truth[0], schedule)
            written += save_pictures(picture.with_name(f"{picture.name}_{factor}"), predicted, truth)
            overview.append(torch.cat((predicted[:, 0], truth[:, 0]), -2))
        written += save_pictures(picture, torch.stack(overview, 1))
    return written


def _composed(
    path: Path, runs: Sequence[Run], heading: str, schedules: Callable[[Any], dict[str, Tensor]]
) -> list[Path]:
    """Errors and pictures of schedules by their names; of a grid, those that its part for test has room for."""
    errors, written = [], []
    for run in runs:
        model, data = load_model(run.checkpoint), open_data(run)
        for name, schedule in schedules(data).items():
            truth = true_frames(data, schedule, _SEQUENCES)
            if not truth.numel():
                continue
            errors += _errors(run, f"{data.name}: {name}", composition_errors(model, truth, schedule))
            if run.seed == runs[0].seed:
                few = truth[:, :: max(1, truth.shape[1] // _SAMPLES)][:, :_SAMPLES]
                picture = path.parent / "pictures" / f"{path.name}_{name.replace(' ', '_')}"
                written += save_pictures(picture, predict(model, few[0], schedule), few)
    append_table(path, heading, add_further(path.with_suffix(".csv"), errors))
    return written


def switching(path: Path, runs: Sequence[Run], roots: Roots) -> list[Path]:
    """One factor for half of the time, then another, for every ordered pair."""

    def schedules(data: Any) -> dict[str, Tensor]:
        names, half = data.factors, (data.steps + 1) // 2
        pairs = itertools.permutations(range(len(names)), 2)
        return {f"{names[i]} then {names[j]}": switch(i, j, (half, half), len(names)) for i, j in pairs}

    return _composed(path, runs, "Error of switched sequences against true ones", schedules)


def superposing(path: Path, runs: Sequence[Run], roots: Roots) -> list[Path]:
    """Every pair of factors at once, all of them, and, of more than three, all but one."""

    def schedules(data: Any) -> dict[str, Tensor]:
        names = data.factors
        sizes = sorted({2, max(2, len(names) - 1), len(names)})
        sets = [list(chosen) for size in sizes for chosen in itertools.combinations(range(len(names)), size)]
        return {" and ".join(names[k] for k in chosen): superpose(chosen, data.steps, len(names)) for chosen in sets}

    return _composed(path, runs, "Error of superposed sequences against true ones", schedules)


def unseen_data(path: Path, runs: Sequence[Run], roots: Roots) -> list[Path]:
    """Digits' flows on digits of another source and on shapes that are no digits."""
    root = roots.get("dsprites")
    name, sprites = DSpritesData(root, steps=1).name, still_sprites(root)
    errors, written = [], []
    for run in runs:
        model, data = load_model(run.checkpoint), open_data(run)
        sources = {data.name: data.split.test, load_digits(None).name: load_digits(None).test}
        sources[name] = sprites
        for (source, images), k in itertools.product(sources.items(), range(len(data.factors))):
            schedule = superpose([k], data.steps, len(data.factors))
            spread = torch.linspace(0, len(images) - 1, min(_SEQUENCES, len(images))).long()
            truth = digit_frames(images[spread], schedule, torch.Generator().manual_seed(k))
            row = f"{source}: {data.factors[k]}"
            errors += _errors(run, row, composition_errors(model, truth, schedule))
            if run.seed == runs[0].seed:
                few = truth[:, :: max(1, truth.shape[1] // _SAMPLES)][:, :_SAMPLES]
                short = "".join(c if c.isalnum() else "_" for c in source.split("(")[0].strip())
                picture = path.parent / "pictures" / f"{path.name}_{short}_{data.factors[k]}"
                written += save_pictures(picture, predict(model, few[0], schedule), few)
    append_table(path, "Error on images of other kinds", add_further(path.with_suffix(".csv"), errors))
    return written


def traversals(path: Path, runs: Sequence[Run], roots: Roots) -> list[Path]:
    """Every flow of the model that tells the factors best, three steps further than in training, from test frames.

    A picture is named by the factor that its flow recovered, or was given.
    """
    if not runs:
        return []
    run = max(runs, key=lambda run: (run.results() or {}).get("recovery", {}).get("mean_f1", 0.0))
    model, data = load_model(run.checkpoint), open_data(run)
    steps, controls, factors = data.steps + 3, model.flows.num_controls, len(data.factors)
    recovery = (run.results() or {}).get("recovery", {"matching": range(factors)})
    factor_of = {flow: factor for factor, flow in enumerate(recovery["matching"])}
    written = []
    for k in range(controls):
        factor = factor_of.get(k)
        # The first frames of these leave room for the transformation.
        first = true_frames(data, superpose([factor or 0], data.steps, factors), _SAMPLES)[0]
        name = f"surplus{k}" if factor is None else data.factors[factor]
        picture = path.parent / "pictures" / f"{path.name}_{name}"
        written += save_pictures(picture, predict(model, first, superpose([k], steps, controls)))
    return written


def potential_surface(path: Path, runs: Sequence[Run], roots: Roots) -> list[Path]:
    """Every learned potential over the plane in which its flow moves codes most."""
    picture = path.parent / "pictures" / f"{path.name}.png"
    return [draw_potentials(picture, load_model(run.checkpoint), open_data(run)) for run in runs[:1]]


def coefficients_over_time(path: Path, runs: Sequence[Run], roots: Roots) -> list[Path]:
    """Inferred coefficients of a few long test sequences against the true ones."""
    written = []
    for run in runs[:1]:
        model, data = load_model(run.checkpoint), open_data(run, motion="speeds", steps=12)
        picture = path.parent / "pictures" / path.name
        written += draw_coefficients(picture, model, data, run.results()["recovery"]["matching"])
    return written


def video(path: Path, runs: Sequence[Run], roots: Roots) -> list[Path]:
    """Traversals, usage and meaning of flows learned from video, and next-frame errors."""
    opened = [(run, load_model(run.checkpoint), open_data(run)) for run in runs]
    return finish_video(path, opened)


FINISHERS: dict[str, Finisher] = {
    finisher.__name__: finisher
    for finisher in (
        latent_evolution, switching, superposing, unseen_data, traversals, potential_surface, coefficients_over_time,
        video,
    )
}  # fmt: skip
