"""`doit` alone: the table of models, and the same as JSON; a report on stdout and nothing beside it."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest
from tasks.catalogue.artifact import Stamp, stamp_data
from tasks.system import memory
from tasks.system.files import stat_of

from tests.fakes import llamafile
from tests.support.partials import leave_partial
from tests.support.project import Project, Result
from tests.support.stamps import restamp

ENGINES = {
    "llamafile": {"title": "l", "license": "MIT", "version": "0.10.5", "url": "https://models.invalid/exe"}
}


def report(result: Result) -> str:
    """The report of a run that must succeed; stderr stays empty."""
    assert (result.status, result.err) == (0, ""), result.err
    return result.out


def rows(text: str) -> dict[str, str]:
    """Name → the rest of its line."""
    table = text.split("\n\n")[0].splitlines()[1:]
    return {line.split()[0]: " ".join(line.split()[1:]) for line in table}


def five(project: Project) -> dict[str, bytes]:
    """A catalogue with a model in every state there is; their bytes by name."""
    data = {name: name.encode() * 100_000 for name in ("gone", "part", "here", "new", "ship")}
    for name in data:
        (project.path / f"{name}.gguf").write_bytes(data[name])
    models: dict[str, Any] = {
        name: project.entry(f"https://models.invalid/{name}.gguf", data[name], license="CC-BY-4.0", ram=7)
        for name in ("gone", "part", "here", "new")
    }
    models["ship"] = project.entry("ship.gguf", None, title="Shipped with the folder")
    project.catalogue(models, ENGINES)
    here = project.target(data["here"], "here.gguf")
    here.parent.mkdir(parents=True)
    here.write_bytes(data["here"])
    stamp = Stamp(stat_of(here.stat()), models["here"]["sha256"], "", {})
    here.with_name("here.gguf.stamp.json").write_text(json.dumps(stamp_data(stamp)))
    new = project.target(data["new"], "new.gguf")
    new.parent.mkdir(parents=True)
    new.write_bytes(b"edited")
    return data


def test_the_table(project: Project) -> None:
    """R20, R33, R37: each model with size, memory, licence and what of it is here; then what to type."""
    data = five(project)
    leave_partial(project.target(data["part"], "part.gguf"), data["part"], len(data["part"]) * 43 // 100 + 1)
    text = report(project.doit())
    assert text.splitlines()[0].split() == ["model", "size", "RAM", "licence", "here", "what", "it", "is"]
    assert rows(text) == {
        "gone": "* 400.0 kB 7.00 GB CC-BY-4.0 no A model",
        "part": "400.0 kB 7.00 GB CC-BY-4.0 43 % A model",
        "here": "400.0 kB 7.00 GB CC-BY-4.0 yes A model",
        "new": "300.0 kB 7.00 GB CC-BY-4.0 changed A model",
        "ship": "400.0 kB ? MIT bundled Shipped with the folder",
    }
    assert f"* the default. Cache: {project.cache}\n" in text
    assert "Next:\n  doit chat ship " in text
    assert re.search(r"^  doit serve  +downloads 400.0 kB, then serves gone$", text, re.MULTILINE)
    assert "doit list " in text
    assert "\x1b" not in text
    assert not list(project.cache.rglob("gone*"))


def test_help_has_the_state_and_the_size_of_the_table(project: Project) -> None:
    """The size of a file that states none is that of the file here, also once it is in the cache."""
    data = five(project)
    leave_partial(project.target(data["part"], "part.gguf"), data["part"], len(data["part"]) * 43 // 100 + 1)
    states = {
        "gone": "no",
        "part": "43 % of it",
        "here": "yes, verified",
        "new": "yes, to be verified before it is used",
        "ship": "bundled: no download",
    }
    for name, here in states.items():
        assert report(project.doit("help", name)).split("here      ")[1].splitlines()[0] == here
    assert "size      400.0 kB\n" in report(project.doit("help", "ship"))
    gguf = llamafile.build_gguf(project.path / "own.gguf", size=1_000_000)
    project.catalogue({"own": project.entry("own.gguf", engine="embedded")}, ENGINES)
    assert project.doit("download").status == 0
    gguf.unlink()
    assert rows(report(project.doit()))["own"] == "* 1.00 MB ? MIT yes A model"
    assert "size      1.00 MB\n" in report(project.doit("help", "own"))


def test_what_to_try_first(project: Project) -> None:
    """Issue 14.1: a model that is here, the default one before others; none if none is here."""
    (project.path / "ship.gguf").write_bytes(b"GGUF")
    urls = {"gone": "https://models.invalid/gone.gguf", "ship": "ship.gguf"}
    models = {name: project.entry(url, b"GGUF", engine="embedded") for name, url in urls.items()}
    asked = '\n  doit chat ship "What are you?" '
    for default in models:
        project.catalogue(models, default=default)
        assert asked in report(project.doit())
    target = project.target(b"GGUF", "ship.gguf")
    target.parent.mkdir(parents=True)
    target.write_bytes(b"GGUF")
    stamp = Stamp(stat_of(target.stat()), models["ship"]["sha256"], "x", {})
    target.with_name("ship.gguf.stamp.json").write_text(json.dumps(stamp_data(stamp)))
    assert asked in report(project.doit())
    target.unlink()
    (project.path / "ship.gguf").unlink()
    assert "doit chat" not in report(project.doit())


def test_downloads_nothing_and_changes_nothing(project: Project) -> None:
    """R6: looking is free; only the compiled catalogue is kept, and whose it is."""
    five(project)
    before = {path: path.stat().st_mtime_ns for path in project.cache.rglob("*") if path.is_file()}
    report(project.doit())
    after = {path: path.stat().st_mtime_ns for path in project.cache.rglob("*") if path.is_file()}
    new = set(after) - set(before)
    assert sorted(path.parent.name for path in new) == ["catalogue", "roots"]
    assert {path: after[path] for path in before} == before


def test_json(project: Project) -> None:
    """R37: for programs: plain JSON, complete, on stdout alone."""
    data = five(project)
    leave_partial(project.target(data["part"], "part.gguf"), data["part"], len(data["part"]) * 43 // 100 + 1)
    found = json.loads(report(project.doit("catalogue", "--json")))
    assert found["default"] == "gone"
    states = {model["name"]: model["state"] for model in found["models"]}
    assert states == {
        "gone": "absent", "part": "partial", "here": "complete", "new": "changed", "ship": "bundled"
    }  # fmt: skip
    model = found["models"][2]
    target = project.target(data["here"], "here.gguf")
    assert model == {
        "name": "here",
        "aliases": [],
        "title": "A model",
        "kind": "chat",
        "size": 400_000,
        "license": "CC-BY-4.0",
        "params": None,
        "quant": None,
        "ram_gb": 7,
        "memory": 7 * 10**9,
        "fits": memory.total() >= 7 * 10**9,
        "sha256": project.entry("", data["here"])["sha256"],
        "url": "https://models.invalid/here.gguf",
        "path": str(target),
        "here": True,
        "state": "complete",
        "downloaded": 400_000,
    }


def test_the_shipped_catalogue(project: Project) -> None:
    """R1, R33, R37: a hundred models, each with a licence; the default is the reference's model."""
    found = json.loads(report(project.doit("catalogue", "--json")))
    assert len(found["models"]) >= 100
    assert all(model["license"] and model["url"] for model in found["models"])
    default = next(m for m in found["models"] if m["name"] == found["default"])
    assert default["url"].endswith("/mistral-7b-instruct-v0.2.Q5_K_M.llamafile")
    text = report(project.doit("catalogue", "--all"))
    assert list(rows(text)) == [model["name"] for model in found["models"]]
    text = report(project.doit())
    assert 'doit chat demo "What are you?"' in text
    assert list(rows(text))[:2] == ["mistral", "demo"]
    assert f"{len(rows(text))} of {len(found['models'])} models; this machine has " in text
    assert "More: doit catalogue --all, --fits, --kind embedding, or a word: qwen\n" in text
    assert text.count("\n") <= 23


