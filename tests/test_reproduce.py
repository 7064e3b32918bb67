import csv
import importlib
import json
import shlex
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path.insert(0, str(EXAMPLES))

import reproduce  # noqa: E402
from flowvae import video_results  # noqa: E402
from flowvae.baselines import VAE  # noqa: E402
from flowvae.data.shapes3d import NAMES  # noqa: E402
from flowvae.experiments import EXPERIMENTS, METHODS, Experiment  # noqa: E402
from flowvae.finish import FINISHERS, check_data, superposing  # noqa: E402
from flowvae.model import FlowVAE, UnsupervisedFlowVAE  # noqa: E402
from flowvae.networks import make_decoder, make_encoder, make_pair_network, make_sequence_network  # noqa: E402
from flowvae.records import Further, add_further, columns, other_seeds, read_rows  # noqa: E402
from flowvae.rows import DATA, Row, data_of, on_footage, paper_row, row  # noqa: E402
from flowvae.runs import CONFIGS, Run, _counting  # noqa: E402
from flowvae.searches import CHOSEN, SETTINGS, WHOLE  # noqa: E402
from flowvae.selection import BackwardSelection  # noqa: E402
from flowvae.tables import append_table, write_table  # noqa: E402
from flowvae.video_results import _brightened, describe_flows, finish_video  # noqa: E402
from test_grid_data import write_dsprites, write_folder, write_shapes3d  # noqa: E402
from test_video_data import write_calms21  # noqa: E402

PAPERS = [
    "mnist_table",
    "shapes3d_table",
    "falcor3d_table",
    "isaac3d_table",
    "latent_evolution",
    "switching",
    "superposing",
    "unseen_data",
    "potential_surface",
    "mnist_unsupervised",
    "shapes3d_unsupervised",
    "falcor3d_unsupervised",
    "isaac3d_unsupervised",
    "calms21",
    "cityscapes",
    "mnist_ablations",
    "coefficients_over_time",
]


@pytest.fixture(autouse=True)
def float32():
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_default_dtype(torch.float32)


def figures(error, **more):
    one = {"flow": 10 * error, "flow_relative": error, "ratio": 1.1, "off_ratio": 3.0, "log_p_gaussian": -2200.0}
    return {"scale": one, "hue": one, "data": "test data", "seconds": 60.0, "needs_labels": True, **more}


def finish(run, results):
    run.folder.mkdir(parents=True)
    (run.folder / "results.json").write_text(json.dumps(results))


def test_every_experiment_of_both_papers_is_registered():
    assert set(PAPERS) <= set(EXPERIMENTS)
    for experiment in EXPERIMENTS.values():
        assert experiment.data in DATA
        assert experiment.after is None or experiment.after in FINISHERS
        assert all((CONFIGS / r.config).is_file() for r in experiment.rows)


def test_a_table_has_the_six_baselines_and_ours_with_and_without_labels():
    for data in ("mnist", "shapes3d", "falcor3d", "isaac3d"):
        names = [r.name for r in EXPERIMENTS[f"{data}_table"].rows]
        assert names[:6] == ["VAE", "β-VAE", "FactorVAE", "SlowVAE", "TVAE", "PoFlow"]
        ours = [name.removeprefix("ours, ") for name in names[6:]]
        assert ours == ["supervised", "weakly supervised", "unsupervised", "unsupervised, double control"]
        assert all(data_of(r) == data for r in EXPERIMENTS[f"{data}_table"].rows)


@pytest.mark.parametrize("name", ["shapes3d", "falcor3d", "isaac3d"])
def test_sequences_of_the_experiments_fit_on_the_stand_ins_grid(name, monkeypatch):
    scene = importlib.import_module(f"flowvae.data.scenes.{name}")
    module, cls = DATA[name].cls.rsplit(".", 1)
    known = getattr(importlib.import_module(module), cls)
    names = getattr(known, "names", NAMES)
    monkeypatch.setattr(known, "_checked_folder", lambda data: None)
    monkeypatch.setattr(known, "open", lambda data, root: SimpleNamespace(sizes=scene.SIZES, names=names))
    data = known(steps=DATA[name].steps)
    data.setup()
    assert len(data.factors) == DATA[name].factors


def test_a_paper_row_has_the_published_sizes():
    changes = paper_row(row("", "supervised", "shapes3d")).overrides
    assert changes["model.init_args.latent"] == 226
    assert changes["data.init_args.steps"] == 7
    assert changes["trainer.max_steps"] == 100_000
    assert paper_row(row("", "supervised", "falcor3d")).overrides["model.init_args.image_size"] == 128
    tvae = paper_row(row("", "tvae")).overrides
    assert (tvae["model.init_args.capsules"], tvae["model.init_args.capsule_dim"]) == (18, 18)


_SCENES = ("shapes3d", "falcor3d", "isaac3d")
_TRIED = ("unsupervised_single", "unsupervised_double", "unsupervised_choose")


@pytest.mark.parametrize(
    ("method", "data"),
    [("unsupervised_slab", "mnist"), *((method, data) for method in _TRIED for data in ("mnist", *_SCENES))],
)
def test_trials_take_the_same_share_of_a_longer_training(method, data):
    quick = row("", method, data)
    config = yaml.safe_load((CONFIGS / quick.config).read_text())["trainer"]
    prefix, given = "trainer.callbacks.init_args.", config["callbacks"][0]["init_args"]
    lasting = ("heal", "learn") if given.get("remove", True) else ("learn",)
    shares = []
    for changes in (quick.overrides, paper_row(quick).overrides):
        steps = changes.get("trainer.max_steps", config["max_steps"])
        usual = {name: given.get(name, getattr(BackwardSelection(), name)) for name in ("heal", "learn", "end")}
        found = {name: changes.get(prefix + name, value) for name, value in usual.items()}
        shares.append([found[name] / steps for name in lasting])
    assert shares[1] == pytest.approx(shares[0], rel=1e-3)
    # With slabs the bound is another: no trial that began before may end then.
    assert found["end"] + 2 * shares[1][-1] < changes["model.init_args.slab_from"]


def test_single_control_of_shapes3d_starts_with_more_flows_than_factors():
    found = row("", "unsupervised_single", "shapes3d")
    assert found.config == "mnist/unsupervised_choose.yaml"
    assert found.overrides["model.init_args.fields"] == DATA["shapes3d"].factors + 2
    assert found.overrides["trainer.callbacks.init_args.split"]
    for data in ("mnist", "falcor3d", "isaac3d"):
        assert row("", "unsupervised_single", data).config == "mnist/unsupervised_single.yaml"


@pytest.mark.parametrize("image_size", [28, 64, 128])
@pytest.mark.parametrize("size", ["quick", "paper"])
def test_networks_take_and_give_frames_of_their_size(size, image_size):
    frames = torch.rand(2, 3, image_size, image_size)
    code = make_encoder(size, 4, image_size=image_size)(frames)
    assert code.shape == (2, 8)
    assert make_decoder(size, 4, image_size=image_size)(code[:, :4]).shape == frames.shape
    assert make_pair_network(5, image_size=image_size)(torch.cat((frames, frames), 1)).shape == (2, 5)
    assert make_sequence_network(2, 5, image_size=image_size)(torch.cat((frames, frames), 1)).shape == (2, 5)


def test_another_size_of_image_is_an_error():
    with pytest.raises(ValueError, match="images of 28, 64 or 128 pixels, got 'quick', 32"):
        make_encoder("quick", 4, image_size=32)


