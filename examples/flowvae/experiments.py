"""Every table and figure of the two papers: which models it needs on which data, and what is drawn of them."""

from pathlib import Path
from typing import Any, NamedTuple

from flowvae.searches import SETTINGS, Setting

_MODEL, _DATA = "model.init_args.", "data.init_args."


class Row(NamedTuple):
    """One model of an experiment: a configuration file and what differs from it."""

    name: str
    config: str
    overrides: dict[str, Any] = {}  # noqa: RUF012


class Experiment(NamedTuple):
    """What is run.

    Attributes:
        title: Heading of the table.
        rows: Models to train.
        paper: Whose experiment it is.
        data: Key into `DATA` of what it runs on.
        after: Name of a function of `flowvae.finish` that makes pictures and further tables from the checkpoints.
        minutes: Expected minutes of a run of the quick preset on one core.
    """

    title: str
    rows: list[Row]
    paper: str = "FFRL"
    data: str = "mnist"
    after: str | None = None
    minutes: float = 6.0


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
VIDEO = "flowvae.data.video.VideoData"
# The published frames of these are of 128 pixels; a quick run sees them at half the size.
_PAPER_IMAGE = {"falcor3d": 128, "isaac3d": 128, "calms21": 128}
VIDEO_FLOWS = 3

METHODS = {
    "VAE": "vae",
    "β-VAE": "beta_vae",
    "FactorVAE": "factor_vae",
    "SlowVAE": "slow_vae",
    "TVAE": "tvae",
    "PoFlow": "poflow",
    "ours, supervised": "supervised",
    "ours, weakly supervised": "weak",
    "ours, unsupervised": "unsupervised_single",
    "ours, unsupervised, double control": "unsupervised_double",
}
UNSUPERVISED = {
    "single control, spikes": "unsupervised_single",
    "single control, spikes and slabs": "unsupervised_slab",
    "double control, spikes": "unsupervised_double",
}
# What scenes of 64 pixels ask for beyond their sizes. They fill the frame, so that what decides between flows learns
# slowly, or it decides by content; and they have an up and a down.
_SCENES: dict[str, dict[str, Any]] = {
    "weak": {"shuffle": "colors", "selector_lr": 0.1, "choice_weight": 300.0, "hold": 0.5},
    "tvae": {"capsules": 48},
    # So many pixels that the reward for changing them would outweigh what they should look like.
    "poflow": {"change_weight": 0.01},
    "unsupervised": {"shuffle": "colors", "posterior_lr": 0.1, "lr": 2e-3},
}
# Surplus flows of scenes: most of the bound is the pixels' own entropy, and flows are found late.
_SCENE_SELECTION = {"begin": 0.4, "end": 0.85, "heal": 60, "learn": 150, "tolerance": 0.002}
# Where single control starts with flows beyond the number of factors, so that one that does two things can be split.
# Falcor3D did better without (mean F1 0.61 and 0.48, one seed); Isaac3D has not been tried.
_SURPLUS, _CHOICE = {"shapes3d": 2}, {"code_warmup": 0.2, "spike_warmup": 0.4}
# Steps of MNIST's quick training and of its trials; longer trainings have longer trials.
_USUAL_STEPS = 5000
_TRIALS = {"unsupervised_double": {"heal": 100, "learn": 300}, "unsupervised_choose": {"heal": 150, "learn": 300}}
_TRAVERSING = ("vae", "beta_vae", "factor_vae", "slow_vae")


def row(name: str, method: str, data: str = "mnist", **model: Any) -> Row:
    """A method on a data set, at the quick preset: a file of `configs/mnist`, or of another folder by `folder/name`."""
    own = _own(model)
    config = f"{method}.yaml" if "/" in method else f"mnist/{method}.yaml"
    if data == "mnist":
        return Row(name, config, own)
    known = DATA[data]
    if method == "unsupervised_single" and data in _SURPLUS:
        config = "mnist/unsupervised_choose.yaml"
        own = {_MODEL + "fields": known.factors + _SURPLUS[data], **_own(_CHOICE), **own}
    method = Path(config).stem
    count = known.factors or VIDEO_FLOWS
    changes: dict[str, Any] = {
        "data": known.cls,
        _DATA + "steps": known.steps,
        _DATA + "image_size": known.image_size,
        _DATA + "batch_size": known.batch_size,
        _DATA + "epoch": 16_000,
        "trainer.max_steps": known.max_steps,
        _MODEL + "image_size": known.image_size,
    }
    if method.startswith("unsupervised") and known.factors:
        changes[_DATA + "motion"] = "spikes"
    if method == "tvae":
        changes[_MODEL + "capsule_dim"] = max(6, known.steps + 1)
    elif method in _TRAVERSING:
        changes |= {_MODEL + "latent": 48, _MODEL + "fields": known.factors}
    else:
        changes |= {_MODEL + "latent": 48, _MODEL + "fields": count}
    if method == "weak":
        changes[_MODEL + "steps"] = known.steps
    if known.factors:
        kind = "unsupervised" if method.startswith("unsupervised") else method
        changes |= _own(_SCENES.get(kind, {}))
        if kind == "unsupervised":
            changes["trainer.max_steps"] = known.max_steps * 3 // 2
        if method in _TRIALS:
            selection = {**_SCENE_SELECTION, "split": True} if method == "unsupervised_choose" else _SCENE_SELECTION
            changes |= {f"trainer.callbacks.init_args.{key}": value for key, value in selection.items()}
    return Row(name, config, {**changes, **own})


