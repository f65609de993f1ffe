"""Two users of one machine share a cache: each has servers of their own, and neither locks the other out."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.test_serve_cli import with_llamafile
from tests.support.project import Project
from tests.support.servers import rows, started
from tests.support.users import UIDS, AsUser

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="users and namespaces as Linux has them")


@pytest.fixture
def both(shared: Project, user: AsUser) -> Iterator[tuple[Project, Project]]:
    """A cache that every user may write, and the same project as two users."""
    with_llamafile(shared)
    (shared.path / "history").touch()
    (shared.path / "history").chmod(0o666)
    shared.cache.mkdir()
    shared.cache.chmod(0o1777)
    users = user(0), user(1)
    try:
        yield users
    finally:
        for process in [process for one in users for process in one.processes()]:  # of a test that has failed
            process.kill()


def printed(project: Project) -> str:
    result = project.doit("with", "--", sys.executable, "-c", "print('it ran')")
    assert result.status == 0, result.err
    return result.out


def test_each_has_servers_of_their_own(both: tuple[Project, Project]) -> None:
    """F1: a second user can serve, start, chat, list and stop, but only their own servers."""
    for one in both:
        assert printed(one) == "it ran\n"
    urls = [started(one, "--port", "0") for one in both]
    for one, url in zip(both, urls, strict=True):
        assert [(row["state"], row["url"]) for row in rows(one)] == [("ready", url)]
        chat = one.doit("chat", "Hello")
        assert (chat.status, chat.out) == (0, "Hello\n"), chat.err
        logs = one.doit("logs", "--model", "m")
        assert (logs.status, bool(logs.out)) == (0, True), logs.err
    first, second = both
    assert first.background("stop").status == 0
    assert rows(first)[0:1] == []
    assert [row["url"] for row in rows(second)] == [urls[1]]
    assert second.background("stop").status == 0
    folders = [path for path in (first.cache / "run").iterdir() if path.is_dir()]
    assert sorted(path.name.rpartition("-")[2] for path in folders) == sorted(map(str, UIDS))
    assert {path.stat().st_mode & 0o777 for path in folders} == {0o700}


def test_what_the_other_one_has_downloaded(both: tuple[Project, Project]) -> None:
    """F1: it is read once more, for the stamp is another user's, and not fetched again."""
    first, second = both
    assert first.doit("download").status == 0
    (first.path / "m.llamafile").unlink()
    for _ in range(2):
        result = second.doit("verify")
        assert result.status == 0, result.err
        assert "the digest is correct, nothing is downloaded" in result.err
    [target] = first.cache.glob("models/*/m.llamafile")
    assert target.stat().st_uid == UIDS[0]
    assert printed(second) == "it ran\n"


def test_a_file_that_its_owner_has_not_made_executable(both: tuple[Project, Project]) -> None:
    """F38: chmod is refused; /bin/sh starts a llamafile without."""
    first, second = both
    assert first.doit("download").status == 0
    [target] = first.cache.glob("models/*/m.llamafile")
    assert not target.stat().st_mode & 0o111
    assert printed(second) == "it ran\n"
    assert not target.stat().st_mode & 0o111
    own = first.path / "own.llamafile"
    own.write_bytes(target.read_bytes())
    own.chmod(0o644)
    words = ["with", "--llamafile", str(own), "--", "true"]
    result = second.doit(*words)
    assert result.status == 0, result.err
    assert f"cannot make {own} executable: Operation not permitted" in result.err
    assert "/bin/sh starts it without; if it does not run: ask its owner to run chmod +x" in result.err


def test_a_cache_of_another_user(shared: Project, user: AsUser) -> None:
    """F1, issue 14.6: without permission to write it, servers are recorded in the user's state directory."""
    with_llamafile(shared)
    assert shared.doit("with", "--", "true").status == 0
    (shared.path / "history").chmod(0o666)
    second = user(0)
    assert printed(second) == "it ran\n"
    assert second.doit("chat", "Hello").out == "Hello\n"
    assert second.background("start", "--port", "0").status == 0
    for words in (["status"], ["logs"], ["logs", "--model", "m"], ["stop", "--model", "m"], ["stop"]):
        result = second.doit(*words)
        assert result.status == 0, result
        assert "Permission denied" not in result.err
    assert list(Path(second.env["TMPDIR"]).iterdir()) == []


def test_a_record_where_earlier_versions_wrote_it(servers: Project) -> None:
    """F1: a server that an earlier version has started is found, asked and stopped."""
    with_llamafile(servers)
    url = started(servers, "--port", "0")
    now = servers.run_folder
    earlier = now.with_name(now.name.rpartition("-")[0])
    now.rename(earlier)
    for path in earlier.glob("*.json"):
        path.write_text(path.read_text().replace(str(now), str(earlier)))
    assert [row["url"] for row in rows(servers)] == [url]
    assert servers.background("start", "--port", "0").out == f"{url}\n"
    assert servers.doit("chat", "Hello").out == "Hello\n"
    assert servers.doit("logs", "--model", "m").status == 0
    assert servers.background("stop").status == 0
    assert json.loads(servers.background("status", "--json").out) == []
    assert servers.doit("logs", "--model", "m").status == 0
    assert os.path.exists(earlier)
