import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

pytest.importorskip("mitsuba", reason="needs the extra render")

from flowvae.data.scenes import rendering
from flowvae.data.scenes.rendering import (
    blotches,
    camera,
    from_srgb,
    hue,
    lit_by_lamps,
    lit_by_sky,
    load,
    matte,
    render,
    to_bytes,
    with_ambient,
)  # fmt: skip
from flowvae.data.scenes.solids import ball, box, tube


def test_bytes_are_the_display_values_that_light_came_from():
    values = np.arange(256) / 255
    assert (to_bytes(from_srgb(values)) == np.arange(256)).all()


def test_light_beyond_white_is_cut_off():
    assert to_bytes(np.array([-1.0, 0.0, 1.0, 7.0], np.float32)).tolist() == [0, 0, 255, 255]


@pytest.mark.parametrize(("value", "colour"), [(0, (255, 0, 0)), (1 / 3, (0, 255, 0)), (2 / 3, (0, 0, 255))])
def test_hues_go_from_red_over_green_to_blue(value, colour):
    assert tuple(to_bytes(hue(value))) == colour


def test_hue_one_is_hue_zero():
    assert (hue(1.0) == hue(0.0)).all()


def test_a_white_floor_under_the_whole_sky_is_white():
    scene = {
        "camera": camera((0, -2, 2), (0, 0, 0), 20, (4, 4), 16),
        **box("floor", (0, 0, -1), (50, 50, 1), matte((1, 1, 1))),
        **lit_by_sky(),
    }
    assert np.allclose(render(scene), 1, atol=1e-5)


def test_a_lamp_obeys_the_cosine_and_inverse_square_laws():
    light = {"type": "point", "position": [0, 0, 2.0], "intensity": {"type": "rgb", "value": [np.pi] * 3}}
    scene = {
        "camera": camera((0, -0.01, 1), (0, 0, 0), 0.5, (2, 2), 16),
        **box("floor", (0, 0, -1), (50, 50, 1), matte((0.5, 0.5, 0.5))),
        **lit_by_lamps({"lamp": light}),
    }
    assert np.allclose(render(scene)[..., :3], 0.5 / 4, rtol=1e-3)
    moved = render(load(scene), lamp=(2.0, 0, 2))[..., :3]
    assert np.allclose(moved, 0.5 * np.cos(np.pi / 4) / 8, rtol=1e-2)


def test_an_ambient_surface_shines_with_its_colour_and_lights_nothing():
    white, red = matte((1, 1, 1)), matte((1, 0, 0))
    solids = {**box("floor", (0, 0, -1), (50, 50, 1), white), **ball("ball", (3, 0, 0.5), 0.5, red)}
    sun = {"type": "directional", "direction": [0, 0, -1], "irradiance": np.pi / 2}
    scene = {
        "camera": camera((0, -0.01, 1), (0, 0, 0), 5, (2, 2), 16),
        **with_ambient(solids, np.array([0.1, 0.2, 0.3])),
        **lit_by_lamps({"sun": sun}, hide=False),
    }
    assert np.allclose(render(scene)[..., :3], [0.6, 0.7, 0.8], atol=1e-3)


def test_blotches_stay_around_one_and_repeat_without_a_seam():
    pattern = blotches(np.random.RandomState(0), 64, 0.1, 4)
    assert np.abs(pattern - 1).max() == pytest.approx(0.1)
    steps = np.abs(np.diff(np.concatenate([pattern, pattern[:1]]), axis=0)).max(1)
    assert steps[-1] <= 1.5 * steps.max()


def test_a_closed_tube_has_lids_that_look_outwards():
    surface = matte((1, 1, 1))
    sky = lit_by_sky()
    for eye in ((0, -0.01, 3), (0, -0.01, -3)):
        scene = {
            "camera": camera(eye, (0, 0, 0), 5, (2, 2), 4),
            **tube("tube", (0, 0, -1), (0, 0, 1), 0.5, surface, closed=True),
            **sky,
        }
        assert np.allclose(render(scene), 1, atol=1e-5)


def test_without_the_renderer_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "mitsuba", None)
    with pytest.raises(rendering.MissingRendererError, match=r"\.\[render\]"):
        rendering.mitsuba()