def test_a_run_is_named_by_all_that_it_depends_on(tmp_path, monkeypatch):
    first = Run(row("a", "vae"), 0, None, tmp_path, ())
    # Files are the same wherever they lie, but more files are other data.
    for place, names in {"here": "ab", "there": "ab", "more": "abc", "other": "ab"}.items():
        (tmp_path / place / "inside").mkdir(parents=True)
        for name in names:
            (tmp_path / place / "inside" / name).write_text("other" if place == "other" else "image")
    (tmp_path / "there" / ".DS_Store").write_text("left by a system")
    places = [Run(row("b", "vae"), 0, tmp_path / p, tmp_path, ()).folder for p in ("here", "there", "more", "other")]
    assert places[0] == places[1]
    assert len({first.folder, *places}) == 4
    others = [Run(row("a", "vae"), 1, None, tmp_path, ()), Run(row("a", "beta_vae"), 0, None, tmp_path, ())]
    others += [Run(row("a", "vae", latent=8), 0, None, tmp_path, ()), Run(row("a", "vae"), 0, None, tmp_path, ("x",))]
    assert len({first.folder, *(run.folder for run in others)}) == 5
    learned = Run(row("a", "unsupervised_single"), 0, None, tmp_path, ())
    before = first.folder, learned.folder
    monkeypatch.setattr("flowvae.runs._VERSIONS", {"unsupervised": 0})
    assert first.folder == before[0]
    assert learned.folder != before[1]
    # What a configuration says counts, not its comments.
    config = (CONFIGS / first.row.config).read_text()
    copy = tmp_path / first.row.config
    copy.parent.mkdir()
    monkeypatch.setattr("flowvae.runs.CONFIGS", tmp_path)
    copy.write_text(f"# Another comment.\n{config}")
    assert first.folder == before[0]
    copy.write_text(config.replace("latent: 32", "latent: 33"))
    assert first.folder != before[0]


def test_a_run_is_missing_then_interrupted_then_done(tmp_path):
    run = Run(row("a", "vae"), 0, None, tmp_path, ())
    assert run.state() == "missing"
    run.folder.mkdir()
    run.checkpoint.write_bytes(b"half of an archive")
    assert run.state() == "missing"
    torch.save({}, run.checkpoint)
    assert run.state() == "interrupted"
    (run.folder / "results.json").write_text(json.dumps({"scale": {}}))
    assert run.state() == "done"
    assert run.outdated()
    assert [command[0] for command in run._commands()] == ["test"]


def test_an_interrupted_run_goes_on_from_its_checkpoint(tmp_path):
    run = Run(row("a", "vae"), 0, tmp_path / "root", tmp_path, ())
    fit, test = run._commands()
    assert "--ckpt_path" not in fit
    assert fit[fit.index("--data.init_args.root") + 1] == str(tmp_path / "root")
    run.folder.mkdir()
    run.checkpoint.write_bytes(b"half of an archive")
    assert "--ckpt_path" not in run._commands()[0]
    torch.save({}, run.checkpoint)
    fit, test = run._commands()
    assert fit[fit.index("--ckpt_path") + 1] == test[test.index("--ckpt_path") + 1] == str(run.checkpoint)


def test_a_run_is_tested_on_one_device_and_saved_between_epochs(tmp_path):
    run = Run(row("a", "vae"), 0, None, tmp_path, ("--trainer.devices=4", "--trainer.strategy=ddp"))
    fit, test = run._commands()
    assert "--trainer.devices" not in fit
    assert test[test.index("--trainer.devices") + 1] == "1"
    assert test.index("--trainer.devices") > test.index("--trainer.devices=4")
    assert test[test.index("--trainer.strategy") + 1] == "auto"
    assert fit[fit.index("--checkpoint.every_n_epochs") + 1] == "1"


@pytest.mark.slow
def test_a_run_trains_in_several_processes_and_is_tested_in_one(tmp_path):
    many = ("--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp_find_unused_parameters_true")
    small = (*SMALL, "--trainer.max_steps=4", "--data.init_args.batch_size=8")
    speeds = row("a", "unsupervised_slab", latent=8, slab_from=0.4, settle_from=0.7)
    run = Run(speeds, 0, None, tmp_path, (*many, *small))
    run.execute(1)
    log = (run.folder / "log.txt").read_text()
    assert "distributed_backend=gloo" in log
    assert "Starting with 2 processes" in log
    assert log.count("MEMBER: 2/2") == 1  # of the training, not of the test
    assert run.state() == "done"


