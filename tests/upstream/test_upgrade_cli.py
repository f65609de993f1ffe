"""`doit lock --upgrade --checked`: a pin moves only if its checks pass with the new bytes (issue 18.3)."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.fakes import llamafile
from tests.support.project import ENGINES, REPO, Project, Result
from tests.support.publishers import World, entry, failed, sha256, worlds

OLD = (REPO / "demo" / "demo.gguf").read_bytes()
NEW = OLD + bytes(64)  # it answers as before
BAD = OLD[:1_000_000] + bytes(len(OLD) - 1_000_000)  # it answers something else
NAME = "m.gguf"
WHAT = {"ask": "What are you?", "contains": "tiny demo model"}
ODD = {"ask": "Are `you` | a <b>?", "matches": "."}
SERVE = {"threads": 1, "n_predict": 32}
CHECKED = ("lock", "--upgrade", "--checked")
embedded = pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None, reason="needs the embedded engine"
)


@pytest.fixture
def world(project: Project) -> Iterator[World]:
    yield from worlds(project)


def model(**keys: Any) -> dict[str, Any]:
    """An entry for the demo model at the Hub."""
    return entry(hf="o/r", file=NAME, engine="embedded", serve=SERVE, **keys)


def locked(world: World, **models: dict[str, Any]) -> None:
    """Lock a catalogue while the Hub has the old bytes; then it has others."""
    world.repo.push({NAME: OLD})
    world.project.catalogue(models, {"embedded": ENGINES["embedded"]})
    world.locked()


def digests(world: World) -> dict[str, str]:
    """The digest of the first file of each entry."""
    data = yaml.safe_load(world.lock.read_text("utf-8"))
    return {name: rows[0]["sha256"] for name, rows in {**data["engines"], **data["models"]}.items()}


@embedded
def test_pins_move_or_are_kept_back(world: World) -> None:
    """Issue 18.3: with checks that pass it moves; without checks it does not; a new entry is locked."""
    locked(world, m=model(checks=[WHAT, ODD]), plain=model())
    commit = world.repo.push({NAME: NEW})
    models = {"m": model(checks=[WHAT, ODD]), "plain": model(), "more": model()}
    world.project.catalogue(models, {"embedded": ENGINES["embedded"]})
    result = world.project.doit(*CHECKED, "--report", "report.md")
    assert result.status == 0, result.err
    assert digests(world) == {"m": sha256(NEW), "plain": sha256(OLD), "more": sha256(NEW)}
    assert "model plain is kept back: it has no checks" in result.err
    assert [line for line in result.out.splitlines() if line[0] in "+~"] == [
        f"~ m: {NAME}",
        f"+ more: {NAME} 2.25 MB sha256:{sha256(NEW)} (the Hub (X-Linked-Etag))",
    ]
    for data in (OLD, NEW):  # nothing of the old is lost
        assert world.project.target(data, NAME).read_bytes() == data
    assert not world.project.processes()
    report = (world.project.path / "report.md").read_text("utf-8")
    lines = report.splitlines()
    assert lines[0] == "# Upgrade of models.lock"
    assert "| model m | `moves: all checks pass` |" in lines
    assert "| model plain | `kept back: it has no checks` |" in lines
    assert f"| new | `{NAME}` | `{commit[:12]}` | `{sha256(NEW)}` | `2.25 MB` | `MIT` |" in lines
    assert re.search(rf"^\| old \| `{NAME}` \| `\w+` \| `{sha256(OLD)}`", report, re.MULTILINE)
    assert len(re.findall(r"^\| (?:old|new) \| `embedded .*` \| `2 of 2 passed` \| `[\d.e+]+` \|$", report,
                          re.MULTILINE)) == 2  # fmt: skip
    assert (
        "```text\nquestion: What are you?\nexpected: contains 'tiny demo model'\nold and new: I am" in report
    )


@embedded
def test_checks_that_fail(world: World) -> None:
    """Issue 18.3: the pin stays, the report has both answers and why; the command ends well."""
    locked(world, m=model(checks=[WHAT]))
    before = world.lock.read_text("utf-8")
    world.repo.push({NAME: BAD})
    result = world.project.doit(*CHECKED)
    assert result.status == 0, result.err
    assert world.lock.read_text("utf-8") == before
    assert "| model m | `kept back: m: 1 of 1 checks failed` |" in result.out
    both = r"^old: I am the tiny demo model[^`]*^new: [^`]*^failed: the answer does not have the text$"
    assert re.search(both, result.out, re.MULTILINE)
    assert world.project.doit("check", "m").status == 0  # what is locked answers as before


@embedded
def test_bytes_that_cannot_be_served(world: World) -> None:
    """Issue 18.3: a file that is no model, and one that is not there any more, are kept back."""
    locked(world, m=model(checks=[WHAT]))
    before = world.lock.read_text("utf-8")
    world.repo.push({NAME: b"<html>not a model</html>"})
    result = world.project.doit(*CHECKED)
    assert (result.status, world.lock.read_text("utf-8")) == (0, before), result.err
    assert "model m is kept back: m: " in result.err
    assert "Error with the new one:" in result.out


ENGINE_CASES = [
    pytest.param(
        "g", {"url": "g.gguf", "engine": "llamafile", "serve": {"ctx_size": 0}}, id="a model that it serves"
    ),
    pytest.param(
        "demo", {"url": "demo/demo.gguf", "engine": "embedded"}, id="the demo, if it serves no other"
    ),
]


@pytest.mark.skipif(os.name == "nt", reason="the fake engine is a shell script")
@pytest.mark.parametrize(("name", "keys"), ENGINE_CASES)
def test_an_engine(world: World, name: str, keys: dict[str, Any]) -> None:
    """Issue 18.3: its release moves if the locked models that it serves, or the demo, still pass."""
    (world.project.path / "g.gguf").write_bytes(llamafile.gguf(4096))
    base = f"{world.github.endpoint}/gh/llamafile/releases/download/{{version}}/llamafile-{{version}}"
    engines = {"llamafile": {"title": "l", "license": "Apache-2.0", "version": "latest", "url": base}}
    checks = [{"ask": "What is 2 + 3?", "contains": "five"}]
    world.project.catalogue(
        {name: entry(**keys, checks=checks)}, {**engines, "embedded": ENGINES["embedded"]}
    )

    def released(version: str, answer: str, *words: str) -> tuple[str, Result]:
        """Release an engine and lock; the locked version, and what was said."""
        exe = llamafile.build_exe(world.project.path / "exe", version=version, behaviour={"answer": answer})
        world.releases.release(version, {f"llamafile-{version}": exe.read_bytes()})
        result = world.project.doit(*words)
        assert result.status == 0, result.err
        data = yaml.safe_load(world.lock.read_text("utf-8"))
        return data["engines"]["llamafile"][0]["version"], result

    assert released("0.10.5", "It is five.", "lock")[0] == "0.10.5"
    version, result = released("0.10.6", "It is six.", *CHECKED)
    assert version == "0.10.5"
    assert f"engine llamafile is kept back: {name}: 1 of 1 checks failed" in result.err
    version, result = released("0.10.7", "Well, five.", *CHECKED)
    assert version == "0.10.7"
    assert "old: It is five.\nnew: Well, five." in result.out
    world.project.catalogue({name: entry(**keys)}, {**engines, "embedded": ENGINES["embedded"]})
    version, result = released("0.10.8", "Five.", *CHECKED)
    assert version == "0.10.7"
    assert "engine llamafile is kept back: no model that it serves has checks" in result.err


def test_nothing_moves(world: World) -> None:
    """Issue 18.3: no server is started, and the report says so."""
    locked(world, m=model(checks=[WHAT]))
    world.repo.push({"README.md": b"other"})
    result = world.project.doit(*CHECKED)
    assert result.status == 0, result.err
    assert result.out == "# Upgrade of models.lock\n\nEvery pin has the bytes that its publisher has now.\n"
    assert "starting" not in result.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--checked", "--checked is only for --upgrade\n  fix: doit lock --upgrade --checked"),
        ("--upgrade --report x", "--report is only for --checked"),
        ("--upgrade --checked --report no/x", "--report: expected a file in a directory, got no/x"),
    ],
)
def test_what_is_refused(world: World, words: str, said: str) -> None:
    """Issue 18.3: before anything is asked."""
    world.project.catalogue({"m": model()}, {"embedded": ENGINES["embedded"]})
    assert f"ERROR: {said}" in failed(world.project.doit("lock", *words.split()), 3)
    assert world.requests == 0