FILTERS = (
    (["qwen"], ["qwen3-8b", "qwen3-vl-8b"]),
    (["Tiny"], ["demo"]),  # in the title, in any case
    (["phi3-mini"], ["phi"]),  # an alias
    (["qwen", "vl"], ["qwen3-vl-8b"]),
    (["--word", "qwen", "--fits"], ["qwen3-8b"]),
    (["--fits"], ["demo", "qwen3-8b"]),
    (["--kind", "vision"], ["qwen3-vl-8b"]),
    (["--kind", "chat"], ["demo", "qwen3-8b", "phi"]),
    (["--all"], ["demo", "qwen3-8b", "qwen3-vl-8b", "phi"]),
)


@pytest.mark.skipif(os.name == "nt", reason="nvidia-smi is a shell script here")
def test_what_fits_is_what_plan_says(project: Project, tmp_path: Path) -> None:
    """Issue 14: by models.lock, by the rule of thumb, and on the GPU if layers are put there."""
    shutil.copy2(project.path / "demo" / "demo.gguf", project.path / "small.gguf")
    url = "https://models.invalid/{}.gguf"
    on_gpu: dict[str, Any] = {"ram": 10**5, "serve": {"ngl": 9}}
    models: dict[str, Any] = {
        "locked": {**project.entry("small.gguf", ram=10**6), "serve": {"ctx_size": 512}},
        "rule": {**project.entry(url.format("r"), b"x", params="1B", ram=10**6), "serve": {"ctx_size": 512}},
        "declared": project.entry(url.format("d"), ram=10**6),
        "unknown": project.entry(url.format("u")),
        "gpu": {**project.entry(url.format("g")), **on_gpu},
    }
    engines = {"embedded": {"title": "e", "license": "MIT"}}
    project.catalogue({name: {**models[name], "engine": "embedded"} for name in models}, engines)
    assert project.doit("lock", "--model", "locked").status == 0
    (tool := tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 100000000\n")
    tool.chmod(0o755)
    project.env["PATH"] = f"{tmp_path}{os.pathsep}{project.env['PATH']}"
    shown = json.loads(report(project.doit("catalogue", "--json")))["models"]
    assert {m["name"]: m["fits"] for m in shown} == {
        "locked": True, "rule": True, "declared": False, "unknown": None, "gpu": True
    }  # fmt: skip
    names = [words for name in models for words in ("--model", name)]
    planned = json.loads(project.doit("plan", *names, "--json").out)["memory"]["models"]
    assert [m["memory"] for m in shown] == [one["needed"] for one in planned]
    tool.unlink()
    assert "gpu" not in rows(report(project.doit("catalogue", "--fits")))


def test_filters(project: Project) -> None:
    """Issue 15.7: words, kind and memory choose models; the JSON has the same ones."""
    url = "https://models.invalid/{}.gguf"
    models = {
        "demo": project.entry(url.format("demo"), title="Tiny", ram=1),
        "qwen3-8b": project.entry(url.format("q"), ram=1),
        "qwen3-vl-8b": project.entry(url.format("v"), mmproj={"url": url.format("eyes")}, ram=10**6),
        "phi": project.entry(url.format("p"), aliases=["phi3-mini"]),
    }
    project.catalogue(models, ENGINES)
    for words, names in FILTERS:
        text = report(project.doit("catalogue", *words))
        assert list(rows(text)) == names, words
        hint = f"? not in models.lock: `doit lock --upgrade --model {names[0]}` asks its publisher"
        assert f"\n{hint}\n{len(names)} of 4 models; this machine has " in text
    found = json.loads(report(project.doit("catalogue", "--json", "vision", "--kind", "vision")))
    assert found["models"] == []
    found = json.loads(report(project.doit("catalogue", "--json", "--kind", "vision")))
    assert [(m["name"], m["kind"], m["fits"]) for m in found["models"]] == [("qwen3-vl-8b", "vision", False)]
    assert "vision: A model" in report(project.doit("catalogue", "vl"))


NO_MATCH = (
    (["big", "--fits"], "known to fit the ", "matches without --fits: big\n  fix: doit catalogue big\n"),
    (
        ["--fits", "--kind", "rerank"],
        "known to fit the ",
        "--fits: sort\n  fix: doit catalogue --kind rerank\n",
    ),
    (["big", "--kind", "rerank"], "no rerank model of the catalogue matches\n", "fix: doit catalogue big\n"),
    (
        ["--fits"],
        "known to fit the ",
        "--fits: big, sort, m0, m1, m2 and 2 more\n  fix: doit catalogue --all\n",
    ),
    (["big", "nope"], "no model of the catalogue matches nope\n", "fix: doit catalogue big\n"),
    (["bgi", "--fits"], "no model of the catalogue matches\n", "fix: did you mean big?\n"),
    (
        ["--kind", "embedding"],
        "no model of the catalogue matches\n",
        "fix: `doit catalogue --all` shows every",
    ),
)


def test_the_filter_without_a_match(project: Project) -> None:
    """The error names the filter to leave out; JSON has an empty list."""
    big = project.entry("https://models.invalid/b.gguf", ram=10**6)
    sort = project.entry("https://models.invalid/s.gguf", kind="rerank")
    more = {f"m{number}": big for number in range(5)}
    project.catalogue({"big": big, "sort": sort, **more}, ENGINES)
    for words, what, fix in NO_MATCH:
        result = project.doit("catalogue", *words)
        assert (result.status, result.out, what in result.err) == (1, "", True), result
        assert fix in result.err
        found = project.doit("catalogue", "--json", *words)
        assert (found.status, json.loads(found.out)["models"]) == (0, []), words


def test_no_model_matches(project: Project) -> None:
    """Issue 15.7: what is near is named; a kind that does not exist is a wrong command line."""
    result = project.doit("catalogue", "qwen3-9b")
    assert (result.status, result.out) == (1, "")
    assert "no model of the catalogue matches\n  fix: did you mean " in result.err
    result = project.doit("catalogue", "--kind", "music")
    assert (result.status, result.out) == (3, "")
    assert "--kind: expected chat, vision, embedding, rerank, got 'music'" in result.err


def test_text_is_shown_as_it_is(project: Project) -> None:
    """R33: brackets and other scripts in a title or licence are text, not markup."""
    entry = project.entry("https://x.invalid/a.gguf", title="[b] Größe [/] [red]模型[/red]", license="[MIT]")
    project.catalogue({"a": entry}, ENGINES)
    assert rows(report(project.doit()))["a"] == "* ? ? [MIT] no [b] Größe [/] [red]模型[/red]"


def test_a_terminal_that_knows_few_letters(project: Project) -> None:
    """R13: a Windows console, or LANG=C, cannot show every title; that is no reason to fail."""
    entry = project.entry("https://x.invalid/a.gguf", title="Größe 模型 " + "long " * 40)
    project.catalogue({"a": entry}, ENGINES)
    for words in ([], ["list", "--all"]):
        result = project.doit(*words, env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
        assert (result.status, result.err) == (0, "")
        assert "Gr??e ?? long" in result.out


def test_long_paths_stay_whole(project: Project, tmp_path: Path) -> None:
    """R15: a path that is cut in two cannot be copied."""
    cache = tmp_path / ("long name " * 12) / ("deep " * 12)
    assert f"Cache: {cache}\n" in report(project.doit(env={"LLAMAFILE_CACHE": str(cache)}))


def on_terminal(project: Project, *args: str, columns: int = 100, env: dict[str, str] | None = None) -> str:
    """What `doit` shows on a terminal of this width."""
    import fcntl
    import struct
    import termios

    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    full = {**project.env, "TERM": "xterm-256color", **(env or {})}
    command = [project.doit_program, *args]
    with project.popen(command, full)(
        command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.PIPE, cwd=project.path, env=full
    ) as doit:
        os.close(theirs)
        shown = b""
        while select.select([ours], [], [], 120)[0]:
            try:
                block = os.read(ours, 65536)
            except OSError:  # Linux says so when the other end is closed
                break
            if not block:
                break
            shown += block
        os.close(ours)
        assert doit.wait(60) == 0
        assert doit.stderr
        assert not doit.stderr.read()
    return shown.decode().replace("\r\n", "\n")


@pytest.mark.skipif(os.name == "nt", reason="needs a pty")
def test_colours_are_for_terminals(project: Project) -> None:
    """R15, R35: colours on a terminal, none with NO_COLOR, and none in a pipe."""
    five(project)
    coloured = on_terminal(project)
    assert "\x1b[32myes" in coloured
    assert "\x1b[1m" in coloured
    plain = on_terminal(project, env={"NO_COLOR": "1"})
    assert not re.search(r"\x1b\[[0-9;]*3\d", plain)
    assert rows(re.sub(r"\x1b\[[0-9;]*m", "", plain)) == rows(report(project.doit()))


@pytest.mark.skipif(os.name == "nt", reason="needs a pty")
def test_a_narrow_terminal(project: Project) -> None:
    """R15: on 80 columns no line wraps, and every name is whole."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", on_terminal(project, columns=80))
    table = text.split("\n\n")[0]
    assert max(map(len, table.splitlines())) <= 80
    found = json.loads(report(project.doit("catalogue", "--json")))
    found["models"] = [model for model in found["models"] if model["name"] in rows(text)]
    assert len(found["models"]) == len(table.splitlines()) - 1
    assert all(model["license"] in table for model in found["models"])
    head, *lines = table.splitlines()
    assert head.split()[:5] == ["model", "size", "RAM", "licence", "here"]
    at = head.index("here")
    words = {"absent": "no", "complete": "yes"}
    shown = {line[at:].split()[0] for line in lines}
    assert shown == {words.get(model["state"], model["state"]) for model in found["models"]}
    assert all(len(line) <= 80 for line in text.splitlines() if "Cache:" not in line)
    assert text.count("\n") <= 23


def test_a_reader_that_stops_early(project: Project) -> None:
    """R15: `doit | head -1` ends without a word of complaint."""
    if os.name == "nt":
        pytest.skip("needs a shell")
    with psutil.Popen(
        ["/bin/sh", "-c", f"'{project.doit_program}' catalogue --json | head -1"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=project.path, env=project.env,
    ) as shell:  # fmt: skip
        out, err = shell.communicate(timeout=20)
    assert (out, err) == (b"{\n", b"")


def test_it_is_fast_to_say_what_is_here(project: Project) -> None:
    """R36: a model of the user's own cache, served or not, is looked at with stat alone."""
    data = llamafile.build_gguf(project.path / "big.gguf", size=5_000_000).read_bytes()
    project.catalogue({"big": project.entry("big.gguf", data)}, ENGINES)
    assert project.doit("download").status == 0
    target = project.target(data, "big.gguf")
    target.chmod(0)  # nobody may read it (root may: then this proves less)
    restamp(target)
    assert rows(report(project.doit()))["big"] == "* 5.00 MB ? MIT yes A model"