def test_a_training_ends_with_the_process_that_it_belongs_to(tmp_path):
    paths = f"import sys; sys.path.insert(0, {str(EXAMPLES)!r})"
    training = (
        f"{paths}; import time, train; train.end_with_parent(); print('on', flush=True); time.sleep(20); print('over')"
    )
    parent = (
        f"import os, subprocess, sys\nos.environ['FLOWVAE_PARENT'] = str(os.getpid())\n"
        f"subprocess.run([sys.executable, '-c', {training!r}])"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "on\n"
        process.kill()
        # The pipe is the training's too: it closes when both have ended.
        assert process.stdout.read() == ""


def test_a_table_tells_the_versions_of_its_runs_not_those_that_write_it(tmp_path):
    experiment = Experiment("Two models (ours)", [Row("first", "mnist/vae.yaml"), Row("second", "mnist/tvae.yaml")])
    runs = [Run(r, 0, None, tmp_path / "runs", ()) for r in experiment.rows]
    finish(runs[0], figures(0.2, versions="PyTorch 1, Python 2, 3 CPU cores"))
    finish(runs[1], figures(0.4, versions="PyTorch 4, Python 5, 6 CPU cores"))
    for known in (runs, [run._replace(runs=tmp_path / "elsewhere") for run in runs]):
        text = write_table(tmp_path / "table", experiment, "", known, "quick")[0].read_text()
        assert "PyTorch 1, Python 2, 3 CPU cores; PyTorch 4, Python 5, 6 CPU cores, quick preset." in text


def test_figures_of_finishers_are_kept_with_their_run_and_any_name(tmp_path):
    run = Run(row("a", "vae"), 7, None, tmp_path, ())
    found = add_further(tmp_path / "table.csv", [Further(run, "a, b", "flow", 2.0), Further(run, "a, b", "kept", 1.0)])
    assert found == {"a, b": {"flow": [2.0], "kept": [1.0]}}
    with (tmp_path / "table.csv").open(newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows == [
        ["row", "seed", "figure", "value", "run", "data", "versions"],
        ["a, b", "7", "flow", "2", run.folder.name, "", ""],
        ["a, b", "7", "kept", "1", run.folder.name, "", ""],
    ]
    assert add_further(tmp_path / "table.csv", [Further(run, "a, b", "flow", 3.0)]) == {"a, b": {"flow": [3.0]}}


def test_figures_of_finishers_stay_where_their_run_is_not(tmp_path):
    experiment = EXPERIMENTS["switching"]
    path, other = tmp_path / "switching", tmp_path / "superposing"
    here, there = (Run(experiment.rows[0], seed, None, tmp_path / f"runs{seed}", ()) for seed in (0, 1))
    for run, error in ((here, 0.2), (there, 0.4)):
        finish(run, figures(0.3))
        write_table(path, experiment, "", [here._replace(runs=run.runs), there._replace(runs=run.runs)], "quick")
        further = [Further(run, "scale then hue", "flow", error), Further(run, "scale then hue", "re-encoding", 0.1)]
        append_table(path, "Switched", add_further(path.with_suffix(".csv"), further))
    text = path.with_suffix(".md").read_text()
    assert "Seeds 0, 1;" in text
    assert "|  | flow | re-encoding |" in text
    assert "| scale then hue | 0.300 ± 0.141 | 0.100 ± 0.000 |" in text
    # They are not the run's own figures, which other tables take, nor is their row one of the models.
    assert list(read_rows(path.with_suffix(".csv"))) == ["ours, supervised"]
    write_table(other, experiment, "", [there._replace(runs=tmp_path / "none")], "quick")
    assert ",flow," not in other.with_suffix(".csv").read_text()
    # A seed that a command does not ask for can be found, unless its row has become another.
    assert other_seeds(path.with_suffix(".csv"), [here]) == [there._replace(runs=here.runs)]
    assert other_seeds(path.with_suffix(".csv"), [here, there]) == []
    changed = here._replace(row=here.row._replace(overrides={"trainer.max_steps": 7}))
    assert other_seeds(path.with_suffix(".csv"), [changed]) == []
    # Otherwise it takes its figures along.
    write_table(path, experiment, "", [here], "quick")
    assert "0.4," not in path.with_suffix(".csv").read_text()


def test_a_command_for_fewer_seeds_keeps_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr("flowvae.runs.Run.execute", lambda run, threads: finish(run, figures(0.2 + 0.1 * run.seed)))
    for seeds in (["0", "1"], ["1"]):
        reproduce.main(["mnist_weak", "--seeds", *seeds, *folders(tmp_path)])
    text = (tmp_path / "out" / "mnist_weak.md").read_text()
    assert "Seeds 0, 1; mean" in text
    assert "mnist_weak --seeds 0 1`" in text
    assert "0.250 ± 0.071" in text


@pytest.mark.parametrize("suffix", [".md", ".csv"])
def test_a_table_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch, suffix):
    experiment = EXPERIMENTS["mnist_weak"]
    run = Run(experiment.rows[0], 0, None, tmp_path / "runs", ())
    finish(run, figures(0.2))
    write_table(tmp_path / "table", experiment, "", [run], "quick")
    file = (tmp_path / "table").with_suffix(suffix)
    before, write = file.read_text(), Path.write_text

    def stopped(path, text, **options):
        if suffix in path.name:
            write(path, text[:10], **options)
            raise OSError("no space left")
        return write(path, text, **options)

    monkeypatch.setattr(Path, "write_text", stopped)
    with pytest.raises(OSError, match="no space"):
        write_table(tmp_path / "table", experiment, "another command", [run], "quick")
    assert file.read_text() == before


def test_tables_have_means_and_spreads_and_name_what_is_missing(tmp_path):
    experiment = Experiment("Two models (ours)", [Row("first", "mnist/vae.yaml"), Row("second", "mnist/tvae.yaml")])
    planned = [Run(r, seed, None, tmp_path / "runs", ()) for seed in (0, 1) for r in experiment.rows]
    finish(planned[0], figures(0.2))
    finish(planned[2], figures(0.4))
    finish(planned[1], figures(0.5))
    files = write_table(tmp_path / "table", experiment, "the command", planned, "quick")
    text = files[0].read_text()
    assert "0.300 ± 0.141" in text
    assert "Not finished: second, seed 1." in text
    assert "test data" in text
    assert "the command" in text
    assert "first,1,scale: relative error,0.4" in files[1].read_text()
    assert files[2].stat().st_size > 1000


def test_a_table_keeps_what_other_runs_and_hands_have_written(tmp_path):
    experiment = Experiment("Two models (ours)", [Row("first", "mnist/vae.yaml"), Row("second", "mnist/tvae.yaml")])
    runs = [Run(r, 0, None, tmp_path / "runs", ()) for r in experiment.rows]
    finish(runs[0], figures(0.2))
    page, table, _ = [*write_table(tmp_path / "table", experiment, "", runs, "quick"), None]
    page.write_text(page.read_text() + "\n<!-- notes -->\nSeen by eye.\n<!-- end of notes -->\n")
    elsewhere = [run._replace(runs=tmp_path / "elsewhere") for run in runs]
    finish(elsewhere[1], figures(0.4))
    for _ in range(2):
        text = write_table(tmp_path / "table", experiment, "", elsewhere, "quick")[0].read_text()
        assert "From an earlier run: first, seed 0." in text
        assert "Not finished" not in text
        assert text.index("Seen by eye.") < text.index("## first")
        assert text.count("Seen by eye.") == 1
        assert "first,0,scale: relative error,0.2," in table.read_text()
    # The table of another experiment may have the same run.
    alone = Experiment("One model (ours)", experiment.rows[:1])
    text = write_table(tmp_path / "other", alone, "", elsewhere[:1], "quick")[0].read_text()
    assert "| scale | 0.200 |" in text
    assert "earlier" not in text
    # Figures of another configuration are not its own.
    others = [run._replace(seed=1) for run in elsewhere]
    finish(others[1], figures(0.4))
    assert (
        "Not finished: first, seed 1."
        in write_table(tmp_path / "table", experiment, "", others, "quick")[0].read_text()
    )


def test_rows_on_different_data_have_tables_of_their_own_factors_and_no_chart(tmp_path):
    experiment = EXPERIMENTS["latent_evolution"]
    planned = [Run(r, 0, None, tmp_path / "runs", ()) for r in experiment.rows[:2]]
    one = figures(0.2)["scale"]
    finish(planned[0], figures(0.2))
    finish(planned[1], {"floor_hue": one, "shape": one, "data": "other data", "seconds": 60.0, "needs_labels": True})
    files = write_table(tmp_path / "table", experiment, "", planned, "quick")
    assert [file.suffix for file in files] == [".md", ".csv"]
    first, second = files[0].read_text().split("## supervised, shapes3d")
    assert "| scale | 0.200 |" in first
    assert "| floor_hue | 0.200 |" in second
    assert "scale" not in second


def test_a_comparison_sets_the_models_below_each_other(tmp_path):
    experiment = EXPERIMENTS["mnist_table"]
    planned = [Run(r, 0, None, tmp_path / "runs", ()) for r in experiment.rows]
    for k, run in enumerate(planned):
        finish(run, figures(0.1 * (k + 1)))
    text = write_table(tmp_path / "table", experiment, "", planned, "quick")[0].read_text()
    relative = text[text.index("## Relative error") : text.index("## Over re-encoding")]
    assert "| VAE | 0.100 | 0.100 |" in relative
    assert "| ours, weakly supervised | 0.800 | 0.800 |" in relative
    assert "| ours, supervised | -2200.00 | -2200.00 |" in text


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, "Ours are below every baseline that they are compared with."),
        ({"ours, supervised": 0.3}, "Not below every baseline: ours, supervised: scale (0.300; PoFlow 0.250)."),
        # Without labels: PoFlow, which reads them, is no measure.
        (
            {"ours, weakly supervised": 0.3, "ours, unsupervised": 0.4999},
            "Ours are below every baseline that they are compared with.",
        ),
        (
            {"ours, weakly supervised": 0.7, "ours, unsupervised": 0.50001},
            "Not below every baseline: ours, weakly supervised: scale (0.700; TVAE 0.500); "
            "ours, unsupervised: scale (0.500; level with TVAE).",
        ),
    ],
)
def test_a_comparison_says_where_ours_are_not_below_the_baselines(tmp_path, changed, said):
    experiment = EXPERIMENTS["mnist_table"]
    planned = [Run(r, 0, None, tmp_path / "runs", ()) for r in experiment.rows]
    usual = {name: 0.1 if name.startswith("ours") else 0.6 for name in (r.name for r in experiment.rows)}
    for run in planned:
        error = {**usual, "TVAE": 0.5, "PoFlow": 0.25, **changed}[run.row.name]
        results = figures(0.1 if run.row.name.startswith("ours") else 0.6)
        finish(run, results | {"scale": figures(error)["scale"]})
    # Figures of an earlier run, which are known from its table alone, say the same.
    for known in (planned, [run._replace(runs=tmp_path / "elsewhere") for run in planned]):
        text = write_table(tmp_path / "table", experiment, "", known, "quick")[0].read_text()
        relative = text[text.index("## Relative error") : text.index("## Error")]
        assert relative.endswith(
            f"|\n\n{said} Ours that train without labels are compared with the baselines that do so too.\n\n"
        )


