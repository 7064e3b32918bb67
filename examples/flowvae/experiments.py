"""Every table and figure of the two papers: which models it needs on which data, and what is drawn of them."""

from typing import Any, NamedTuple

from .rows import DATA_ARGS, Row, row, spikes_alone, tune
from .searches import CHOSEN, SETTINGS, WHOLE

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


class Experiment(NamedTuple):
    """What is run.

    Attributes:
        title: Heading of the table.
        rows: Models to train.
        paper: Whose experiment it is.
        data: Key into `flowvae.rows.DATA` of what it runs on.
        after: Name of a function of `flowvae.finish` that makes pictures and further tables from the checkpoints.
        minutes: Expected minutes of a run of the quick preset on one core.
        paper_sizes: Whether it can be run with the published sizes and steps.
    """

    title: str
    rows: list[Row]
    paper: str = "FFRL"
    data: str = "mnist"
    after: str | None = None
    minutes: float = 6.0
    paper_sizes: bool = True


def _table(title: str, data: str, minutes: float) -> Experiment:
    rows = [row(name, method, data) for name, method in METHODS.items()]
    chosen = CHOSEN.get(data, {})
    rows = [
        tune(each, chosen[method]) if method in chosen else each
        for each, method in zip(rows, METHODS.values(), strict=True)
    ]
    title = f"{title}: baselines (FFRL) and flows with three degrees of supervision"
    return Experiment(title, rows, data=data, minutes=minutes)


def _unlabelled(name: str, method: str, data: str = "mnist", **model: Any) -> Row:
    """A row of unsupervised flows, without slabs at any size unless its method has them."""
    usual = row(name, method, data, **model)
    return usual if method == "unsupervised_slab" else spikes_alone(usual)


def _unsupervised(title: str, data: str, minutes: float = 6.0) -> Experiment:
    names = ("single control, spikes", "double control, spikes")
    rows = [_unlabelled(name, UNSUPERVISED[name], data) for name in names]
    return Experiment(f"{title}: unsupervised flows (STA)", rows, "STA", data, "traversals", minutes)


def _video(
    title: str, data: str, flips: str, minutes: float, fields: int = 3, max_steps: int = 2500, **quick: Any
) -> Experiment:
    """`fields`, `max_steps` and `quick`, arguments of the data module, are those of quick runs alone."""
    ours, vae = row("ours, unsupervised", "video/unsupervised", data), row("VAE", "vae", data)
    ours, vae = (usual._replace(overrides={**usual.overrides, DATA_ARGS + "flips": flips}) for usual in (ours, vae))
    rows = [tune(ours, {"fields": fields}, quick, max_steps), tune(vae, {}, quick, max_steps)]
    return Experiment(f"{title}: unsupervised flows of video (STA)", rows, "STA", data, "video", minutes)


def _search(title: str, data: str) -> Experiment:
    """Every setting that is tried on a data set, in short runs; ours beside the baselines."""
    rows = [row(name, method, data, **own) for name, method, own in SETTINGS[data]]
    rows = [each._replace(overrides={**each.overrides, "trainer.max_steps": 1000}) for each in rows]
    return Experiment(
        f"{title}: settings of the methods, in short runs of 1,000 steps judged on test sequences",
        rows,
        "ours",
        data,
        minutes=2.5,
        paper_sizes=False,
    )


def _best(title: str, data: str) -> Experiment:
    """Settings of the search in whole trainings, of the baselines that the table has with the usual ones."""
    rows = [row(name, method, data, **own) for name, method, own in WHOLE[data]]
    return Experiment(
        f"{title}: baselines that read no labels, with settings of their searches, in whole trainings",
        rows,
        "ours",
        data,
    )


def _kind(name: str, kind: str, data: str, path_kl: str | None = None) -> Row:
    """Supervised flows of one kind, with a path that is free or held to a diffusion at the published sizes too."""
    own = {"kind": kind, "path_kl": path_kl}
    return tune(row(name, "supervised", data, **own), CHOSEN[data]["supervised"] | own)


def _kinds(title: str, data: str) -> Experiment:
    """What the rotations add: supervised flows without them, as FFRL has them, beside PoFlow, which has none."""
    rows = [
        tune(row("PoFlow", "poflow", data), CHOSEN[data]["poflow"]),
        tune(row("ours, supervised", "supervised", data), CHOSEN[data]["supervised"]),
        _kind("ours, gradients alone", "potential", data),
        _kind("ours, gradients alone, path held to a diffusion", "potential", data, "transition"),
        _kind("ours, rotations alone", "rotational", data),
    ]
    return Experiment(f"{title}: supervised flows with and without gradients and rotations", rows, data=data)