def _own(model: dict[str, Any]) -> dict[str, Any]:
    return {_MODEL + key: value for key, value in model.items()}


def data_of(row: Row) -> str:
    """Key into `DATA` of the data that a row runs on."""
    given = row.overrides.get("data", DATA["mnist"].cls)
    if given == VIDEO:
        return "calms21"
    return next(name for name, known in DATA.items() if known.cls == given)


def on_footage(row: Row, path: Path) -> Row:
    """A row for an official video data set, on any other footage: a video file or a folder of frames.

    What is run in the place of a drive is taken for one, with a camera that moves.
    """
    camera = {_DATA + "camera": "moves"} if data_of(row) == "cityscapes" else {}
    return row._replace(overrides={**row.overrides, "data": VIDEO, _DATA + "title": path.stem, **camera})


def paper_row(quick: Row) -> Row:
    """The published sizes and numbers of steps for a row of the quick preset, for a GPU."""
    data = data_of(quick)
    known = DATA[data]
    method = Path(quick.config).stem
    latent, image = known.paper_latent, _PAPER_IMAGE.get(data, known.image_size)
    changes: dict[str, Any] = {
        **quick.overrides,
        "trainer.max_steps": known.paper_max_steps,
        _MODEL + "size": "paper",
        _MODEL + "lr": 1e-4,
        _DATA + "steps": known.paper_steps,
        _DATA + "batch_size": 128,
        _DATA + "epoch": 60_000,
    }
    if data != "mnist":
        changes |= {_MODEL + "image_size": image, _DATA + "image_size": image}
    if method == "tvae":
        changes |= {_MODEL + "capsules": 18, _MODEL + "capsule_dim": 18}
    else:
        changes[_MODEL + "latent"] = latent
    if method == "factor_vae":
        changes |= {_MODEL + "layers": 6, _MODEL + "width": 1000}
    if method not in (*_TRAVERSING, "tvae"):
        changes |= {_MODEL + "width": latent, _MODEL + "decoded": 0}
    if method == "weak":
        changes |= {_MODEL + "steps": known.paper_steps, _MODEL + "temperature": [1.0, 0.05], _MODEL + "anneal": 1.11}
    if method.startswith("unsupervised"):
        # Spikes alone for 75,000 of 90,000 iterations, where a quick run joins the slabs earlier.
        changes |= {_MODEL + "slab": True, _MODEL + "slab_from": 0.833, _MODEL + "settle_from": 0.833}
        if known.factors and data == "mnist":
            changes[_DATA + "motion"] = "speeds"
    if method in _TRIALS:
        stretch = known.paper_max_steps / quick.overrides.get("trainer.max_steps", _USUAL_STEPS)
        trials = {f"trainer.callbacks.init_args.{name}": steps for name, steps in _TRIALS[method].items()}
        changes |= {name: round(stretch * quick.overrides.get(name, steps)) for name, steps in trials.items()}
    return Row(quick.name, quick.config, changes)


def _table(title: str, data: str) -> Experiment:
    rows = [row(name, method, data) for name, method in METHODS.items()]
    return Experiment(
        f"{title}: baselines (FFRL) and flows with three degrees of supervision", rows, data=data, minutes=8
    )


def _unsupervised(title: str, data: str) -> Experiment:
    rows = [row(name, UNSUPERVISED[name], data) for name in ("single control, spikes", "double control, spikes")]
    return Experiment(f"{title}: unsupervised flows (STA)", rows, "STA", data, "traversals", 12)


def _video(title: str, data: str, flips: str) -> Experiment:
    rows = [row("ours, unsupervised", "video/unsupervised", data), row("VAE", "vae", data)]
    rows = [each._replace(overrides={**each.overrides, _DATA + "flips": flips}) for each in rows]
    return Experiment(f"{title}: unsupervised flows of real motion (STA)", rows, "STA", data, "video", 8)