@pytest.mark.parametrize(
    ("best", "said"),
    [
        ({}, "baselines that read no labels are above ours."),
        (
            {"TVAE, wide": 0.1},
            "baselines that read no labels are not above ours everywhere: "
            "ours, unsupervised: scale (0.200; TVAE, wide 0.100), hue (0.100; level with TVAE, wide).",
        ),
    ],
)
def test_a_comparison_counts_the_baselines_with_the_settings_of_their_searches(tmp_path, best, said):
    experiment = EXPERIMENTS["mnist_table"]
    planned = [Run(r, 0, None, tmp_path / "runs", ()) for r in experiment.rows]
    for run in planned:
        results = figures({"ours, unsupervised": 0.2}.get(run.row.name, 0.05))
        finish(run, results | {"hue": figures(0.1 if run.row.name == "ours, unsupervised" else 0.05)["hue"]})
    errors = {"TVAE, narrow": 0.3, **best}
    searched = [Run(Row(name, "mnist/tvae.yaml", {"name": name}), 0, None, tmp_path / "runs", ()) for name in errors]
    for run in searched:
        finish(run, figures(errors[run.row.name]))
    table = Experiment("searched", [run.row for run in searched], "ours", "mnist")
    write_table(tmp_path / "mnist_best_baselines", table, "", searched, "quick")
    told = f"With the best settings of their searches (one seed), {said}"
    assert told in write_table(tmp_path / "table", experiment, "", planned, "quick")[0].read_text()
    # Neither other sizes nor other data are measured by them.
    larger = [run._replace(extra=("--model.latent=8",)) for run in planned]
    for run, other in zip(planned, larger, strict=True):
        finish(other, run.results())
    assert "searches" not in write_table(tmp_path / "table", experiment, "", larger, "quick")[0].read_text()
    assert "searches" not in write_table(tmp_path / "table", experiment, "", planned, "paper")[0].read_text()
    others = [run._replace(runs=tmp_path / "others") for run in planned]
    for run, other in zip(planned, others, strict=True):
        finish(other, {**run.results(), "data": "other digits"})
    assert "searches" not in write_table(tmp_path / "table", experiment, "", others, "quick")[0].read_text()


def test_a_comparison_counts_every_row_of_ours(tmp_path):
    experiment = EXPERIMENTS["mnist_kinds"]
    planned = [Run(r, 0, None, tmp_path / "runs", ()) for r in experiment.rows]
    for run in planned:
        finish(run, figures({"PoFlow": 0.3, "ours, rotations alone": 0.4}.get(run.row.name, 0.2)))
    text = write_table(tmp_path / "table", experiment, "", planned, "quick")[0].read_text()
    told = "Not below every baseline: ours, rotations alone: scale (0.400; PoFlow 0.300), hue (0.400; PoFlow 0.300)."
    assert f"\n\n{told}\n\n" in text


def test_tables_without_methods_of_both_kinds_compare_nothing(tmp_path):
    for name in ("mnist_ablations", "mnist_baseline_search"):
        planned = [Run(r, 0, None, tmp_path / "runs", ()) for r in EXPERIMENTS[name].rows]
        for run in planned:
            finish(run, figures(0.3))
        assert "baseline:" not in write_table(tmp_path / name, EXPERIMENTS[name], "", planned, "quick")[0].read_text()


def test_rows_differ_at_the_published_sizes_too():
    # Slabs come after the spikes there in any case, and capsules on scenes have the published number.
    alike = {"slabs after the spikes", "TVAE, 48 capsules of 6, μ = 5", "TVAE, 48 capsules of 6, μ = 30"}
    for experiment in EXPERIMENTS.values():
        papers = [paper_row(r) for r in experiment.rows if r.name not in alike]
        keys = {json.dumps([r.config, r.overrides], sort_keys=True) for r in papers}
        assert len(keys) == len(papers), experiment.title


@pytest.mark.parametrize("experiment", ["mnist_unsupervised", "shapes3d_unsupervised", "mnist_ablations"])
def test_only_rows_with_slabs_have_them_at_the_published_sizes(experiment):
    for each in EXPERIMENTS[experiment].rows:
        slabs = each.config.endswith("unsupervised_slab.yaml") and "alone" not in each.name
        changes = paper_row(each).overrides
        assert changes["model.init_args.slab"] == slabs, each.name
        assert changes.get("data.init_args.motion", "spikes") == ("speeds" if slabs else "spikes"), each.name


def test_how_the_stand_in_of_mice_is_shown_is_asked_of_no_other_footage():
    clips = {f"data.init_args.{name}" for name in ("stride", "background", "crop", "egocentric")}
    for usual in EXPERIMENTS["calms21"].rows:
        assert clips < usual.overrides.keys()
        for other in (on_footage(usual, Path("mouse.mp4")), paper_row(usual)):
            assert not clips & other.overrides.keys()
            assert "data.init_args.flips" in other.overrides
        footage, paper = on_footage(usual, Path("mouse.mp4")).overrides, paper_row(usual).overrides
        assert footage["trainer.max_steps"] == usual.overrides["trainer.max_steps"] < paper["trainer.max_steps"]
        flows = (footage["model.init_args.fields"], paper["model.init_args.fields"])
        assert flows == ((0, 0) if usual.name == "VAE" else (6, 3))


@pytest.mark.parametrize(("data", "method"), [(data, method) for data in CHOSEN for method in CHOSEN[data]])
def test_what_a_table_took_was_searched_and_leaves_the_published_sizes_alone(data, method):
    chosen = CHOSEN[data][method]
    assert any((s.method, s.changes) == (method, chosen) for s in SETTINGS[data])
    rows = EXPERIMENTS[f"{data}_table"].rows
    name = next(name for name, known in METHODS.items() if known == method)
    quick, usual = next(r for r in rows if r.name == name), row(name, method, data)
    assert quick.overrides == row(name, method, data, **chosen).overrides != usual.overrides
    assert paper_row(quick) == paper_row(usual)
    assert [r for r in rows if r.before is not None] == [r for r in rows if METHODS[r.name] in CHOSEN[data]]


@pytest.mark.parametrize("data", WHOLE)
def test_whole_trainings_that_were_run_are_of_the_best_settings_of_every_baseline_without_labels(data):
    results = EXAMPLES.parent / "docs" / "results"
    errors = {
        name: sum(value for key, (value,) in found.items() if key.endswith(": relative error"))
        for name, found in read_rows(results / f"{data}_baseline_search.csv").items()
    }
    run = set(read_rows(results / f"{data}_best_baselines.csv"))
    assert run <= {setting.name for setting in WHOLE[data]}
    for method in ("vae", "beta_vae", "factor_vae", "slow_vae", "tvae"):
        searched = sorted((s.name for s in SETTINGS[data] if s.method == method), key=errors.__getitem__)
        assert len(searched) >= 10
        whole = [name for name in searched if name in run]
        counts = {"tvae": 11, "slow_vae": 5, "vae": 6}
        assert whole == searched[: 12 if data == "mnist" else counts.get(method, 4)]
    assert [r.name for r in EXPERIMENTS[f"{data}_best_baselines"].rows] == [s.name for s in WHOLE[data]]


def test_of_many_rows_some_are_named_and_none_is_drawn(tmp_path):
    experiment = EXPERIMENTS["mnist_baseline_search"]
    planned = [Run(r, 0, None, tmp_path / "runs", ()) for r in experiment.rows]
    for run in planned[:2]:
        finish(run, figures(0.3))
    page = write_table(tmp_path / "table", experiment, "", planned, "quick")[0].read_text()
    assert f"{planned[31].row.name}, seed 0 and {len(planned) - 32} more." in page
    assert planned[32].row.name + ", seed 0" not in page
    assert (tmp_path / "table.png").exists()
    for run in planned[2:]:
        finish(run, figures(0.3))
    page = write_table(tmp_path / "table", experiment, "", planned, "quick")[0].read_text()
    assert "Not finished" not in page
    assert "table.png" not in page
    # Nor does the chart of the table before stay.
    assert not (tmp_path / "table.png").exists()


