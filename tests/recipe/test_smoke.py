"""The main job and its second run, in the shortest form."""

from __future__ import annotations

from tests.fakes import llamafile
from tests.fakes.server import FileServer
from tests.project import Project, interrupt


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
        assert "m runs here: llamafile v0.8.6" in first.err
        second = project.doit("verify:m")
        assert second.err.splitlines() == ["-- download:m", "-- chmod:m", "-- verify:m"]
        assert len(server.asked("/m.llamafile")) == 1
