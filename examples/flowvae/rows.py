"""A row of a table: a configuration file, what other data ask of it, and its published sizes."""

from pathlib import Path
from typing import Any, NamedTuple

from .data.files import title_of

MODEL_ARGS, DATA_ARGS = "model.init_args.", "data.init_args."
"""Where a configuration has the arguments of its model and of its data."""


class Row(NamedTuple):
    """One model of an experiment: a configuration file and what differs from it.

    Of that, `varied` is what distinguishes the row at any size; `before` are the differences without what was found for
    quick runs alone, where something was.
    """

    name: str
    config: str
    overrides: dict[str, Any] = {}  # noqa: RUF012
    varied: dict[str, Any] = {}  # noqa: RUF012
    before: dict[str, Any] | None = None


class DataSet(NamedTuple):
    """How a configuration for MNIST is turned into one for other data: K factors, frames and sizes."""

    cls: str
    factors: int
    image_size: int
    steps: int
    batch_size: int
    max_steps: int
    paper_latent: int
    paper_steps: int
    paper_max_steps: int


DATA = {
    "mnist": DataSet("flowvae.data.sequences.DigitsData", 3, 28, 5, 128, 4000, 324, 8, 90_000),
    "shapes3d": DataSet("flowvae.data.shapes3d.Shapes3DData", 5, 64, 4, 64, 3000, 226, 7, 100_000),
    "falcor3d": DataSet("flowvae.data.png_folder.Falcor3DData", 7, 64, 2, 32, 2500, 324, 4, 100_000),
    "isaac3d": DataSet("flowvae.data.png_folder.Isaac3DData", 8, 64, 2, 32, 2500, 324, 3, 100_000),
    "calms21": DataSet("flowvae.data.calms21.CalMS21Data", 0, 64, 5, 32, 2500, 324, 8, 90_000),
    "cityscapes": DataSet("flowvae.data.cityscapes.CityscapesData", 0, 64, 5, 32, 2500, 324, 8, 90_000),
}
_VIDEO = "flowvae.data.video.VideoData"
# The published frames of these are of 128 pixels; a quick run sees them at half the size.
_PAPER_IMAGE = {"falcor3d": 128, "isaac3d": 128, "calms21": 128}
_VIDEO_FLOWS = 3

# What scenes of 64 pixels ask for beyond their sizes. They fill the frame, so that what decides between flows learns
# slowly, or it decides by content; and they have an up and a down.
_SCENES: dict[str, dict[str, Any]] = {
    "weak": {"shuffle": "colors", "selector_lr": 0.1, "choice_weight": 300.0, "hold": 0.5},
    "tvae": {"capsules": 48},
    # So many pixels that the reward for changing them would outweigh what they should look like.
    "poflow": {"change_weight": 0.01},
    "unsupervised": {"shuffle": "colors", "posterior_lr": 0.1, "lr": 2e-3},
}
# Trials on scenes: flows are found late, and most of the bound is the pixels' own entropy.
_SCENE_TRIALS = {"begin": 0.4, "end": 0.85, "learn": 150}
_SCENE_REMOVAL = {"heal": 60, "tolerance": 0.002}
# Where single control starts with flows beyond the number of factors, so that one that does two things can be split.
# Falcor3D did better without (mean F1 0.61 and 0.48, one seed); Isaac3D has not been tried.
_SURPLUS, _CHOICE = {"shapes3d": 2}, {"code_warmup": 0.2, "spike_warmup": 0.4}
# Share of a training of the published length after which no trial begins: a little before the slabs join.
_PAPER_END = 0.7
# Steps of quick trainings, of most of MNIST's and of others, and of their trials; longer trainings have longer trials.
_USUAL_STEPS, _OTHER_STEPS = 5000, {"unsupervised_slab": 8400, "unsupervised": 2500}
_TRIALS = {
    "unsupervised_single": {"learn": 300},
    "unsupervised_slab": {"learn": 300},
    "unsupervised_double": {"heal": 100, "learn": 300},
    "unsupervised_choose": {"heal": 150, "learn": 300},
    "unsupervised": {"heal": 100, "learn": 300},
}
_TRAVERSING = ("vae", "beta_vae", "factor_vae", "slow_vae")


def row(name: str, method: str, data: str = "mnist", **model: Any) -> Row:
    """A method on a data set, at the quick preset: a file of `configs/mnist`, or of another folder by `folder/name`."""
    own = varied = _own(model)
    config = f"{method}.yaml" if "/" in method else f"mnist/{method}.yaml"
    if data == "mnist":
        return Row(name, config, own, varied)
    known = DATA[data]
    if method == "unsupervised_single" and data in _SURPLUS:
        config = "mnist/unsupervised_choose.yaml"
        own = {MODEL_ARGS + "fields": known.factors + _SURPLUS[data], **_own(_CHOICE), **own}
    method = Path(config).stem
    count = known.factors or _VIDEO_FLOWS
    changes: dict[str, Any] = {
        "data": known.cls,
        DATA_ARGS + "steps": known.steps,
        DATA_ARGS + "image_size": known.image_size,
        DATA_ARGS + "batch_size": known.batch_size,
        DATA_ARGS + "epoch": 16_000,
        "trainer.max_steps": known.max_steps,
        MODEL_ARGS + "image_size": known.image_size,
    }
    if method.startswith("unsupervised") and known.factors:
        changes[DATA_ARGS + "motion"] = "spikes"
    if method == "tvae":
        changes[MODEL_ARGS + "capsule_dim"] = max(6, known.steps + 1)
    elif method in _TRAVERSING:
        changes |= {MODEL_ARGS + "latent": 48, MODEL_ARGS + "fields": known.factors}
    else:
        changes |= {MODEL_ARGS + "latent": 48, MODEL_ARGS + "fields": count}
    if method == "weak":
        changes[MODEL_ARGS + "steps"] = known.steps
    if known.factors:
        kind = "unsupervised" if method.startswith("unsupervised") else method
        changes |= _own(_SCENES.get(kind, {}))
        if kind == "unsupervised":
            changes["trainer.max_steps"] = known.max_steps * 3 // 2
        if method in _TRIALS:
            trials = _SCENE_TRIALS | (_SCENE_REMOVAL if "heal" in _TRIALS[method] else {})
            trials |= {"split": True} if method == "unsupervised_choose" else {}
            changes |= {f"trainer.callbacks.init_args.{key}": value for key, value in trials.items()}
    return Row(name, config, {**changes, **own}, varied)