def test_an_experiment_without_results_says_so(tmp_path):
    experiment = EXPERIMENTS["mnist_weak"]
    planned = [Run(r, 0, None, tmp_path, ()) for r in experiment.rows]
    with pytest.raises(SystemExit, match="no run of .* finished"):
        write_table(tmp_path / "table", experiment, "", planned, "quick")


def test_the_figures_of_an_unsupervised_run_have_its_recovery():
    recovery = {
        "f1": [0.9, 1.0],
        "mean_f1": 0.95,
        "slab_correlation": [0.5, 0.6],
        "usage": [0.4, 0.5, 0.1],
        "matching": [1, 0],
        "kind": ["rotational", "potential"],
    }
    flat = columns(figures(0.2, recovery=recovery))
    assert (flat["scale: rotational"], flat["hue: rotational"]) == (1.0, 0.0)
    assert flat["scale: F1"] == 0.9
    assert flat["hue: speed correlation"] == 0.6
    assert flat["largest surplus usage"] == 0.1


def test_the_list_shows_state_and_time(tmp_path, capsys):
    finish(Run(EXPERIMENTS["mnist_weak"].rows[0], 0, None, tmp_path, ()), figures(0.2))
    reproduce.main(["--list", "--runs", str(tmp_path)])
    shown = capsys.readouterr().out
    assert "1/3" in shown
    assert "60 s" in shown


def test_the_list_takes_folders_by_name_or_shows_one_experiment(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = tmp_path / "a" / "t10k-images-idx3-ubyte"
    images.parent.mkdir()
    images.write_bytes(b"digits")
    finish(Run(EXPERIMENTS["mnist_weak"].rows[0], 0, images.parent, tmp_path, ()), figures(0.2))
    options = ["--list", "--runs", str(tmp_path), "--data.root"]
    reproduce.main([*options, "mnist=a"])
    assert "1/3" in capsys.readouterr().out
    reproduce.main(["mnist_weak", *options, "a"])
    shown = capsys.readouterr().out
    assert "1/3" in shown
    assert "mnist_weak" in shown
    assert "shapes3d" not in shown
    with pytest.raises(SystemExit, match="NAME=DIR beside --list, got 'a'"):
        reproduce.main([*options, "a"])


def test_folders_belong_to_the_experiments_data_or_to_data_that_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        Path(name).mkdir()
    assert reproduce._roots(["a"], "mnist") == {"mnist": Path("a")}
    assert reproduce._roots(["a", "shapes3d=b"], "mnist") == {"mnist": Path("a"), "shapes3d": Path("b")}
    assert reproduce._roots(["dsprites=b"], "mnist") == {"dsprites": Path("b")}
    with pytest.raises(SystemExit, match="NAME=DIR with one of mnist"):
        reproduce._roots(["nothing=b"], "mnist")
    for experiment in ("calms21", "mnist_weak"):
        with pytest.raises(SystemExit, match="found nothing at c"):
            reproduce.main([experiment, "--data.root", "c"])


def folders(tmp_path):
    return ["--runs", str(tmp_path / "runs"), "--output", str(tmp_path / "out")]


@pytest.mark.parametrize(
    ("experiment", "arguments", "said"),
    [
        ("mnist_weak", ["--data.root", "empty"], "t10k-images.*expected MNIST there"),
        ("unseen_data", ["--data.root", "dsprites=empty"], "expected dSprites there"),
        ("calms21", ["--data.root", "empty"], "expected a video file"),
        ("mnist_weak", ["--data.steps=0"], "expected one step or more"),
        ("mnist_weak", ["--data.stepps=2"], "unexpected keyword argument 'stepps'"),
    ],
)
def test_data_that_cannot_be_read_are_reported_before_a_run_starts(tmp_path, monkeypatch, experiment, arguments, said):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    monkeypatch.setattr("flowvae.runs.Run.execute", lambda run, threads: pytest.fail("started"))
    with pytest.raises(SystemExit, match=f"no run was started.*{said}"):
        reproduce.main([experiment, *arguments, *folders(tmp_path)])


def test_every_data_set_is_set_up_once(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr("flowvae.finish.open_data", opened.append)
    rows = EXPERIMENTS["latent_evolution"].rows
    check_data([Run(r, seed, None, tmp_path, ()) for seed in (0, 1) for r in rows], None, {})
    assert [data_of(run.row) for run in opened] == ["mnist", "shapes3d", "falcor3d", "isaac3d"]


@pytest.mark.parametrize("arguments", [["--jobs", "0"], ["--threads", "0"], ["--seeds", "0", "-1"]])
def test_counts_and_seeds_that_make_no_sense_are_errors(arguments, capsys):
    with pytest.raises(SystemExit):
        reproduce.main(["mnist_weak", *arguments])
    assert "expected --jobs and --threads of at least 1 and --seeds of at least 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "threads"),
    [([], 6), (["--jobs", "2"], 3), (["--jobs", "4"], 1), (["--jobs", "9"], 1), (["--threads", "2"], 2)],
)
def test_the_cores_are_divided_among_the_runs(given, threads, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("reproduce.torch.get_num_threads", lambda: 6)
    monkeypatch.setattr("flowvae.runs.Run.execute", lambda run, count: seen.append(count))
    with pytest.raises(SystemExit, match="no run of"):
        reproduce.main(["mnist_weak", *given, *folders(tmp_path)])
    assert seen == 3 * [threads]


def test_a_seed_that_is_given_twice_counts_once(tmp_path, monkeypatch):
    executed = []
    monkeypatch.setattr(
        "flowvae.runs.Run.execute", lambda run, threads: finish(run, figures(0.2)) or executed.append(run)
    )
    reproduce.main(["mnist_weak", "--seeds", "1", "0", "1", *folders(tmp_path)])
    assert [run.seed for run in executed] == [1, 0]


def test_a_value_may_follow_its_name():
    given = ["--data.stride", "10", "--model.lr=1", "--data.crop", "[0.2, 0.4, 0.8, 1.0]", "--data.shift", "-1"]
    joined = ["--data.stride=10", "--model.lr=1", "--data.crop=[0.2, 0.4, 0.8, 1.0]", "--data.shift=-1"]
    assert reproduce._joined(given) == joined
    assert reproduce._joined(joined) == joined


@pytest.mark.parametrize(
    "given", ["--seed=0", "--seed_everything=1", "--data.seed=1", "--trainer.default_root_dir=x", "--ckpt_path=last"]
)
def test_what_a_run_sets_itself_is_refused(given, tmp_path):
    with pytest.raises(SystemExit, match=f"{given.partition('=')[0]} is set for every run.*--seeds"):
        reproduce.main(["mnist_weak", given, *folders(tmp_path)])


def test_two_ways_to_say_the_same_are_one_run():
    for name in ("data.steps", "model.lr"):
        long = name.replace(".", ".init_args.")
        assert reproduce._joined([f"--{long}=4"]) == reproduce._joined([f"--{name}=4"])


def test_what_no_run_reads_or_can_be_written_is_told_before_a_run_starts(tmp_path, monkeypatch):
    monkeypatch.setattr("flowvae.runs.Run.execute", lambda run, threads: pytest.fail("started"))
    with pytest.raises(SystemExit, match="mnist_weak reads mnist, got --data.root for shapes3d"):
        reproduce.main(["mnist_weak", "--data.root", f"shapes3d={tmp_path}", *folders(tmp_path)])
    with pytest.raises(SystemExit, match="is short runs by design"):
        reproduce.main(["mnist_baseline_search", "--preset", "paper", *folders(tmp_path)])
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="expected a folder for --output"):
        reproduce.main(["mnist_weak", "--output", str(tmp_path / "file" / "out"), "--runs", str(tmp_path / "runs")])


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["--data.stride"], "--data.stride"),
        (["--data.stride=10", "11"], "11"),
        (["data.stride=10"], "data.stride=10"),
        (["--data.crop=[0.2"], "--data.crop=\\[0.2"),
    ],
)
def test_an_argument_that_says_nothing_is_refused_before_a_run_starts(tmp_path, monkeypatch, given, named):
    monkeypatch.setattr("flowvae.runs.Run.execute", lambda run, threads: pytest.fail("started"))
    with pytest.raises(SystemExit, match=f"or --name=value, got '{named}'"):
        reproduce.main(["mnist_weak", *given, *folders(tmp_path)])


