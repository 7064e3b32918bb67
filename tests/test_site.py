"""The built site in a real browser."""

import re

import pytest
from built_site import build

pytestmark = pytest.mark.docs


def addresses() -> list[str]:
    """Every page of the site but the one for missing pages."""
    return sorted(str(file.parent.relative_to(build())) for file in build().rglob("index.html"))


@pytest.mark.parametrize("width", [1280, 375])
@pytest.mark.parametrize("page", ["light", "dark"], indirect=True)
def test_every_page_loads_whole_and_asks_no_other_host(page, address, tmp_path, width):
    page.set_viewport_size({"width": width, "height": 900})
    for name in addresses():
        page.goto(f"{address}{name}/" if name != "." else address, wait_until="networkidle")
        assert page.locator("h1").count() == 1, name
        assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{name} is wider than {width}"
        scheme = page.evaluate("document.body.getAttribute('data-md-color-scheme')")
        assert scheme == {"light": "default", "dark": "slate"}[page.mode]
        picture = "home" if name == "." else name.replace("/", "_")
        page.screenshot(path=tmp_path / f"{picture}-{page.mode}-{width}.png", full_page=True)
    assert not page.problems


def test_a_problem_would_be_noticed(page, address):
    page.goto(f"{address}no-such-page/")
    page.evaluate("fetch('https://localhost:1/').catch(() => 0)")
    assert any("404" in problem for problem in page.problems)
    assert any("another host" in problem for problem in page.problems)


def test_maths_is_set_on_every_page_that_has_some(page, address):
    formulas = 0
    for name in addresses():
        page.goto(f"{address}{name}/" if name != "." else address, wait_until="networkidle")
        unset = page.locator(".arithmatex:not(:has(.katex))")
        assert unset.count() == 0, f"{name}: {unset.first.text_content()}"
        assert page.locator(".katex-error").count() == 0, name
        page.evaluate("document.querySelectorAll('code, pre, .katex').forEach(element => element.remove())")
        text = page.locator("article").inner_text()
        assert not re.search(r"\$[^$\n]+\$|\\[a-z]{3,}", text), name
        formulas += page.locator(".arithmatex").count()
    assert formulas > 100


def test_search_finds_flowbank(page, address):
    page.goto(address, wait_until="networkidle")
    page.locator("input.md-search__input").click()
    page.keyboard.type("FlowBank", delay=20)
    found = page.locator("a.md-search-result__link", has_text="FlowBank").first
    found.wait_for(timeout=15_000)
    found.click()
    page.wait_for_url("**/*")
    assert "FlowBank" in page.locator("article").inner_text()
    assert not page.problems


def test_navigation_leads_from_page_to_page(page, address):
    page.goto(address, wait_until="networkidle")
    page.locator(".md-tabs__link", has_text="Concepts").click()
    page.wait_for_url("**/concepts/fields/")
    page.locator(".md-footer__link--next").click()
    page.wait_for_url("**/concepts/banks/")
    page.locator(".md-tabs__link", has_text="API").click()
    page.wait_for_url("**/api/")
    page.locator("article a", has_text="stepper").first.click()
    page.wait_for_url("**/api/stepper/")
    assert not page.problems


def test_a_phone_has_the_navigation_in_a_drawer(page, address):
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(address, wait_until="networkidle")
    page.locator("label.md-header__button[for=__drawer]").click()
    page.locator(".md-nav--primary").get_by_text("FAQ", exact=True).click()
    page.wait_for_url("**/faq/")
    assert not page.problems


def test_light_and_dark_switch_and_show_their_own_figures(page, address):
    page.goto(f"{address}concepts/fields/", wait_until="networkidle")
    scheme = "document.body.getAttribute('data-md-color-scheme')"
    background = "getComputedStyle(document.body).backgroundColor"
    figures = {mode: page.locator(f"article img[src$='#only-{mode}']") for mode in ("light", "dark")}
    assert page.evaluate(scheme) == "default"
    assert figures["light"].is_visible()
    assert not figures["dark"].is_visible()
    before = page.evaluate(background)
    page.locator("label[title='Switch to dark mode']").click()
    page.wait_for_function(f"{scheme} === 'slate'")
    assert page.evaluate(background) != before
    assert figures["dark"].is_visible()
    assert not figures["light"].is_visible()
    page.locator("label[title='Switch to light mode']").click()
    page.wait_for_function(f"{scheme} === 'default'")
    assert not page.problems
