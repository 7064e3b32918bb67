"""The benchmark: contenders that compute the same, peak memory that is theirs, and results that can be added to."""

import json
import math
import os
import runpy
import sys
from pathlib import Path

import pytest
import torch
from reference import close
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "benchmark"))

import report
import sections
from contenders import Case, check_agreement
from timing import Clock

MAIN = Path(sections.__file__).with_name("__main__.py")
MEASURED = sorted((Path(__file__).parents[1] / "docs" / "results").glob("benchmark*.json"))


def flops(call):
    with FlopCounterMode(display=False) as counted:
        call()
    return counted.get_total_flops()


@pytest.fixture
def run(monkeypatch, tmp_path):
    """The command with its arguments; returns what it measured."""

    def main(folder, *arguments):
        arguments = ["--output", str(folder), "--rounds", "2", *arguments]
        monkeypatch.setattr(sys, "argv", [str(MAIN), *arguments])
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
        monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "")
        monkeypatch.delenv("TORCHINDUCTOR_COMPILE_THREADS")
        runpy.run_path(str(MAIN), run_name="__main__")
        return json.loads((folder / "benchmark.json").read_text())

    return main


@pytest.fixture
def uncompiled(monkeypatch):
    """Leaves compilation out, which takes most of a run."""
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)


def test_a_step_is_six_products_and_little_more():
    case = Case((32, 64, 3), "cpu")
    product = 2 * 32 * 64 * 64 * 3
    assert flops(case.products(True)) == 6 * product
    assert 6 <= flops(case.step(case.ours)) / product < 6.3


def test_all_contenders_have_the_same_loss_and_gradients():
    case = Case((5, 4, 3), "cpu")
    pairs = [
        (case.ours, case.nested(True)),
        (case.ours, case.functional(True)),
        (case.nested(False), case.functional(False)),
    ]
    for one, other in pairs:
        assert check_agreement(case, one, other) < 1e-10
        case.step(one)()
        for leaf, gradient in zip(case.leaves, case.gradients(other)[1:], strict=True):
            assert gradient.norm() > 0
            if one == case.ours:
                close(leaf.grad, gradient)


def test_a_contender_with_the_right_loss_and_a_wrong_gradient_is_found():
    case = Case((5, 4, 3), "cpu")
    with pytest.raises(ArithmeticError, match="expected contenders to agree"):
        check_agreement(case, case.ours, lambda z, g: case.ours(z, g) + (z - z.detach()).sum())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_captured_step_gives_the_gradients_of_an_eager_one():
    case = Case((5, 4, 3), "cuda")
    replay = sections._captured(case, case.ours)
    gradients = [leaf.grad for leaf in case.leaves]
    with torch.no_grad():
        case.z.normal_()
    replay()
    for actual, expected in zip(gradients, case.gradients(case.ours)[1:], strict=True):
        close(actual, expected)


def test_peak_memory_is_what_a_call_takes_whatever_it_frees_of_earlier_ones():
    leaf, kept = torch.zeros(1 << 17, requires_grad=True), []

    def call():
        leaf.grad = None
        kept.clear()
        kept.append(torch.ones(1 << 17))
        (leaf * kept[0]).sum().backward()

    # What is kept takes 1 MiB, and so does the product, which has gone before the gradient comes.
    assert [round(Clock("cpu", 1).peak_memory(call, leaves)) for leaves in ([leaf], [leaf], [])] == [2, 2, 2]


def test_a_cuda_graph_has_no_peak_memory_of_its_own():
    rows = Clock("cpu", 1).compare({"eager": torch.ones(3).sum, "one CUDA graph": torch.ones(3).sum}, "eager")
    assert rows["eager"]["peak_mib"] > 0
    assert rows["one CUDA graph"]["peak_mib"] is None
    assert "| – | – | – | 1 |" in report.table({"rows": rows})[-1]


def test_sizes_grow_eightfold_and_the_largest_rollout_is_measured_everywhere():
    parts = runpy.run_path(str(MAIN))["parts"]
    for device in ("cpu", "cuda"):
        listed = parts(False, device)
        assert len({part[:2] for part in listed}) == len(listed)
        assert ("rollout", str(sections.SIZES[0])) in [part[:2] for part in listed]
        assert all(part[2][1][-1] == 8 * part[2][1][0] for part in listed if part[0] == "scaling")


def test_time_and_memory_are_measured_while_a_size_grows(monkeypatch):
    monkeypatch.setitem(sections.SCALING, "cpu", {"B": 4, "K": 2, "H": 3, "T": 1})
    clock = Clock("cpu", 1)
    grown = sections.scaling(clock, "T", [1, 2])
    assert math.isfinite(grown["exponent"])
    assert all(row["peak_mib"] > 0 for row in sections.memory(clock, 1)["rows"].values())


@pytest.mark.parametrize("file", MEASURED, ids=lambda file: file.stem)
def test_results_from_before_are_kept_and_written_again(run, tmp_path, file):
    results = json.loads(file.read_text())
    results["machine"] |= {"on": "cpu", "quick": False, "threads": torch.get_num_threads(), "torch": torch.__version__}
    (tmp_path / "benchmark.json").write_text(json.dumps(results))
    assert run(tmp_path, "--match", "nothing of this name") == results
    assert "## One training step" in (tmp_path / "benchmark.md").read_text()


def test_runs_that_cannot_be_compared_are_not_mixed(run, tmp_path):
    here = {"threads": torch.get_num_threads(), "torch": torch.__version__}
    for other, told in (({"quick": True}, "'quick': True"), ({"peak_gflops_tf32": 1.0}, "'on': 'cuda'")):
        (tmp_path / "benchmark.json").write_text(json.dumps({"machine": here | other}))
        with pytest.raises(SystemExit, match=f"expected .*{told}.*got .*'on': 'cpu', 'quick': False.*--output"):
            run(tmp_path)
    with pytest.raises(SystemExit, match="expected --only with density, determinant.*, got determinants"):
        run(tmp_path, "--only", "determinants")


def test_the_quick_benchmark_runs(run, tmp_path, uncompiled, monkeypatch):
    monkeypatch.setattr(sections, "SIZES", [None, (5, 4, 2)])
    folder = tmp_path / "not_cuda"
    results = run(folder, "--quick")
    assert os.environ["TORCHINDUCTOR_COMPILE_THREADS"] == "1"
    assert set(results) == {"machine", "wall_s", "train", "unsupervised", "rollout", "density", "determinant"}
    assert {"torchflowfield", "torchdiffeq", "date"} <= set(results["machine"])
    parts = [part for name in results if name not in ("machine", "wall_s") for part in results[name].values()]
    assert results["wall_s"] > sum(part["wall_s"] for part in parts)
    differences = [x for part in parts for name, x in part.items() if name.startswith("difference") and x is not None]
    assert len(differences) == 7
    assert max(differences) < 1e-9
    assert f"- wall_s: {results['wall_s']:.4g}" in (folder / "benchmark.md").read_text()
    assert run(folder, "--quick") == results


def test_the_share_of_the_networks_is_measured(uncompiled):
    torch.set_default_dtype(torch.float32)
    part = sections.mnist(Clock("cpu", 1), "unsupervised_single")
    assert part["share_outside"] < 1
    assert list(part["rows"])[-1] == "encoder, decoder, pair network and optimizer"