def test_a_run_that_fails_is_told_with_its_log_and_stops_no_other(tmp_path, monkeypatch, capsys):
    def execute(command, stdout, **_):
        seed = int(command[command.index("--seed_everything") + 1])
        if seed == 0:
            stdout.write("\n".join(["early words", *[""] * 9, *"abcdefg", "[last] words"]))
            stdout.flush()
            raise subprocess.CalledProcessError(3, command)
        if seed == 2:
            Path(command[command.index("--trainer.default_root_dir") + 1], "test.json").write_text(
                json.dumps(figures(0.2))
            )

    monkeypatch.setattr("flowvae.runs.subprocess.run", execute)
    with pytest.raises(SystemExit, match="2 of 3 runs failed"):
        reproduce.main(["mnist_weak", *folders(tmp_path)])
    told = capsys.readouterr().out
    assert "failed: weak, seed 0, with exit status 3" in told
    assert "[last] words" in told
    assert "early words" not in told
    assert "failed: weak, seed 1: FileNotFoundError" in told
    assert "expected the figures of the test" in told.replace("\n", " ")
    assert "Not finished: weak, seed 0; weak, seed 1." in (tmp_path / "out" / "mnist_weak.md").read_text()


@pytest.mark.parametrize("name", sorted(FINISHERS))
def test_without_models_nothing_is_drawn(tmp_path, name):
    write_dsprites(tmp_path)
    assert FINISHERS[name](tmp_path / "table", [], {"dsprites": tmp_path}) == []


def test_figures_of_earlier_runs_are_shown_where_no_run_ends(tmp_path, monkeypatch, capsys):
    experiment = EXPERIMENTS["switching"]._replace(rows=EXPERIMENTS["switching"].rows[:1])
    monkeypatch.setitem(EXPERIMENTS, "switching", experiment)
    run = Run(experiment.rows[0], 0, None, tmp_path / "elsewhere", ())
    finish(run, figures(0.2))
    (tmp_path / "out").mkdir()
    write_table(tmp_path / "out" / "switching", experiment, "", [run], "quick")
    add_further(tmp_path / "out" / "switching.csv", [Further(run, "scale then hue", "flow", 0.25)])
    monkeypatch.setattr("flowvae.runs.Run.execute", lambda run, threads: 1 / 0)
    with pytest.raises(SystemExit, match="1 of 1 runs failed"):
        reproduce.main(["switching", "--seeds", "0", *folders(tmp_path)])
    told = capsys.readouterr().out
    assert "ZeroDivisionError" in told
    assert "No pictures of switching" in told
    assert "| scale then hue | 0.250 |" in (tmp_path / "out" / "switching.md").read_text()


def test_a_grid_shows_the_compositions_that_its_part_for_test_has_room_for(tmp_path, monkeypatch):
    write_shapes3d(tmp_path, (5, 5, 5, 5, 2, 5))
    run = Run(EXPERIMENTS["superposing"].rows[1], 0, tmp_path, tmp_path / "runs", ("--data.steps=2",))
    finish(run, figures(0.2))
    model = FlowVAE(latent=8, width=8, fields=5, image_size=64).eval()
    monkeypatch.setattr("flowvae.finish.load_model", lambda path: model)
    experiment = EXPERIMENTS["superposing"]._replace(rows=[run.row])
    write_table(tmp_path / "superposing", experiment, "", [run], "quick")
    written = superposing(tmp_path / "superposing", [run], {})
    told = [line.split(" | ") for line in (tmp_path / "superposing.md").read_text().splitlines() if " and " in line]
    composed = {cells[0].rpartition(": ")[2].replace(" and ", "+") for cells in told}
    assert all("Shapes3D" in cells[0] for cells in told)
    # Both hues of the room are base factors: no sequence of the test moves both.
    assert not any({"floor_hue", "wall_hue"} <= set(name.split("+")) for name in composed)
    assert {"floor_hue+scale", "wall_hue+object_hue+scale+orientation"} <= composed
    assert len(composed) == 9 + 2
    assert len(written) == 2 * len(composed)
    assert all(float(error) > 0 for cells in told for error in cells[1:4])


def test_flows_of_digits_move_the_shapes_of_a_dsprites_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_dsprites(tmp_path)

    def execute(run, threads):
        finish(run, figures(0.2))
        torch.save({}, run.checkpoint)

    monkeypatch.setattr("flowvae.runs.Run.execute", execute)
    monkeypatch.setattr("flowvae.finish.load_model", lambda checkpoint: FlowVAE(latent=8, width=8).eval())
    monkeypatch.setattr("flowvae.finish._SEQUENCES", 6)
    reproduce.main(["unseen_data", "--data.root", f"dsprites={tmp_path}", "--seeds", "0", *folders(tmp_path)])
    text = (tmp_path / "out" / "unseen_data.md").read_text()
    assert "--data.root dsprites=data/dsprites" in text
    assert "| 960 images in dSprites's format: rotation |" in text
    assert (tmp_path / "out" / "pictures" / "unseen_data_960_images_in_dSprites_s_format_hue.png").exists()


def footage(frames, **settings):
    """Data of a camera at rest with the same snippets, `[B, T+1, 3, H, W]`, in every part."""
    loader = [{"frames": frames}]
    return SimpleNamespace(
        camera="rests",
        steps=frames.shape[1] - 1,
        test_dataloader=lambda: [loader],
        filmed_order=lambda: dict.fromkeys(("train", "val", "test"), loader),
        **settings,
    )


