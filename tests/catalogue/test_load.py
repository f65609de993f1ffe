"""The compiled catalogue: read once per content, never stale, and never needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tasks.cache import roots
from tasks.catalogue import load
from tasks.errors import UsageError

from tests.support.project import REPO

ENTRY = {"title": "A model", "url": "https://models.example/m.llamafile", "license": "MIT"}
LOOK = """\
import json, sys
from tasks.catalogue import load as compiled
found = compiled.load(sys.argv[1], sys.argv[2])
heavy = [name for name in ("yaml", "pydantic", "tasks.catalogue.schema") if name in sys.modules]
print(json.dumps([found.default, heavy]))
"""


def write(path: Path, *names: str, text: str = "") -> Path:
    """A catalogue with these models; the first is the default. JSON is YAML."""
    models = dict.fromkeys(names, ENTRY)
    data = {"version": 1, "default": next(iter(names), ""), "engines": {}, "models": models}
    path.write_text(text or json.dumps(data), "utf-8")
    return path


def kept(cache: Path) -> list[Path]:
    return sorted((cache / "catalogue").glob("*"))


def plain(path: Path) -> dict[str, Any]:
    """What a compiled file says, behind its digest."""
    return dict(json.loads(path.read_text("utf-8").partition("\n")[2]))


def forge(path: Path, data: Any) -> None:
    """Write other data under the same key, with the digest that it must have."""
    text = json.dumps(data)
    path.write_text(f"{load._checksum(path.stem, text)}\n{text}", "utf-8")


def look(catalogue: Path, cache: Path) -> tuple[str, list[str]]:
    """Load it in a new process: its default, and what had to be imported."""
    done = subprocess.run(
        [sys.executable, "-c", LOOK, str(catalogue), str(cache)],
        cwd=REPO, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    default, heavy = json.loads(done.stdout)
    return default, heavy


def test_a_second_load_reads_no_yaml(tmp_path: Path) -> None:
    """R36: a warm run imports neither yaml nor pydantic."""
    catalogue, cache = write(tmp_path / "models.yaml", "one"), tmp_path / "cache"
    assert look(catalogue, cache) == ("one", ["yaml", "pydantic", "tasks.catalogue.schema"])
    assert look(catalogue, cache) == ("one", [])


def test_a_touched_file_is_not_compiled_again(tmp_path: Path) -> None:
    """R36: the content counts, not the time and not the place."""
    catalogue, cache = write(tmp_path / "models.yaml", "one"), tmp_path / "cache"
    load.load(str(catalogue), str(cache))
    before = kept(cache)
    os.utime(catalogue, (1, 1))
    load.load(str(catalogue.rename(tmp_path / "other.yaml")), str(cache))
    assert kept(cache) == before


def test_changed_bytes_are_compiled_again(tmp_path: Path) -> None:
    """R37: an edit counts at once, also one within the same second and of the same length."""
    catalogue, cache = tmp_path / "models.yaml", tmp_path / "cache"
    for name in ("one", "two", "one"):
        write(catalogue, name)
        os.utime(catalogue, (1, 1))
        assert load.load(str(catalogue), str(cache)).default == name
    assert len(kept(cache)) == 2


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"null", b"\xff\xfe", b"[]", b'"text"', b"{}"], ids=lambda d: repr(d)
)
def test_a_broken_compiled_file_is_made_again(tmp_path: Path, damage: bytes) -> None:
    """R36: the cache is never needed to be right, nor to be there."""
    catalogue, cache = write(tmp_path / "models.yaml", "one"), tmp_path / "cache"
    load.load(str(catalogue), str(cache))
    whole = kept(cache)[0].read_bytes()
    kept(cache)[0].write_bytes(damage)
    assert load.load(str(catalogue), str(cache)).default == "one"
    assert kept(cache)[0].read_bytes() == whole


@pytest.mark.skipif(sys.platform == "win32", reason="a file of holes takes its space there")
def test_a_compiled_file_without_end(tmp_path: Path) -> None:
    """It is not read, also where it is made anew: memory would not be enough."""
    catalogue, cache = write(tmp_path / "models.yaml", "one"), tmp_path / "cache"
    load.load(str(catalogue), str(cache))
    (path,) = kept(cache)
    size = path.stat().st_size
    for from_text in (False, True):
        os.truncate(path, 2**42)
        assert load.load(str(catalogue), str(cache), from_text=from_text).default == "one"
        assert path.stat().st_size == size


def test_damage_that_is_still_json(tmp_path: Path) -> None:
    """Issue 11: another key, another type, another digest: the file has a digest of its own."""
    catalogue, cache = write(tmp_path / "models.yaml", "one"), tmp_path / "cache"
    load.load(str(catalogue), str(cache))
    path = kept(cache)[0]
    whole = path.read_bytes()
    for old, new in ((b'"title"', b'"tiule"'), (b'"one"', b"1"), (b"m.llamafile", b"n.llamafile")):
        path.write_bytes(whole.replace(old, new))
        found = load.load(str(catalogue), str(cache))
        assert found.model("one").url == ENTRY["url"]
        assert path.read_bytes() == whole
    other = path.with_name(f"{'0' * 64}.json")
    other.write_bytes(whole)  # of another catalogue
    assert load._read_compiled(path.parent, "0" * 64) is None


@pytest.mark.parametrize(
    "change",
    [
        {"models": []}, {"models": {}}, {"models": {"one": None}}, {"models": {"one": {**ENTRY, "url": 5}}},
        {"models": {"one": {**ENTRY, "tiule": "x"}}}, {"models": {"one": {"url": "x"}}},
        {"models": {"one": {**ENTRY, "aliases": "abc"}}}, {"models": {"one": {**ENTRY, "serve": None}}},
        {"models": {"one": {**ENTRY, "serve": {"port": "x"}}}}, {"models": {"one": {**ENTRY, "more": 1}}},
        {"models": {"one": {**ENTRY, "more": [["x", [], None, "1", False]]}}}, {"engines": {"llamafile": 1}},
        {"models": {"one": {**ENTRY, "serve": {"serve": {}}}}}, {"models": {"one": {**ENTRY, "size": "x"}}},
        {"names": {"one": "two"}}, {"names": {"one": ["one"]}}, {"files": {"m.llamafile": "two"}},
        {"default": "two"}, {"default": None}, {"defaults": []}, {"defaults": {"title": "x"}},
        {"adopt_from": "text"}, {"adopt_from": [1]}, {"names": {}},
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_type_with_the_right_digest(tmp_path: Path, change: dict[str, Any]) -> None:
    """Issue 11: compiled anew, wherever it is, before anything uses it."""
    catalogue, cache = write(tmp_path / "models.yaml", "one"), tmp_path / "cache"
    load.load(str(catalogue), str(cache))
    path = kept(cache)[0]
    whole = path.read_bytes()
    forge(path, {**plain(path), **change})
    load.load(str(catalogue), str(cache))
    assert path.read_bytes() == whole


def test_what_is_compiled_is_not_believed_where_git_is(tmp_path: Path) -> None:
    """Issue 11: a forged one is not read, and does not stay."""
    catalogue, cache = write(tmp_path / "models.yaml", "one"), tmp_path / "cache"
    load.load(str(catalogue), str(cache))
    path = kept(cache)[0]
    whole, data = path.read_bytes(), plain(path)
    data["models"]["one"]["url"] = "https://evil.example/m.llamafile"
    forge(path, data)
    assert load.load(str(catalogue), str(cache)).model("one").url != ENTRY["url"]
    assert load.load(str(catalogue), str(cache), from_text=True).model("one").url == ENTRY["url"]
    assert path.read_bytes() == whole


def test_a_cache_that_cannot_be_written_only_costs_time(tmp_path: Path) -> None:
    """R36: /dev/null is a place where nothing can be made, for root as well."""
    catalogue = write(tmp_path / "models.yaml", "one")
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    for _ in range(2):
        assert load.load(str(catalogue), str(blocked / "cache")).default == "one"
    assert blocked.read_text() == "not a folder"


def test_old_ones_are_removed(tmp_path: Path) -> None:
    """R36: a few branches and projects are kept, the oldest go first."""
    catalogue, cache = tmp_path / "models.yaml", tmp_path / "cache"
    for number in range(12):
        load.load(str(write(catalogue, f"m{number}")), str(cache))
        newest = max(kept(cache), key=lambda path: path.stat().st_mtime)
        os.utime(newest, (time.time() - 1000 + number,) * 2)
    assert len(kept(cache)) == load._KEPT
    defaults = {plain(path)["default"] for path in kept(cache)}
    assert defaults == {f"m{number}" for number in range(4, 12)}


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    """R37: Windows editors write one."""
    catalogue = write(tmp_path / "models.yaml", "one")
    catalogue.write_bytes(b"\xef\xbb\xbf" + catalogue.read_bytes())
    assert load.load(str(catalogue), str(tmp_path / "cache")).default == "one"


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_other_encodings_are_refused_with_the_remedy(tmp_path: Path, encoding: str) -> None:
    """R37: the message names the file and what to do, and nothing is kept."""
    catalogue, cache = tmp_path / "models.yaml", tmp_path / "cache"
    catalogue.write_bytes("version: 1  # größer\n".encode(encoding))
    with pytest.raises(UsageError) as caught:
        load.load(str(catalogue), str(cache))
    assert f"{catalogue} is not UTF-8 text" in str(caught.value)
    assert f"save {catalogue} as UTF-8" in caught.value.fix
    assert kept(cache) == []


def test_errors_are_not_kept(tmp_path: Path) -> None:
    """R37: a wrong catalogue is wrong in every run, until it is mended."""
    catalogue, cache = write(tmp_path / "models.yaml", text="version: 2\n"), tmp_path / "cache"
    for _ in range(2):
        with pytest.raises(UsageError, match=r"models\.yaml has"):
            load.load(str(catalogue), str(cache))
    assert kept(cache) == []
    write(catalogue, "one")
    assert load.load(str(catalogue), str(cache)).default == "one"


def test_a_missing_catalogue_names_the_variable(tmp_path: Path) -> None:
    """R37: LLAMAFILE_CATALOGUE is what usually names it."""
    with pytest.raises(UsageError, match="LLAMAFILE_CATALOGUE") as caught:
        load.load(str(tmp_path / "none.yaml"), str(tmp_path / "cache"))
    assert "cannot read the catalogue" in str(caught.value)


def test_who_uses_the_cache_is_noted_once(tmp_path: Path) -> None:
    """Issue 5.6: also of a catalogue whose content is known already; a second look changes nothing."""
    cache = str(tmp_path / "cache")
    first, second = (write(tmp_path / name, "one") for name in ("first.yaml", "second.yaml"))
    for catalogue in (first, second, first):
        load.load(str(catalogue), cache)
        roots.remember(str(catalogue), cache)
    assert sorted(root.path for root in roots.gc_roots(cache)) == [str(first), str(second)]
    assert len(kept(Path(cache))) == 1
    notes = {path: path.stat().st_mtime_ns for path in Path(cache, "roots").iterdir()}
    roots.remember(str(second), cache)
    assert {path: path.stat().st_mtime_ns for path in Path(cache, "roots").iterdir()} == notes


@pytest.mark.parametrize("damage", ["", "{", "[]", "null", '{"path": "x"}'])
def test_a_damaged_note_is_no_root(tmp_path: Path, damage: str) -> None:
    """Issue 5.6: what nobody can read names nothing."""
    (tmp_path / "roots").mkdir()
    (tmp_path / "roots" / "0123456789abcdef.json").write_text(damage)
    assert roots.gc_roots(str(tmp_path)) == []