def tune(usual: Row, model: dict[str, Any], data: dict[str, Any] | None = None, max_steps: int | None = None) -> Row:
    """A row with arguments of model and data and a number of steps for quick runs alone, not the published sizes."""
    found = {**_own(model), **{DATA_ARGS + name: value for name, value in (data or {}).items()}}
    if max_steps is not None:
        found["trainer.max_steps"] = max_steps
    return usual._replace(overrides={**usual.overrides, **found}, before=_untuned(usual))


def spikes_alone(usual: Row) -> Row:
    """A row without slabs, at the published sizes too, where other unsupervised rows have them."""
    return usual._replace(varied={**usual.varied, MODEL_ARGS + "slab": False})


def _untuned(row: Row) -> dict[str, Any]:
    return row.overrides if row.before is None else row.before


def _own(model: dict[str, Any]) -> dict[str, Any]:
    return {MODEL_ARGS + key: value for key, value in model.items()}


def data_of(row: Row) -> str:
    """Key into `DATA` of the data that a row runs on."""
    given = row.overrides.get("data", DATA["mnist"].cls)
    if given == _VIDEO:
        return "calms21"
    return next(name for name, known in DATA.items() if known.cls == given)


def on_footage(row: Row, path: Path) -> Row:
    """A row for an official video data set, on any other footage: a video file or a folder of frames.

    What is run in the place of a drive is taken for one, with a camera that moves. How the data set's own frames are
    shown in quick runs is left out.
    """
    camera = {DATA_ARGS + "camera": "moves"} if data_of(row) == "cityscapes" else {}
    usual = _untuned(row)
    found = {key: value for key, value in row.overrides.items() if not key.startswith(DATA_ARGS)}
    overrides = {**usual, **found, "data": _VIDEO, DATA_ARGS + "title": title_of(path), **camera}
    return row._replace(overrides=overrides, before=None)


def paper_row(quick: Row) -> Row:
    """The published sizes and numbers of steps for a row of the quick preset, for a GPU."""
    data, usual = data_of(quick), _untuned(quick)
    known = DATA[data]
    method = Path(quick.config).stem
    latent, image = known.paper_latent, _PAPER_IMAGE.get(data, known.image_size)
    changes: dict[str, Any] = {
        **usual,
        "trainer.max_steps": known.paper_max_steps,
        MODEL_ARGS + "size": "paper",
        MODEL_ARGS + "lr": 1e-4,
        DATA_ARGS + "steps": known.paper_steps,
        DATA_ARGS + "batch_size": 128,
        DATA_ARGS + "epoch": 60_000,
    }
    if data != "mnist":
        changes |= {MODEL_ARGS + "image_size": image, DATA_ARGS + "image_size": image}
    if method == "tvae":
        changes |= {MODEL_ARGS + "capsules": 18, MODEL_ARGS + "capsule_dim": 18}
    else:
        changes[MODEL_ARGS + "latent"] = latent
    if method == "factor_vae":
        changes |= {MODEL_ARGS + "layers": 6, MODEL_ARGS + "width": 1000}
    if method not in (*_TRAVERSING, "tvae"):
        changes |= {MODEL_ARGS + "width": latent, MODEL_ARGS + "decoded": 0}
    if method == "weak":
        changes |= {
            MODEL_ARGS + "steps": known.paper_steps,
            MODEL_ARGS + "temperature": [1.0, 0.05],
            MODEL_ARGS + "anneal": 1.11,
        }
    if method.startswith("unsupervised") and quick.varied.get(MODEL_ARGS + "slab", True):
        # Spikes alone for 75,000 of 90,000 iterations, where a quick run joins the slabs earlier.
        changes |= {MODEL_ARGS + "slab": True, MODEL_ARGS + "slab_from": 0.833, MODEL_ARGS + "settle_from": 0.833}
        if known.factors and data == "mnist":
            changes[DATA_ARGS + "motion"] = "speeds"
    if method in _TRIALS:
        stretch = known.paper_max_steps / usual.get("trainer.max_steps", _OTHER_STEPS.get(method, _USUAL_STEPS))
        trials = {f"trainer.callbacks.init_args.{name}": steps for name, steps in _TRIALS[method].items()}
        changes |= {name: round(stretch * usual.get(name, steps)) for name, steps in trials.items()}
        # With the slabs the bound is another.
        end = "trainer.callbacks.init_args.end"
        if method == "unsupervised_slab" or end in usual:
            changes[end] = min(usual.get(end, _PAPER_END), _PAPER_END)
    # What a row varies is its own at any size; slabs that come after the spikes come when those have settled.
    varied = dict(quick.varied)
    if varied.get(MODEL_ARGS + "slab_from"):
        varied[MODEL_ARGS + "slab_from"] = changes[MODEL_ARGS + "settle_from"]
    return Row(quick.name, quick.config, {**changes, **varied}, quick.varied)