def test_usage_is_drawn_over_every_part_of_the_footage(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(video_results.Figure, "savefig", lambda figure, path, **_: drawn.append(figure))
    weights = {part: torch.full((3, n, 2), n / 10) for part, n in (("train", 5), ("val", 1), ("test", 2))}
    video_results.draw_usage(tmp_path / "usage.png", weights, [1])
    (panel,) = drawn[0].axes
    assert [line.get_xdata()[0] for line in panel.lines] == [4.5, 5.5]
    assert [(text.get_text(), text.get_position()[0]) for text in panel.texts] == [
        ("train", 2),
        ("val", 5),
        ("test", 6.5),
    ]
    heights, edges, _ = panel.patches[0].get_data()
    assert heights == pytest.approx([0.5] * 5 + [0.1] + [0.2] * 2)
    assert (edges[0], edges[-1]) == (-0.5, 7.5) == panel.get_xlim()


def test_pictures_of_the_published_sizes_leave_those_of_quick_runs_alone(tmp_path, monkeypatch):
    model = FlowVAE(latent=8, width=8).eval()
    monkeypatch.setattr("flowvae.finish.load_model", lambda checkpoint: model)
    monkeypatch.setattr("flowvae.finish._SEQUENCES", 6)
    monkeypatch.chdir(tmp_path)
    write_dsprites(tmp_path)
    run = Run(row("a", "supervised"), 0, None, tmp_path, ())
    for name in ("latent_evolution", "unseen_data"):
        pictures = []
        for path in (tmp_path / name, tmp_path / f"{name}_paper"):
            path.with_suffix(".md").write_text("")  # as the table leaves it
            pictures.append({file.name for file in FINISHERS[name](path, [run], {"dsprites": tmp_path})})
        assert len(pictures[0]) == len(pictures[1]) > 0
        assert not pictures[0] & pictures[1]


def test_a_table_of_next_frames_says_what_was_known(tmp_path):
    data = footage(torch.rand(2, 4, 3, 28, 28), background="remove", egocentric=2)
    models = UnsupervisedFlowVAE(latent=8, width=8).eval(), VAE(latent=8).eval()
    experiment = EXPERIMENTS["calms21"]
    runs = [Run(r, 0, None, tmp_path / "runs", ()) for r in experiment.rows]
    for run in runs:
        finish(run, {"data": "mice", "seconds": 1.0, "needs_labels": False})
    for _ in range(2):
        write_table(tmp_path / "calms21", experiment, "", runs, "quick")
        finish_video(tmp_path / "calms21", [(run, model, data) for run, model in zip(runs, models, strict=True)])
        text = (tmp_path / "calms21.md").read_text()
        table = text[text.index("## Next-frame error") : text.index("\n\n## What each flow does, seed 0\n")]
        assert "|  | copying the last frame | decoded copy | prediction | re-encoding |\n" in table
        assert "The prediction of ours infers its coefficients from the true next frame" in table
        assert (
            "at the first step of a snippet, which has one code before it, the VAE's prediction is the decoded copy."
            in table
        )
        assert "move right is to go ahead" in text
        entries = list(csv.DictReader((tmp_path / "calms21.csv").open(newline="")))
        assert [entry["run"] for entry in entries if entry["row"] == "VAE"] == [runs[1].folder.name] * 5
        assert sum(entry["figure"] == "flow 0: usage" for entry in entries) == 1
    # Where no model is, what was written with it stays.
    write_table(tmp_path / "calms21", experiment, "", runs, "quick")
    finish_video(tmp_path / "calms21", [])
    assert (tmp_path / "calms21.md").read_text() == text
    # What flows of other runs do says nothing of these.
    others = [run._replace(extra=("--data.stride=9",)) for run in runs]
    for run in others:
        finish(run, {"data": "mice", "seconds": 1.0, "needs_labels": False})
    write_table(tmp_path / "calms21", experiment, "", others, "quick")
    finish_video(tmp_path / "calms21", [])
    assert "What each flow does" not in (tmp_path / "calms21.md").read_text()


def test_flows_that_were_given_up_are_said_to_be_so_and_not_drawn(tmp_path):
    data = footage(torch.rand(2, 4, 3, 28, 28), background="keep", egocentric=0)
    model = UnsupervisedFlowVAE(latent=8, width=8).eval()
    model.posterior.disable(1)
    model.prior.disable(1)
    lines, usage, written = describe_flows(tmp_path / "mice", model, data, 0)
    assert "| 1 | 0.00 | – | – | – | – | – | given up |" in lines
    assert usage["flow 1: usage"] == 0
    assert not any("to go ahead" in line for line in lines)
    assert [path.name for path in written] == [
        *(f"mice_flow{k}_seed0.{end}" for k in (0, 2) for end in ("png", "gif")),
        "mice_usage_seed0.png",
    ]


@pytest.mark.parametrize("background", ["remove", "keep"])
def test_an_animal_that_is_always_in_the_middle_is_no_background_where_that_has_been_removed(
    tmp_path, monkeypatch, background
):
    """As in egocentric coordinates, in which the median shows the animal."""
    model = UnsupervisedFlowVAE(latent=8, width=8).eval()
    frames = torch.zeros(2, 4, 3, 28, 28)
    frames[..., 10:14, 12:16] = 1
    data = footage(frames, background=background, egocentric=2)
    monkeypatch.setattr(model, "decode", lambda codes: 9 * (2 * frames[0, 0] - 1).expand(*codes.shape[:-1], 3, 28, 28))
    seen = []
    usual = video_results.measure
    monkeypatch.setattr(video_results, "measure", lambda *given: seen.append(given[1].amax().item()) or usual(*given))
    describe_flows(tmp_path / "mice", model, data, 0)
    assert [brightest > 0.9 for brightest in seen] == [background == "keep"] * 4


def test_frames_in_which_little_is_left_are_brightened():
    movie = torch.rand(4, 2, 3, 8, 8) / 3
    movie[2] *= 2
    bright = _brightened(movie)
    assert bright[0].amax() == 1
    dim = bright < 1
    assert torch.allclose(bright[dim], (movie / movie[0].amax())[dim])
    assert 0 < (~dim[2]).sum() < dim[2].numel()


def test_every_flow_of_a_model_is_drawn_by_itself(tmp_path, monkeypatch):
    model = FlowVAE(latent=8, width=8).eval()
    monkeypatch.setattr("flowvae.finish.load_model", lambda checkpoint: model)
    run = Run(EXPERIMENTS["mnist_unsupervised"].rows[0], 0, None, tmp_path, ())
    for matching, factors in (([0, 1, 2], "scale rotation hue"), ([1, 2, 0], "hue scale rotation")):
        if matching[0]:
            run.folder.mkdir()
            (run.folder / "results.json").write_text(json.dumps({"recovery": {"matching": matching}}))
        written = FINISHERS["traversals"](tmp_path / "flows", [run], {})
        names = [f"flows_{factor}{suffix}" for factor in factors.split() for suffix in (".png", ".gif")]
        assert [file.name for file in written] == names
    assert all(file.exists() for file in written)
    contents = {file.read_bytes() for file in written}
    assert len(contents) == len(written)


def test_flows_are_drawn_of_the_model_that_tells_the_factors_best(tmp_path, monkeypatch):
    runs = [Run(EXPERIMENTS["mnist_unsupervised"].rows[i], 0, None, tmp_path, ()) for i in range(3)]
    for run, score in zip(runs[1:], (0.9, 0.7), strict=True):  # the first has no results yet
        finish(run, figures(0.3, recovery={"matching": [0, 1, 2], "mean_f1": score}))
    loaded = []

    def load(checkpoint):
        loaded.append(checkpoint)
        return FlowVAE(latent=8, width=8).eval()

    monkeypatch.setattr("flowvae.finish.load_model", load)
    FINISHERS["traversals"](tmp_path / "flows", runs, {})
    assert loaded == [runs[1].checkpoint]


@pytest.mark.parametrize(
    ("argument", "shown"),
    [
        ("--trainer.max_steps=2", "--trainer.max_steps=2"),
        ("--data.init_args.title=a mouse", "--data.init_args.title='a mouse'"),
        ("--model.init_args.slab=[0, 1]", "--model.init_args.slab='[0, 1]'"),
        ("two words", "'two words'"),
    ],
)
def test_a_command_can_be_typed_as_it_is_shown(argument, shown):
    assert reproduce._quoted(argument) == shown
    assert shlex.split(shown) == [argument]


SMALL = ["--trainer.max_steps=2", "--data.init_args.batch_size=16", "--data.init_args.epoch=64"]
SMALL += ["--trainer.limit_test_batches=1", "--trainer.limit_val_batches=1"]


@pytest.mark.slow
def test_an_experiment_runs_to_its_end_and_is_not_run_again(tmp_path, monkeypatch):
    switching = EXPERIMENTS["switching"]
    monkeypatch.setitem(EXPERIMENTS, "switching", switching._replace(rows=switching.rows[:1]))
    command = ["switching", "--seeds", "0", "--runs", str(tmp_path / "runs"), "--output", str(tmp_path / "out")]
    command += [*SMALL, "--model.init_args.latent=8", "--model.init_args.width=8"]
    reproduce.main(command)
    text = (tmp_path / "out" / "switching.md").read_text()
    assert "Error of switched sequences" in text
    assert ": rotation then hue |" in text
    assert list((tmp_path / "out" / "pictures").glob("*.gif"))
    monkeypatch.setattr("flowvae.runs.subprocess.run", None)
    reproduce.main(command)


@pytest.mark.slow
def test_a_table_that_is_killed_goes_on_with_both_of_its_runs(tmp_path):
    command = [sys.executable, str(EXAMPLES / "reproduce.py"), "mnist_supervised", "--seeds", "0", "1", "--jobs", "2"]
    command += ["--runs", str(tmp_path / "runs"), "--output", str(tmp_path / "out"), *SMALL, "--data.epoch=320"]
    command += ["--trainer.max_steps=300", "--model.init_args.latent=8", "--model.init_args.width=8"]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    table = subprocess.Popen(command, **options)
    checkpoints: list[Path] = []
    for _ in range(1200):
        time.sleep(0.1)
        checkpoints = [file for file in tmp_path.rglob("last.ckpt") if zipfile.is_zipfile(file)]
        if len(checkpoints) == 2 or table.poll() is not None:
            break
    table.kill()
    said = table.communicate()[0]
    assert len(checkpoints) == 2, said
    assert not list(tmp_path.rglob("results.json"))
    done = subprocess.run(command, timeout=300, **options)
    assert done.returncode == 0, done.stdout
    assert len(list(tmp_path.rglob("results.json"))) == 2
    for checkpoint in checkpoints:
        log = (checkpoint.parent / "log.txt").read_text()
        assert log.count("Restored all states from the checkpoint") == 1
        assert torch.load(checkpoint, weights_only=False)["global_step"] == 300
    assert "Seeds 0, 1" in (tmp_path / "out" / "mnist_supervised.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [
        "vae",
        "beta_vae",
        "factor_vae",
        "slow_vae",
        "tvae",
        "poflow",
        "supervised",
        "weak",
        "unsupervised_slab",
        "unsupervised_double",
        "unsupervised_choose",
    ],
)
def test_the_paper_preset_trains_for_two_steps(method, tmp_path):
    import train

    paper = paper_row(row("", method))
    changes = {**paper.overrides, "model.init_args.latent": 6, "model.init_args.width": 8}
    if method in ("vae", "beta_vae", "slow_vae"):
        del changes["model.init_args.width"]
    if method == "tvae":
        changes = {k: v for k, v in changes.items() if k.split(".")[-1] not in ("latent", "width")}
        changes |= {"model.init_args.capsules": 2, "model.init_args.capsule_dim": 3}
    run = Run(Row("", paper.config, changes), 0, None, tmp_path, tuple(SMALL))
    fit = [argument for argument in run._commands()[0] if argument not in SMALL]
    cli = train.main(fit + SMALL)
    assert cli.trainer.global_step == 2
    assert all(p.isfinite().all() for p in cli.model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "data", "size"),
    [
        ("unsupervised_double", "shapes3d", 64),
        ("factor_vae", "shapes3d", 64),
        ("supervised", "falcor3d", 128),
        ("poflow", "falcor3d", 128),
        ("unsupervised_single", "isaac3d", 128),
        ("video/unsupervised", "calms21", 128),
    ],
)
def test_the_paper_preset_trains_on_scenes_of_its_size(method, data, size, tmp_path, monkeypatch):
    import train

    monkeypatch.chdir(tmp_path)
    if data == "shapes3d":
        write_shapes3d(tmp_path)
    elif data == "falcor3d":
        write_folder(tmp_path, "Falcor3D_down128", "train-rec.labels", (3, 3, 3, 3, 2, 2, 2))
    elif data == "isaac3d":
        write_folder(tmp_path, "Isaac3D_down128", "labels.npy", (3, 2, 2, 2, 2, 2, 2, 3, 3))
    else:
        write_calms21(tmp_path)
        monkeypatch.setattr("flowvae.data.calms21.OFFICIAL", {"train": 3, "test": 1})
    paper = paper_row(row("", method, data))
    small = {"model.init_args.latent": 6, "model.init_args.width": 8, "data.init_args.steps": 1}
    run = Run(Row("", paper.config, {**paper.overrides, **small}), 0, tmp_path, tmp_path / "runs", tuple(SMALL))
    cli = train.main(run._commands()[0] + SMALL)
    assert cli.trainer.global_step == 2
    assert cli.datamodule.image_size == cli.model.hparams.image_size == size
    assert all(p.isfinite().all() for p in cli.model.parameters())


