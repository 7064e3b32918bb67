"""What README and docs promise: their code runs, their names exist, their pages are whole."""

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
import textwrap
from html.parser import HTMLParser

import pytest
import torch
from built_site import ROOT, build
from torch import nn

import torchflowfield
from torchflowfield import metrics, viz

pytestmark = pytest.mark.docs

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MODULES = [
    importlib.import_module(f"torchflowfield.{module.name}") for module in pkgutil.iter_modules(torchflowfield.__path__)
]
PAGE_NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


@pytest.fixture(autouse=True)
def float64_and_a_fixed_seed():
    """In place of the fixture of the same name: docs run in float32, as at a reader's desk."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def code_blocks(text: str) -> list[tuple[int, str]]:
    """Line number and code of every fenced python block."""
    found = re.finditer(r"^( *)```(?:python|py)\b[^\n]*\n(.*?)^\1```", text, flags=re.MULTILINE | re.DOTALL)
    return [(text[: block.start()].count("\n") + 1, textwrap.dedent(block[2])) for block in found]


def public(module) -> dict[str, object]:
    """Public functions, classes and constants that a module defines itself."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (name.isupper() or getattr(value, "__module__", None) == module.__name__)
        and not inspect.ismodule(value)
    }


def identifiers() -> set[str]:
    """What the API pages render."""
    pages = "\n".join(page.read_text() for page in (ROOT / "docs" / "api").glob("*.md"))
    return set(re.findall(r"^::: (\S+)", pages, flags=re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=PAGE_NAMES)
def test_every_code_block_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    for line, code in code_blocks(page.read_text()):
        exec(compile("\n" * line + code, str(page), "exec"), namespace)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_example_of_a_docstring_runs(module):
    names = {"torch": torch, "nn": nn, **{name: getattr(torchflowfield, name) for name in torchflowfield.__all__}}
    names |= vars(module)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, module.__name__, extraglobs=names):
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


def test_every_public_name_is_on_an_api_page():
    wanted = {f"torchflowfield.{name}" for name in torchflowfield.__all__}
    for module in (metrics, viz):
        wanted |= {f"{module.__name__}.{name}" for name in public(module)}
    assert not wanted - identifiers()


def test_every_name_on_an_api_page_exists():
    for identifier in identifiers():
        module, _, name = identifier.rpartition(".")
        assert hasattr(importlib.import_module(module), name), identifier


def test_every_public_name_has_a_docstring():
    missing = [module.__name__ for module in MODULES if not module.__doc__]
    for module in MODULES:
        for name, value in public(module).items():
            if not (inspect.isclass(value) or inspect.isfunction(value)):
                continue
            where = f"{module.__name__}.{name}"
            missing += [] if value.__doc__ else [where]
            members = vars(value).items() if inspect.isclass(value) else ()
            callables = (property, classmethod, staticmethod)
            missing += [
                f"{where}.{member}"
                for member, content in members
                if not member.startswith("_")
                and (inspect.isfunction(content) or isinstance(content, callables))
                and not content.__doc__
            ]
    assert not missing


def error_messages() -> list[str]:
    """The longest constant piece of every message that the package raises."""
    pieces = []
    for module in MODULES:
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args):
                continue
            message = node.exc.args[0]
            if isinstance(message, ast.Name):
                message = ast.Constant(getattr(module, message.id))
            parts = message.values if isinstance(message, ast.JoinedStr) else [message]
            constants = [part.value for part in parts if isinstance(part, ast.Constant)]
            pieces.append(next(piece for piece in constants if len(piece.strip(" :,.")) > 3))
    return pieces


@pytest.mark.parametrize("message", sorted(set(error_messages())))
def test_every_error_message_is_in_the_faq(message):
    sentence = re.split(r"(?<=[a-z)])\. (?=[A-Z])", message.strip(" :,."))[0]
    assert sentence.strip(" :,.'(") in (ROOT / "docs" / "faq.md").read_text()


class Resources(HTMLParser):
    """What a page loads: scripts, styles, images, fonts, frames."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "video", "audio", "embed"):
            self.loaded += [attributes[key] for key in ("src", "srcset", "poster") if attributes.get(key)]
        if tag == "link" and attributes.get("rel") not in ("canonical", "next", "prev"):
            self.loaded.append(attributes["href"])


def test_no_page_of_the_built_site_loads_from_another_host():
    pages = list(build().rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        parser = Resources()
        parser.feed(page.read_text())
        assert parser.loaded
        for address in parser.loaded:
            assert not re.match(r"(https?:)?//", address), f"{page.name} loads {address}"
            target = (build() / address.lstrip("/")) if address.startswith("/") else page.parent / address
            assert target.resolve().exists() or address.startswith("data:") or "#" in address, f"{page}: {address}"


def test_no_style_of_the_built_site_loads_from_another_host():
    styles = list(build().rglob("*.css"))
    assert styles
    for style in styles:
        assert not re.findall(r"(?:url\(|@import )\s*[\"']?(?:https?:)?//[^)\"']*", style.read_text()), style.name


def test_every_link_of_the_readme_leads_somewhere():
    links = re.findall(r"\]\(([^)\s]+)\)", (ROOT / "README.md").read_text())
    missing = [link for link in links if "://" not in link and not (ROOT / link.split("#")[0]).exists()]
    assert not missing