_SUPERVISED = row("ours, supervised", "supervised")
_COMPOSED = [_SUPERVISED, row("ours, supervised, on Shapes3D", "supervised", "shapes3d")]

EXPERIMENTS: dict[str, Experiment] = {
    "mnist_supervised": Experiment("Supervised flows (FFRL)", [Row("supervised", "mnist/supervised.yaml")]),
    "mnist_weak": Experiment(
        "Weakly supervised flows (FFRL): one unknown transformation per sequence", [Row("weak", "mnist/weak.yaml")]
    ),
    "mnist_table": _table("MNIST", "mnist", 6),
    "shapes3d_table": _table("Shapes3D", "shapes3d", 8),
    "falcor3d_table": _table("Falcor3D", "falcor3d", 4),
    "isaac3d_table": _table("Isaac3D", "isaac3d", 4),
    "mnist_kinds": _kinds("MNIST", "mnist"),
    "shapes3d_kinds": _kinds("Shapes3D", "shapes3d"),
    "latent_evolution": Experiment(
        "Evolution of a frame under each transformation (FFRL)",
        [row(f"supervised, {name}", "supervised", name) for name in ("mnist", "shapes3d", "falcor3d", "isaac3d")],
        after="latent_evolution",
    ),
    "switching": Experiment("From one transformation to another half-way (FFRL)", _COMPOSED, after="switching"),
    "superposing": Experiment("Several transformations at once (FFRL)", _COMPOSED, after="superposing"),
    "unseen_data": Experiment("Flows of MNIST on images of other kinds (FFRL)", [_SUPERVISED], after="unseen_data"),
    "potential_surface": Experiment(
        "The learned potentials (FFRL)",
        [_kind("ours, gradients alone", "potential", "mnist")],
        after="potential_surface",
    ),
    "mnist_unsupervised": Experiment(
        "Unsupervised flows (STA)",
        [_unlabelled(name, method) for name, method in UNSUPERVISED.items()],
        "STA",
        after="traversals",
        minutes=8,
    ),
    "shapes3d_unsupervised": _unsupervised("Shapes3D", "shapes3d", 12),
    "falcor3d_unsupervised": _unsupervised("Falcor3D", "falcor3d"),
    "isaac3d_unsupervised": _unsupervised("Isaac3D", "isaac3d"),
    "calms21": _video(
        "CalMS21",
        "calms21",
        "both",
        minutes=8,
        fields=6,
        max_steps=4000,
        background="remove",
        crop="padded",
        egocentric=2,
        stride=3,
    ),
    "cityscapes": _video("Cityscapes", "cityscapes", "horizontal", minutes=4),
    "mnist_ablations": Experiment(
        "Ablations of the unsupervised model (STA)",
        [
            _unlabelled("spikes only, Helmholtz, K = 3, on/keep 0.1/0.9", "unsupervised_single"),
            _unlabelled("spikes and slabs", "unsupervised_slab"),
            _unlabelled("spikes alone, data and settings of the slabs", "unsupervised_slab", slab=False),
            _unlabelled("slabs from the start", "unsupervised_slab", slab_from=0.0),
            _unlabelled("slabs after the spikes", "unsupervised_slab", slab_from=0.375),
            _unlabelled("potential flows alone", "unsupervised_single", kind="potential"),
            _unlabelled("rotational flows alone", "unsupervised_single", kind="rotational"),
            *(_unlabelled(f"K = {k}", "unsupervised_single", fields=k) for k in (2, 5, 8)),
            _unlabelled("on/keep 0.3/0.7", "unsupervised_single", on=0.3, keep=0.7),
        ],
        "STA",
        minutes=8,
    ),
    "coefficients_over_time": Experiment(
        "Inferred coefficients against the true ones over time (STA)",
        [row("single control, spikes and slabs", "unsupervised_slab")],
        "STA",
        after="coefficients_over_time",
        minutes=10,
    ),
    "mnist_baseline_search": _search("MNIST", "mnist"),
    "mnist_best_baselines": _best("MNIST", "mnist"),
    "shapes3d_baseline_search": _search("Shapes3D", "shapes3d"),
    "shapes3d_best_baselines": _best("Shapes3D", "shapes3d"),
    "mnist_choose_k": Experiment(
        "Choosing K: banks with more flows than the data have transformations",
        [row(f"K = {k}, learnable rates", "unsupervised_choose", fields=k) for k in (5, 8)],
        "ours",
    ),
}
