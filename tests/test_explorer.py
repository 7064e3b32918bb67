"""The flow explorer in a real browser: its models are decoded in the page itself."""

import itertools
import json
import tomllib

import pytest
import torch
from built_site import ROOT, build

pytestmark = pytest.mark.docs

FILES = ("explorer", "onnxruntime-web", "explorer.js", "explorer-model.js", "explorer.css")
PICTURE = (
    """() => Array.from(document.getElementById("explorer-image").getContext("2d").getImageData(0, 0, 28, 28).data)"""
)


@pytest.fixture
def explorer(page, address):
    open_explorer(page, address)
    return page


def open_explorer(page, address):
    page.goto(f"{address}explorer/")
    page.locator("#explorer").wait_for(state="visible", timeout=60_000)
    settle(page)


def settle(page):
    page.wait_for_function("document.getElementById('explorer').getAttribute('aria-busy') === 'false'")


def slide(page, name, value):
    slider = page.get_by_label(name, exact=True)
    slider.evaluate("(input, value) => { input.value = value; input.dispatchEvent(new Event('input')) }", str(value))
    settle(page)


def picture(page):
    """Pixels of the large picture, 28 × 28 × RGBA."""
    return page.evaluate(PICTURE)


def difference(first, second):
    return max(abs(a - b) for a, b in zip(first, second, strict=True))


def finish_playing(page, time):
    page.wait_for_function(f"document.getElementById('explorer-time').value === '{time}'")
    settle(page)


@pytest.mark.parametrize("flow", ["scale", "rotation", "hue"])
def test_every_slider_changes_the_image_once_time_has_passed(explorer, flow):
    slide(explorer, "rotation", 0)
    slide(explorer, "Time", 5)
    still = picture(explorer)
    slide(explorer, flow, 1)
    moved = picture(explorer)
    assert difference(still, moved) > 100
    slide(explorer, flow, 0)
    assert picture(explorer) == still
    assert not explorer.problems


def test_time_moves_the_image_smoothly(explorer):
    pictures = []
    for time in (0, 0.5, 1, 3):
        slide(explorer, "Time", time)
        pictures.append(picture(explorer))
    assert all(difference(first, second) > 20 for first, second in itertools.pairwise(pictures))


def test_another_digit_gives_another_image(explorer):
    before = picture(explorer)
    explorer.get_by_label("digit 7", exact=True).check(force=True)
    settle(explorer)
    assert difference(before, picture(explorer)) > 100


@pytest.mark.parametrize("speeds", [(0, 1, 0), (1, 1, 1), (0, 2, 2)])
def test_a_reversed_flow_returns_the_image(explorer, speeds):
    start = picture(explorer)
    for name, speed in zip(("scale", "rotation", "hue"), speeds, strict=True):
        slide(explorer, name, speed)
    slide(explorer, "Time", 8)
    assert difference(start, picture(explorer)) > 100
    explorer.get_by_role("button", name="Reverse").click()
    finish_playing(explorer, 0)
    assert difference(start, picture(explorer)) <= 1
    assert float(explorer.locator("#explorer-status").get_attribute("data-difference")) < 1e-3
    assert explorer.locator(".explorer-row").count() == 2
    assert not explorer.problems


def test_switching_agrees_with_the_first_flow_for_half_of_the_time_only(explorer):
    slide(explorer, "Time", 4)
    middle = picture(explorer)
    slide(explorer, "Time", 8)
    end = picture(explorer)
    explorer.get_by_role("button", name="Switch").click()
    finish_playing(explorer, 8)
    assert difference(end, picture(explorer)) > 100
    slide(explorer, "Time", 4)
    assert picture(explorer) == middle


def test_superposing_sets_both_sliders(explorer):
    slide(explorer, "rotation", 0)
    explorer.get_by_role("button", name="Superpose").click()
    finish_playing(explorer, 8)
    assert [explorer.get_by_label(name, exact=True).input_value() for name in ("scale", "rotation", "hue")] == [
        "0",
        "1",
        "1",
    ]


def test_everything_is_reached_and_moved_by_the_keyboard(explorer):
    before = picture(explorer)
    explorer.get_by_label("digit 0", exact=True).focus()
    explorer.keyboard.press("ArrowRight")
    settle(explorer)
    assert difference(before, picture(explorer)) > 100
    reached = []
    for _ in range(10):
        explorer.keyboard.press("Tab")
        reached.append(explorer.evaluate("document.activeElement.id"))
    names = ["time", "flow-0", "flow-1", "flow-2", "first", "second", "switch", "superpose", "play", "reverse"]
    assert reached == [f"explorer-{name}" for name in names]
    before = picture(explorer)
    explorer.get_by_label("Time", exact=True).focus()
    for _ in range(20):
        explorer.keyboard.press("ArrowRight")
    settle(explorer)
    assert explorer.locator("#explorer-time").input_value() == "2"
    assert difference(before, picture(explorer)) > 20


def test_the_page_decodes_what_pytorch_was_compared_with(explorer):
    """The browser's first frame is close to the exported digit: the encoder sees the pixels as they are."""
    digit = explorer.locator(".explorer-digits canvas").first.evaluate(
        "canvas => Array.from(canvas.getContext('2d').getImageData(0, 0, 28, 28).data)"
    )
    apart = [abs(a - b) for a, b in zip(digit, picture(explorer), strict=True)]
    assert sum(apart) / len(apart) < 12


@pytest.mark.parametrize("page", ["light", "dark"], indirect=True)
def test_a_phone_shows_the_whole_explorer(page, address):
    page.set_viewport_size({"width": 375, "height": 800})
    open_explorer(page, address)
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    for control in page.locator("#explorer input[type=range], #explorer button, #explorer select").all():
        box = control.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 375
    assert not page.problems


def test_without_webassembly_the_page_says_so(page, address):
    page.add_init_script("delete window.WebAssembly")
    page.goto(f"{address}explorer/")
    page.get_by_text("The explorer cannot run here").wait_for(timeout=60_000)
    assert not page.locator("#explorer").is_visible()


def test_the_explorer_is_smaller_than_15_mb():
    assets = build() / "assets"
    files = [file for name in FILES for file in ([assets / name] if "." in name else (assets / name).iterdir())]
    assert sum(file.stat().st_size for file in files) < 15_000_000


def test_the_description_names_the_data():
    about = json.loads((ROOT / "docs/assets/explorer/explorer.json").read_text())
    assert about["data"] == "MNIST (t10k pair)"
    assert about["flows"] == ["scale", "rotation", "hue"]


def test_the_export_refuses_a_network_that_differs_from_pytorch(monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    export_onnx = pytest.importorskip("export_onnx")
    another = torch.nn.Sequential(torch.nn.Linear(32, 3 * 28 * 28), torch.nn.Unflatten(-1, (3, 28, 28))).float()
    with pytest.raises(RuntimeError, match="within 0.0001 of PyTorch, got"), torch.no_grad():
        export_onnx.check(
            another, (torch.randn(2, 32, dtype=torch.float32),), ROOT / "docs/assets/explorer/decoder.onnx"
        )


def test_the_badges_of_the_readme_are_true():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {
        "python": project["requires-python"].replace(">=", "") + " or later",
        "pytorch": next(d for d in project["dependencies"] if d.startswith("torch>")).split("=")[1] + " or later",
        "licence": project["license"],
    }
    for name, words in wanted.items():
        assert f">{words}<" in (ROOT / f"docs/assets/badges/{name}.svg").read_text()