def _search(title: str, data: str) -> Experiment:
    """Twelve settings of each baseline on a data set, and ours beside them."""
    settings = [*SETTINGS[data], Setting("ours, supervised, the same number of steps", "supervised", {})]
    rows = [row(name, method, data, **own) for name, method, own in settings]
    rows = [each._replace(overrides={**each.overrides, "trainer.max_steps": 1000}) for each in rows]
    return Experiment(
        f"{title}: settings of the baselines, in short runs of 1,000 steps judged on test sequences, in their favour",
        rows,
        "ours",
        data,
        minutes=2.5,
    )


_SINGLE, _SLAB = "mnist/unsupervised_single.yaml", "mnist/unsupervised_slab.yaml"
_SUPERVISED = row("ours, supervised", "supervised")

EXPERIMENTS: dict[str, Experiment] = {
    "mnist_supervised": Experiment("Supervised flows (FFRL)", [Row("supervised", "mnist/supervised.yaml")]),
    "mnist_weak": Experiment(
        "Weakly supervised flows (FFRL): one unknown transformation per sequence", [Row("weak", "mnist/weak.yaml")]
    ),
    "mnist_table": _table("MNIST", "mnist"),
    "shapes3d_table": _table("Shapes3D", "shapes3d"),
    "falcor3d_table": _table("Falcor3D", "falcor3d"),
    "isaac3d_table": _table("Isaac3D", "isaac3d"),
    "latent_evolution": Experiment(
        "Evolution of a frame under each transformation (FFRL)",
        [row(f"supervised, {name}", "supervised", name) for name in ("mnist", "shapes3d", "falcor3d", "isaac3d")],
        after="latent_evolution",
    ),
    "switching": Experiment("From one transformation to another half-way (FFRL)", [_SUPERVISED], after="switching"),
    "superposing": Experiment("Several transformations at once (FFRL)", [_SUPERVISED], after="superposing"),
    "unseen_data": Experiment("Flows of MNIST on images of other kinds (FFRL)", [_SUPERVISED], after="unseen_data"),
    "potential_surface": Experiment(
        "The learned potentials (FFRL)",
        [row("ours, supervised", "supervised")],
        after="potential_surface",
    ),
    "mnist_unsupervised": Experiment(
        "Unsupervised flows (STA)",
        [row(name, method) for name, method in UNSUPERVISED.items()],
        "STA",
        after="traversals",
        minutes=12,
    ),
    "shapes3d_unsupervised": _unsupervised("Shapes3D", "shapes3d"),
    "falcor3d_unsupervised": _unsupervised("Falcor3D", "falcor3d"),
    "isaac3d_unsupervised": _unsupervised("Isaac3D", "isaac3d"),
    "calms21": _video("CalMS21", "calms21", "both"),
    "cityscapes": _video("Cityscapes", "cityscapes", "horizontal"),
    "mnist_ablations": Experiment(
        "Ablations of the unsupervised model (STA)",
        [
            Row("spikes only, Helmholtz, K = 3, on/keep 0.1/0.9", _SINGLE),
            Row("spikes and slabs", _SLAB),
            Row("slabs from the start", _SLAB, {_MODEL + "slab_from": 0.0}),
            Row("slabs after the spikes", _SLAB, {_MODEL + "slab_from": 0.375}),
            Row("potential flows alone", _SINGLE, {_MODEL + "kind": "potential"}),
            Row("rotational flows alone", _SINGLE, {_MODEL + "kind": "rotational"}),
            *(Row(f"K = {k}", _SINGLE, {_MODEL + "fields": k}) for k in (2, 5, 8)),
            Row("on/keep 0.3/0.7", _SINGLE, {_MODEL + "on": 0.3, _MODEL + "keep": 0.7}),
        ],
        "STA",
        minutes=12,
    ),
    "coefficients_over_time": Experiment(
        "Inferred coefficients against the true ones over time (STA)",
        [row("single control, spikes and slabs", "unsupervised_slab")],
        "STA",
        after="coefficients_over_time",
        minutes=12,
    ),
    "mnist_baseline_search": _search("MNIST", "mnist"),
    "shapes3d_baseline_search": _search("Shapes3D", "shapes3d"),
    "mnist_choose_k": Experiment(
        "Choosing K: banks with more flows than the data have transformations",
        [Row(f"K = {k}, learnable rates", "mnist/unsupervised_choose.yaml", {_MODEL + "fields": k}) for k in (5, 8)],
        "ours",
        minutes=12,
    ),
}