def test_the_pictures_see_the_data_that_the_run_saw():
    footage = row("ours", "video/unsupervised", "calms21")
    run = Run(footage, 0, None, Path("runs"), ("--data.stride=5", "--data.init_args.crop=[0.2, 0.4, 0.8, 1.0]"))
    given = run.data_arguments
    assert (given["stride"], given["crop"], given["steps"]) == (5, [0.2, 0.4, 0.8, 1.0], DATA["calms21"].steps)
    assert all(not name.startswith(("model", "trainer")) for name in given)


def test_footage_has_three_flows_at_most_and_the_published_size_on_request():
    footage = row("ours", "video/unsupervised", "cityscapes")
    assert footage.overrides["model.init_args.fields"] == 3
    assert "BackwardSelection" in (CONFIGS / footage.config).read_text()
    changes = paper_row(footage).overrides
    assert (changes["model.init_args.latent"], changes["model.init_args.slab"]) == (324, True)
    assert changes["trainer.callbacks.init_args.heal"] == 100 * 90_000 // 2500


@pytest.mark.parametrize(
    ("root", "written"),
    [
        ("mouse.mp4", "calms21_mouse"),
        ("cage.1.mp4", "calms21_cage_1"),
        ("day.2", "calms21_day_2"),
        ("official", "calms21"),
    ],
)
def test_a_table_of_other_footage_is_named_after_it(tmp_path, monkeypatch, root, written):
    (tmp_path / "official" / "task1_videos_mp4").mkdir(parents=True)
    (tmp_path / "day.2").mkdir()
    for name in ("mouse.mp4", "cage.1.mp4"):
        (tmp_path / name).touch()
    monkeypatch.setitem(FINISHERS, "video", lambda path, runs, roots: [])
    monkeypatch.setattr("flowvae.finish.open_data", lambda run: None)
    results = {"data": "mice", "seconds": 1.0, "needs_labels": False}
    monkeypatch.setattr("flowvae.runs.Run.execute", lambda run, threads: finish(run, results))
    root_of = ["--data.root", str(tmp_path / root)]
    reproduce.main(["calms21", *root_of, "--seeds", "0", "--data.stride", "3", *folders(tmp_path)])
    text = (tmp_path / "out" / f"{written}.md").read_text()
    shown = "data/calms21" if root == "official" else root
    assert f"`python examples/reproduce.py calms21 --data.root {shown} --seeds 0 --data.stride=3`" in text
    assert [file.stem for file in (tmp_path / "out").glob("*.md")] == [written]
    title = "CalMS21" if root == "official" else f"Footage ({root.removesuffix('.mp4')})"
    assert text.startswith(f"# {title}: unsup")


def test_a_run_that_is_killed_keeps_the_time_it_took(tmp_path):
    clock = tmp_path / "seconds"
    with _counting(clock, 5.0, tick=0.01):
        for _ in range(1000):
            time.sleep(0.01)
            if clock.exists():
                break
        assert float(clock.read_text()) > 5
    first = float(clock.read_text())
    with _counting(clock, first, tick=60):
        time.sleep(0.05)
    assert float(clock.read_text()) >= first + 0.05


def test_a_run_that_two_want_at_once_is_trained_once(tmp_path, monkeypatch):
    run = Run(row("a", "vae"), 0, None, tmp_path, ())
    commands = []

    def pretend(command, **_):
        commands.append(command[2])
        time.sleep(0.2)
        (run.folder / "test.json").write_text(json.dumps(figures(0.2)))

    monkeypatch.setattr("flowvae.runs.subprocess.run", pretend)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: run.execute(1), range(2)))
    assert commands == ["fit", "test"]
    run.execute(1)
    assert commands == ["fit", "test", "test"]
