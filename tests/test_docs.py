"""What README and docs promise: their code runs, their names exist, their pages are whole."""

import ast
import doctest
import importlib
import inspect
import json
import pkgutil
import re
import runpy
import textwrap
import tomllib
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
# What is read in the repository alone.
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "examples" / "README.md"]
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


@pytest.fixture
def scripts(monkeypatch):
    """Where the scripts of the figures are, importable as they import each other."""
    folder = ROOT / "docs" / "figures"
    monkeypatch.syspath_prepend(str(folder))
    return folder


def test_every_picture_of_the_site_is_made_by_a_script(scripts, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.import_module("style"), "FOLDER", tmp_path)
    page = ROOT / "docs" / "performance.md"
    tables = page.read_text()
    for script in scripts.glob("*.py"):
        if "from style import" in script.read_text():
            runpy.run_path(str(script), run_name="__main__")
    # One of them writes tables too, which have to be there already.
    written = page.read_text()
    page.write_text(tables)
    assert written == tables
    assets = ROOT / "docs" / "assets"
    made = {assets / "figures" / file.name for file in tmp_path.iterdir()}
    made |= importlib.import_module("pictures").shown()
    charts = importlib.import_module("results")
    for table in charts.charts():
        charts.draw(table, tmp_path)
        made.add(charts.RESULTS / f"{table.stem}.png")
        assert (tmp_path / f"{table.stem}.png").stat().st_size > 5000
    standins = (scripts / "standins.py").read_text()
    made |= {assets / "standins" / f"{name}.webp" for name in re.findall(r'save\("(\w+)"', standins)}
    shown = {file for folder in (".", "figures", "results", "standins") for file in (assets / folder).iterdir()}
    shown |= set(charts.RESULTS.iterdir())
    pictures = {file for file in shown if file.suffix in (".svg", ".png", ".gif", ".webp")} - {assets / "favicon.svg"}
    assert pictures == made


def test_the_experiments_of_the_pictures_exist_and_have_a_finisher(scripts, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    known = importlib.import_module("flowvae.experiments").EXPERIMENTS
    for drawn in importlib.import_module("pictures").EXPERIMENTS:
        assert known[drawn.experiment].after in importlib.import_module("flowvae.finish").FINISHERS


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
    """Every message that the package raises, with an ellipsis for what varies."""
    messages = []
    for module in MODULES:
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args):
                continue
            message = node.exc.args[0]
            if isinstance(message, ast.Name):
                message = ast.Constant(getattr(module, message.id))
            parts = message.values if isinstance(message, ast.JoinedStr) else [message]
            messages.append("".join(part.value if isinstance(part, ast.Constant) else "…" for part in parts))
    return messages


def faq_entries() -> list[str]:
    """The messages that the tables of the FAQ explain, each with a cause and a remedy."""
    return re.findall(
        r"^\| `([^`]+)` \| [^|]+ \| [^|]+ \|$", (ROOT / "docs" / "faq.md").read_text(), flags=re.MULTILINE
    )


def explains(entry: str, message: str) -> bool:
    """Whether an entry gives the words with which a message begins."""
    words = ".*".join(re.escape(part) for part in entry.split("…"))
    return re.match(words, message) is not None


@pytest.mark.parametrize("message", sorted(set(error_messages())))
def test_every_error_message_is_in_the_faq(message):
    assert any(explains(entry, message) for entry in faq_entries())


@pytest.mark.parametrize("entry", faq_entries())
def test_every_message_of_the_faq_is_raised(entry):
    assert any(explains(entry, message) for message in error_messages())


@pytest.mark.parametrize("identifier", sorted(identifiers()))
def test_every_name_of_an_api_page_has_an_example_that_the_tests_run(identifier):
    module, _, name = identifier.rpartition(".")
    value = getattr(importlib.import_module(module), name)
    example = ">>>" in (inspect.getdoc(value) or "")
    pages = [page.read_text() for page in (ROOT / "docs" / "api").glob("*.md")]
    page = next(page for page in pages if f"::: {identifier}\n" in page + "\n")
    assert example or any(name in code for _, code in code_blocks(page))


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


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_the_texts_beside_the_site_leads_somewhere(page):
    text = page.read_text()
    titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        file, _, anchor = link.partition("#")
        assert "://" in link or (page.parent / file).exists(), link
        assert file or anchor in anchors, link


def commands() -> list[str]:
    """Every command that a page or a script tells its reader to type."""
    scripts = [*(ROOT / "examples").rglob("*.py"), *(ROOT / "docs" / "figures").glob("*.py")]
    texts = [page.read_text().replace("\\\n", " ") for page in (*PAGES, *TEXTS, *scripts)]
    found = [re.findall(r"(?:^|`)\s*((?:make|python) [^`#\n]+)", text, flags=re.MULTILINE) for text in texts]
    return sorted({command.strip() for page in found for command in page})


@pytest.mark.parametrize("command", commands())
def test_every_command_of_the_texts_exists(command):
    program, first, *rest = command.split()
    if program == "make":
        makefile = (ROOT / "Makefile").read_text()
        targets = re.findall(r"^(\w[\w-]*):", makefile, flags=re.MULTILINE)
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        targets += [f".venv/{extra}" for extra in extras]
        assert {word for word in (first, *rest) if "=" not in word} <= set(targets)
        assert all(f"$({word.split('=')[0]})" in makefile for word in rest if "=" in word)
        return
    if first.startswith("-"):
        return
    assert (ROOT / first).exists()
    assert all((ROOT / word).exists() for word in rest if word.startswith("examples/"))
    if first == "examples/reproduce.py" and rest and rest[0][0].islower():
        assert f'"{rest[0]}":' in (ROOT / "examples" / "flowvae" / "experiments.py").read_text()


def test_tables_of_performance_are_those_that_were_measured(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "figures"))
    page = (ROOT / "docs" / "performance.md").read_text()
    written = runpy.run_path(str(ROOT / "docs" / "figures" / "benchmark.py"))["with_tables"]
    results = (ROOT / "docs" / "results" / f"benchmark{end}.json" for end in ("", "_two_threads", "_avx2", "_cuda"))
    measured = [json.loads(file.read_text()) for file in results]
    assert page.count("<!-- table: ") == 15
    assert written(page, *measured) == page
