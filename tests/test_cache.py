import json
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path.insert(0, str(EXAMPLES))

from flowvae.data.cache import Cache, is_foreign  # noqa: E402

RECIPE = {"size": 64, "seed": 0, "version": 1}


class Counting:
    """A maker that remembers for which files it was called."""

    def __init__(self):
        self.made = []

    def __call__(self, content):
        def make(path):
            self.made.append(path.name)
            path.write_bytes(content)

        return make


@pytest.fixture
def filled(tmp_path):
    make = Counting()
    cache = Cache(tmp_path / "cache", RECIPE)
    for k in range(3):
        cache.ensure(f"images/{k}.png", make(bytes([k]) * 100))
    make.made.clear()
    return cache, make


def test_a_file_is_made_once(filled):
    cache, make = filled
    again = Cache(cache.folder, RECIPE)
    assert again.ensure("images/1.png", make(b"other")).read_bytes() == b"\1" * 100
    assert make.made == []
    assert again.verify() == []


def test_the_maker_gets_a_path_with_the_suffix_of_the_file(tmp_path):
    suffixes = []
    Cache(tmp_path, {}).ensure("a/b/c.h5", lambda path: (suffixes.append(path.suffix), path.write_bytes(b"x")))
    assert suffixes == [".h5"]


def test_one_changed_byte_is_found_and_only_that_file_made_again(filled):
    cache, make = filled
    path = cache.folder / "images/1.png"
    content = bytearray(path.read_bytes())
    content[50] ^= 1
    path.write_bytes(content)
    assert cache.verify() == ["images/1.png"]
    for k in range(3):
        cache.ensure(f"images/{k}.png", make(bytes([k]) * 100))
    assert make.made == ["1.png"]
    assert cache.verify() == []
    assert path.read_bytes() == b"\1" * 100


def test_a_deleted_byte_and_a_deleted_file_are_found(filled):
    cache, _ = filled
    path = cache.folder / "images/1.png"
    content = path.read_bytes()
    path.write_bytes(content[:50] + content[51:])
    (cache.folder / "images/2.png").unlink()
    assert cache.verify() == ["images/1.png", "images/2.png"]


def test_a_file_of_another_recipe_is_made_again(filled):
    cache, make = filled
    other = Cache(cache.folder, {**RECIPE, "size": 32})
    assert len(other.verify()) == 3
    assert other.ensure("images/1.png", make(b"new")).read_bytes() == b"new"
    assert make.made == ["1.png"]


def test_the_manifest_states_the_recipe_in_clear(filled):
    cache, _ = filled
    lines = [json.loads(line) for line in (cache.folder / "manifest.jsonl").read_text().splitlines()]
    assert [line["values"] for line in lines if "values" in line] == [RECIPE]


@pytest.mark.parametrize("damage", [b"", b'{"name": "images/1', b"\xff\xfe\n"], ids=["empty", "torn", "binary"])
def test_a_damaged_manifest_costs_work_but_no_correctness(filled, damage):
    cache, make = filled
    manifest = cache.folder / "manifest.jsonl"
    lines = manifest.read_bytes().splitlines(keepends=True)
    manifest.write_bytes(b"".join(lines[:-1]) + damage)
    for _ in range(2):
        again = Cache(cache.folder, RECIPE)
        for k in range(3):
            again.ensure(f"images/{k}.png", make(bytes([k]) * 100))
    assert make.made == ["2.png"]
    assert Cache(cache.folder, RECIPE).verify() == []


def _write_half_and_wait(folder):
    def make(path):
        path.write_bytes(b"half")
        (folder / "started").touch()
        time.sleep(60)

    Cache(folder, RECIPE).ensure("images/3.png", make)


def test_a_killed_writer_leaves_no_file_and_the_next_one_goes_on(filled):
    cache, make = filled
    process = multiprocessing.get_context("fork").Process(target=_write_half_and_wait, args=(cache.folder,))
    process.start()
    while not (cache.folder / "started").exists():
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not (cache.folder / "images/3.png").exists()
    assert cache.verify() == ["images/3.png"]
    for k in range(4):
        cache.ensure(f"images/{k}.png", make(bytes([k]) * 100))
    assert make.made == ["3.png"]
    assert cache.verify() == []


def _make_slowly(folder, log):
    def make(path):
        with log.open("a") as stream:
            stream.write("made\n")
        time.sleep(0.2)
        path.write_bytes(b"content")

    Cache(folder, RECIPE).ensure("a.bin", make)


def test_processes_that_want_the_same_file_make_it_once(tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_make_slowly, args=(tmp_path / "cache", tmp_path / "log")) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert (tmp_path / "log").read_text() == "made\n"


def test_a_maker_that_fails_or_writes_nothing_leaves_no_file(tmp_path):
    cache = Cache(tmp_path, {})
    with pytest.raises(RuntimeError, match="maker of a.png to write"):
        cache.ensure("a.png", lambda path: None)

    def fail(path):
        path.write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        cache.ensure("a.png", fail)
    assert not (tmp_path / "a.png").exists()
    assert cache.verify() == ["a.png"]


@pytest.mark.parametrize("name", ["../a", "/a", "manifest.jsonl", ".unfinished/a", ""])
def test_a_name_outside_the_folder_is_an_error(tmp_path, name):
    with pytest.raises(ValueError, match="inside the cache's folder"):
        Cache(tmp_path, {}).ensure(name, lambda path: path.write_bytes(b""))


def test_many_files_are_made_with_their_missing_parts_alone(filled):
    cache, make = filled
    makers = {f"images/{k}.png": make(bytes([k]) * 100) for k in range(6)}
    paths = cache.ensure_all(makers, "drawing")
    assert [path.name for path in paths] == [f"{k}.png" for k in range(6)]
    assert make.made == ["3.png", "4.png", "5.png"]


def test_a_folder_with_files_that_nobody_listed_is_foreign(filled, tmp_path):
    assert not is_foreign(filled[0].folder)
    assert not is_foreign(tmp_path / "nowhere")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ".DS_Store").write_bytes(b"")
    assert not is_foreign(tmp_path / "other")
    (tmp_path / "other" / "official.npz").write_bytes(b"data")
    assert is_foreign(tmp_path / "other")
