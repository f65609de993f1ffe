"""The main job, its second run, and the verbs around them, in the shortest form: with every Python."""

from __future__ import annotations

import json

import pytest

from tests.fakes import llamafile
from tests.fakes.server import FileServer
from tests.support.project import Project, interrupt

pytestmark = pytest.mark.smoke


def test_demo_is_served_and_stopped(project: Project) -> None:
    """R11, R14: `doit serve --model demo` gets ready and Ctrl-C leaves nothing behind."""
    with project.start("serve", "--model", "demo", "--port", "0") as running:
        running.wait_for("demo is ready at")
        interrupt(running)
        assert running.finish().status == 0


def test_a_second_run_does_nothing(project: Project) -> None:
    """R6, R36: the whole chain once, then never again."""
    file = llamafile.build(project.path / "src.llamafile")
    data = file.read_bytes()
    with FileServer() as server:
        server.files["/m.llamafile"] = data
        project.catalogue({"m": project.entry(server.url("/m.llamafile"), data, engine_version="0.8.6")})
        first = project.doit("verify")
        assert (first.status, first.out) == (0, "")
        assert ".  download:m" in first.err
        assert "m: engine OK, llamafile v0.8.6" in first.err
        second = project.doit("verify:m")
        assert second.err.splitlines() == ["-- download:m", "-- chmod:m", "-- verify:m"]
        assert len(server.asked("/m.llamafile")) == 1


def test_the_demo_in_the_background(servers: Project) -> None:
    """`start`, `status`, `chat`, `logs`, `with` and `stop`, each as a process of its own."""
    started = servers.background("start", "--model", "demo", "--port", "0")
    assert started.status == 0, started.err
    [row] = json.loads(servers.process("status", "--json").out)
    assert (row["state"], row["url"]) == ("ready", started.out.strip())
    assert "A llamafile is one file" in servers.process("chat", "What is a llamafile?").out
    assert servers.process("logs", "-n", "1").out
    shown = servers.process("with", "--model", "demo", "--", "sh", "-c", "echo $LLAMAFILE_MODEL")
    assert (shown.status, shown.out) == (0, "demo\n"), shown.err
    assert servers.doit("stop").status == 0


@pytest.mark.parametrize(
    ("run", "verbs"),
    [
        pytest.param(
            "in this process",
            ("catalogue", "plan", "audit", "prune", "bom", "cache-key", "doctor"),
            marks=pytest.mark.once,
        ),
        ("as a process", ("catalogue", "doctor")),
    ],
    ids=["in this process", "as a process"],
)
def test_the_verbs_that_only_look(project: Project, run: str, verbs: tuple[str, ...]) -> None:
    """Each has something to say of a cache with one model in it."""
    doit = project.process if run == "as a process" else project.doit
    assert doit("verify:demo").status == 0
    for verb in verbs:
        result = doit(verb, *(["--model", "demo"] if verb in ("plan", "cache-key") else []))
        assert result.status == 0, result.err
        assert result.out, verb
    assert "there is no " in doit("lock", "--check").err
    assert doit("nonsense").status == 3
