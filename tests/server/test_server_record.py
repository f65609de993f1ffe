"""Server records: parsing, liveness, comparison with a request."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tasks.catalogue.environment import Environment
from tasks.catalogue.resolve import ResolvedModel, resolve
from tasks.catalogue.settings import api_key_error
from tasks.engine.launch_spec import launch_spec
from tasks.engine.version import launch_of
from tasks.server.server_record import (
    Liveness,
    Mode,
    ServerRecord,
    ServerState,
    differences,
    filter_logs,
    liveness_of,
    record_name,
)
from tasks.system.process_id import ProcessId
from tasks.urls import is_loopback

from tests.support.catalogues import A64, catalogue
from tests.support.command_lines import parse

MARK = "0123456789abcdef"
ENGINE = ProcessId(42, 1700000000.25, "boot-1", "pid:[1]")
KEEPER = ProcessId(41, 1700000000.0, "boot-1", "pid:[1]", 4711)
SPEC = {"model": A64, "--engine": "self 0.9.3", "--host": "127.0.0.1", "--ctx-size": "0"}
RUN = ServerRecord(
    "tiny", Mode.START, "127.0.0.1", 8080, SPEC, ["/bin/sh", "/m", "--api-key", "***"],
    "/c/run/tiny-8080.log", MARK, "sk-secret", ServerState.READY, 2.5, None, None, ENGINE, KEEPER, 40,
    "/c/run/tiny-8080.json", 20,
)  # fmt: skip


def written(record: ServerRecord) -> Any:
    """Return a record as a supervisor writes it: JSON without the record's own path."""
    processes = {"engine": record.engine, "keeper": record.keeper}
    fields = {name: found and found.as_record() for name, found in processes.items()}
    return json.loads(json.dumps({k: v for k, v in {**asdict(record), **fields}.items() if k != "path"}))


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(RUN, id="everything is known"),
        pytest.param(
            ServerRecord("m", Mode.WITH, "::1", 1, {}, [], "/p/m-1.log", MARK, path="/p/m-1.json"),
            id="before the engine's start",
        ),
        pytest.param(
            replace(RUN, state=ServerState.STOPPED, ended=-9, ended_at=1700000009.5, key=""),
            id="it ended by itself",
        ),
        pytest.param(
            replace(RUN, mode=Mode.CHAT, state=ServerState.STOPPING, keeper=None), id="without a keeper"
        ),
        pytest.param(
            replace(
                RUN, name="é-あ", log="/a ☃/é-あ-8080.log", path="/a ☃/é-あ-8080.json", spec={"--": "a=b '☃'"}
            ),
            id="any letters",
        ),
    ],
)
def test_a_record_is_read_as_it_was_written(record: ServerRecord) -> None:
    """State file: JSON, and the same again."""
    assert ServerRecord.parse(written(record), record.path) == record


TEXT = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]))
PROCESSES = st.builds(ProcessId, st.integers(1, 2**22), st.floats(0, 1e10), TEXT, TEXT, st.integers(0, 2**40))


@given(
    st.builds(
        ServerRecord,
        st.from_regex(r"\A\w[\w.-]*\Z"),
        st.sampled_from(Mode),
        st.from_regex(r"\A[A-Za-z0-9.:_%-]{1,253}\Z"),
        st.integers(1, 65535),
        st.dictionaries(TEXT, TEXT, max_size=3),
        st.lists(TEXT, max_size=3),
        st.just(""),
        st.from_regex(r"\A[0-9a-f]{16}\Z"),
        st.from_regex(r"\A[!-~]*\Z"),
        st.sampled_from(ServerState),
        st.none() | st.floats(0, 1e6),
        st.none() | st.integers(-64, 2**32),
        st.none() | st.floats(0, 1e10),
        st.none() | PROCESSES,
        st.none() | PROCESSES,
        st.integers(0, 2**22),
    )
)
def test_every_record_is_read_as_it_was_written(record: ServerRecord) -> None:
    """Any valid record survives a round trip."""
    base = f"/c/run/{record.name}-{record.port}"
    record = replace(record, log=f"{base}.log", path=f"{base}.json")
    assert ServerRecord.parse(written(record), record.path) == record


def test_a_record_of_another_version() -> None:
    """An unknown field is ignored; the record's path is the one that was opened."""
    data = {**written(RUN), "colour": "blue", "path": "/somewhere/else"}
    assert ServerRecord.parse(data, RUN.path) == RUN


BROKEN: dict[str, list[Any]] = {
    "name": [None, 1, "", "../m", "a/b", "a\\b", "m:1", "m\n", "\ud800", "another"],
    "mode": [None, "stroll", 1, [], {}],
    "state": [None, "asleep", 1, [], {}],
    "host": [None, 1, "", "h/x", "h\n", "user@h", "a" * 254],
    "port": [None, "8080", 0, -1, 65536, True, 8080.0, 10**30, 8081],
    "spec": [None, [1], "text", {"a": 1}, {"a": None}, {"a": "\0"}],
    "command": [None, "text", {}, [1], [None], ["a\0b"], ["\ud800"]],
    "log": [None, 1, "", "/etc/shadow", "/c/run/other-8080.log", "tiny-8080.log/x", "a\0b"],
    "mark": [
        *(None, 1, "", "abc", "0" * 15, "0" * 17, "ABCDEF0123456789", True, [], {}),
        *("0123456789abcde\n", "0123456789abcdef\n", " 123456789abcdef"),
    ],
    "key": [None, 1, [], "a b", "a\nX: y", "é"],
    "ready_s": ["1", True, -1.0, float("nan"), float("inf"), []],
    "ended": [[], "0", True, 1.5, {}, 10**30],
    "ended_at": [[], "0", True, float("nan"), float("inf"), 1e300, -1],
    "owner": [None, "1", True, -1, 1.5],
    "engine": [42, [], "x", True, {"pid": 42}, {**vars(ENGINE), "more": 1}],
    "keeper": [[41, 0.0, "b", "s"], {}, {**vars(KEEPER), "more": 1}],
}


def engine(**changes: Any) -> dict[str, Any]:
    return {"engine": {**vars(ENGINE), **changes}}


@pytest.mark.parametrize(
    "change",
    [
        *(
            pytest.param({name: value}, id=f"{name} is {type(value).__name__} {str(value)[:24]!r}")
            for name, values in BROKEN.items()
            for value in values
        ),
        *(pytest.param(engine(pid=pid), id=f"pid {pid!r}") for pid in (0, -1, True, "1", 1.0, None, 2**40)),
        *(
            pytest.param(engine(started=at), id=f"started {at!r}")
            for at in (None, "1", True, -1, float("nan"), float("inf"), 1e300)
        ),
        *(pytest.param(engine(start_ticks=at), id=f"ticks {at!r}") for at in (None, "1", True, -1, 1.5)),
        pytest.param(engine(boot=1), id="the boot is a number"),
        pytest.param(engine(space=None), id="no namespace"),
    ],
)
def test_a_broken_record_is_none(change: dict[str, Any]) -> None:
    """Findings 3 and 28: a record with an invalid field is not used."""
    assert ServerRecord.parse(written(RUN), RUN.path) is not None
    assert ServerRecord.parse({**written(RUN), **change}, RUN.path) is None


@pytest.mark.parametrize("name", ["name", "mode", "host", "port", "spec", "command", "log", "mark", "state"])
def test_a_record_without_what_it_is_about_is_none(name: str) -> None:
    """An incomplete record is not parsed."""
    assert ServerRecord.parse({k: v for k, v in written(RUN).items() if k != name}, RUN.path) is None


def test_a_record_of_dc946e9_is_read() -> None:
    """A server that an earlier version started goes on: its processes have no `start_ticks`."""
    data = written(RUN)
    for name in ("engine", "keeper"):
        del data[name]["start_ticks"]
    record = ServerRecord.parse(data, RUN.path)
    assert record == replace(RUN, keeper=replace(KEEPER, start_ticks=0))


def test_the_log_is_beside_the_record() -> None:
    """Two paths may lead to one cache: the log is found by the path that is used now."""
    record = ServerRecord.parse(written(RUN), "/mnt/run/tiny-8080.json")
    assert record is not None
    assert record.log == "/mnt/run/tiny-8080.log"


@pytest.mark.parametrize("path", ["/p", "/c/run/tiny-8081.json", "/c/run/tiny-8080.json.tmp", ""])
def test_a_record_under_another_name_is_none(path: str) -> None:
    """The file name identifies the server; a copy is not a second server."""
    assert ServerRecord.parse(written(RUN), path) is None


@pytest.mark.parametrize("data", [None, 7, "text", [], [1], {}, {"mode": "start"}, True])
def test_what_is_no_record(data: Any) -> None:
    """Any JSON may lie there."""
    assert ServerRecord.parse(data, "/p") is None


def test_the_key_is_in_no_message() -> None:
    """R30: `repr` of a server record has no key, as in a traceback."""
    assert RUN.key not in repr(RUN)
    assert RUN.url == "http://127.0.0.1:8080"
    assert replace(RUN, host="::").url == "http://[::1]:8080"


ELSEWHERE, REBOOTED = replace(KEEPER, space="pid:[2]"), replace(KEEPER, boot="boot-0")


@pytest.mark.parametrize(
    ("keeper", "engine", "keeper_lives", "engine_lives", "what"),
    [
        pytest.param(KEEPER, ENGINE, True, True, Liveness.RUNNING, id="both live"),
        pytest.param(
            KEEPER, ENGINE, True, False, Liveness.RUNNING, id="the engine has just ended: its keeper knows"
        ),
        pytest.param(KEEPER, None, True, False, Liveness.RUNNING, id="a keeper that has just begun"),
        pytest.param(KEEPER, ENGINE, False, True, Liveness.ORPHANED, id="the keeper was killed"),
        pytest.param(None, ENGINE, False, True, Liveness.ORPHANED, id="no keeper is known"),
        pytest.param(KEEPER, ENGINE, False, False, Liveness.GONE, id="both are gone"),
        pytest.param(KEEPER, None, False, False, Liveness.GONE, id="the keeper is gone, an engine never was"),
        pytest.param(None, None, False, False, Liveness.GONE, id="nothing is known"),
        # a pid that is used again is no proof
        pytest.param(REBOOTED, None, True, True, Liveness.GONE, id="the machine has restarted"),
        pytest.param(
            REBOOTED, replace(ENGINE, boot="boot-0"), True, True, Liveness.GONE, id="both before it"
        ),
        pytest.param(
            ELSEWHERE, None, False, False, Liveness.OTHER_HOST, id="a container with the same cache"
        ),
        pytest.param(
            ELSEWHERE, ENGINE, True, True, Liveness.OTHER_HOST, id="whatever lives here by that pid"
        ),
        pytest.param(
            None,
            replace(ENGINE, space="pid:[2]"),
            False,
            True,
            Liveness.OTHER_HOST,
            id="an engine in a container",
        ),
    ],
)
def test_what_is_left_of_a_run(
    keeper: ProcessId | None, engine: ProcessId | None, keeper_lives: bool, engine_lives: bool, what: Liveness
) -> None:
    """The machine is compared first, then the processes."""
    record = replace(RUN, keeper=keeper, engine=engine)
    assert liveness_of(record, "boot-1", "pid:[1]", keeper_lives, engine_lives) is what


CATALOGUE = catalogue()


def job(line: str) -> ResolvedModel:
    environment = Environment("linux", "/cache", "/recipe", "/home/me")
    [only] = resolve(parse(shlex.split(line)), CATALOGUE, environment).by_name.values()
    return only


def spec(line: str, key: str = "", version: str = "0.9.3") -> dict[str, str]:
    asked = job(line)
    return spec_of(asked, version, key, asked.requested_port or None)


def spec_of(asked: ResolvedModel, version: str, key: str, port: int | None) -> dict[str, str]:
    launch = launch_of("linux", asked)
    return launch_spec(asked, launch, version=version, key=key).record_spec(port)


def test_the_words_of_a_spec() -> None:
    """Settings by option; of the key only its presence is included."""
    assert spec("start --ctx-size 0 --host ::1 --port 9 --ngl 3 -- -t 2", key="sk-secret") == {
        "model": A64,
        "--engine": "self 0.9.3",
        "--host": "::1",
        "--port": "9",
        "--ctx-size": "0",
        "--ngl": "3",
        "--alias": "tiny",
        "--": "-t 2",
        "--api-key": "given",
    }
    own = spec("start --llamafile Own.llamafile", version="")
    assert own["model"] == "/home/me/Own.llamafile"
    assert own["--engine"] == "self"


@pytest.mark.parametrize(
    ("running", "asked", "found"),
    [
        pytest.param("start", "start", [], id="the same"),
        pytest.param("start --port 9", "start", [], id="no port asked: any will do"),
        pytest.param("start --port 9", "start --port 0", [], id="any free port: the one it has"),
        pytest.param("start --port 9", "start --port 9", [], id="the port it has"),
        pytest.param("start --port 9", "start --port 8", [("--port", "9", "8")], id="another port"),
        pytest.param("start --port 8080", "start", [], id="the usual port, by name or not"),
        pytest.param("start --timeout 5", "start --timeout 9 --probe", [], id="how it is waited for"),
        pytest.param("start", "start --host 127.0.0.1", [], id="what holds anyway"),
        pytest.param(
            "start --ctx-size 0", "start --ctx-size 4", [("--ctx-size", "0", "4")], id="another context"
        ),
        pytest.param("start", "start --threads 4", [("--threads", "-", "4")], id="asked, and not running"),
        pytest.param("start --threads 4", "start", [("--threads", "4", "-")], id="running, and not asked"),
        pytest.param("start --force-gpu", "start", [("--ngl", "9999", "-")], id="a GPU"),
        pytest.param(
            "start -- -t 2", "start -- -t 3", [("--", "-t 2", "-t 3")], id="the engine's own arguments"
        ),
        pytest.param(
            "start --host ::1 --n-predict 5",
            "start --gpu auto",
            [("--host", "::1", "127.0.0.1"), ("--n-predict", "5", "-"), ("--gpu", "-", "auto")],
            id="several: first what runs",
        ),
    ],
)
def test_in_what_a_running_server_differs(
    running: str, asked: str, found: list[tuple[str, str, str]]
) -> None:
    """`doit start`: each setting that differs is listed."""
    known = job(running)
    record = replace(RUN, spec=spec_of(known, "0.9.3", "", known.settings.port), key="")
    assert differences(record, spec(asked), "") == [
        (n, f"running {had}, requested {to}") for n, had, to in found
    ]


@pytest.mark.parametrize(
    ("has", "asked", "found"),
    [
        pytest.param("sk-1", "sk-1", [], id="the same key"),
        pytest.param("sk-1", "sk-2", [("--api-key", "running one key, requested another")], id="another key"),
        pytest.param("sk-1", "", [("--api-key", "running given, requested -")], id="no key any more"),
        pytest.param("", "sk-2", [("--api-key", "running -, requested given")], id="a key now"),
    ],
)
def test_a_key_differs_without_being_shown(has: str, asked: str, found: list[tuple[str, str]]) -> None:
    """R30: the difference is reported without the keys."""
    record = replace(RUN, spec=spec("start", has), key=has)
    assert differences(record, spec("start", asked), asked) == found


def test_another_engine_or_file_is_a_difference() -> None:
    """R16: another engine version or model file is a difference."""
    record = replace(RUN, spec=spec("start"), key="")
    assert differences(record, spec("start", version="0.10.5"), "") == [
        ("--engine", "running self 0.9.3, requested self 0.10.5")
    ]
    [(name, said)] = differences(record, {**spec("start"), "model": "b" * 64}, "")
    assert (name, said) == ("model", f"running {A64}, requested {'b' * 64}")


@pytest.mark.parametrize(
    ("host", "only_here"),
    [
        pytest.param("127.0.0.1", True, id="the usual one"),
        pytest.param("127.8.9.1", True, id="all of 127 is loopback"),
        pytest.param("::1", True, id="of IPv6"),
        pytest.param("0:0:0:0:0:0:0:1", True, id="of IPv6, written out"),
        pytest.param("::1%lo", True, id="with a zone"),
        pytest.param("localhost", True, id="by name"),
        pytest.param("LocalHost.", True, id="by name, in another case, with its dot"),
        pytest.param("ip6-localhost", True, id="Debian's name"),
        pytest.param("0.0.0.0", False, id="every network"),
        pytest.param("::", False, id="every network of IPv6"),
        pytest.param("192.168.1.5", False, id="a home network"),
        pytest.param("fe80::1%eth0", False, id="a link"),
        pytest.param("localhost.example.org", False, id="a name that begins like it"),
        pytest.param("my-host", False, id="a name"),
        pytest.param("127.0.0.1.example.org", False, id="a name that looks like it"),
        pytest.param("", False, id="nothing: every network"),
    ],
)
def test_is_loopback(host: str, only_here: bool) -> None:
    """R30: a host that other machines can reach causes a warning."""
    assert is_loopback(host) is only_here


@pytest.mark.parametrize(
    ("key", "fits"),
    [
        pytest.param("sk-abc_DEF.123", True, id="as services make them"),
        pytest.param("!~+/=\"'$", True, id="signs"),
        pytest.param("x", False, id="one letter"),
        pytest.param("", False, id="nothing"),
        pytest.param("a,b", False, id="a comma: llama.cpp takes it for two"),
        pytest.param("a b", False, id="a blank"),
        pytest.param("a\tb", False, id="a tabulator"),
        pytest.param("a\n", False, id="a line end at the end"),
        pytest.param("a\r\nX: y", False, id="another header"),
        pytest.param("é", False, id="no ASCII"),
        pytest.param("a\x7f", False, id="DEL"),
        pytest.param("\0", False, id="NUL"),
    ],
)
def test_key_problem(key: str, fits: bool) -> None:
    """R30: a key that cannot be sent in a header, or is two keys, is rejected."""
    assert (api_key_error(key) == "") is fits


@given(st.text(st.characters(min_codepoint=0, max_codepoint=300), max_size=8))
def test_a_key_fits_where_all_of_it_is_visible_ascii(key: str) -> None:
    """R30: visible ASCII without a comma, four characters or more."""
    visible = all("!" <= c <= "~" and c != "," for c in key) and len(key) > 3
    assert (api_key_error(key) == "") is visible


@pytest.mark.parametrize(
    ("name", "file", "its"),
    [
        pytest.param("m", "m-8080.log", True, id="its log"),
        pytest.param("m", "m-8080.log.1", False, id="what was before it"),
        pytest.param("m", "m-8080.json", False, id="its record"),
        pytest.param("m", "m-2-8080.log", False, id="the log of m-2"),
        pytest.param("m-2", "m-2-8080.log", True, id="whose it is"),
        pytest.param("m", "mm-8080.log", False, id="another's"),
        pytest.param("m", "xm-8080.log", False, id="another's, behind"),
        pytest.param("m", "m.log", False, id="without a port"),
        pytest.param("m", "m-.log", False, id="with half a port"),
        pytest.param("a.b", "axb-1.log", False, id="a dot is a dot"),
        pytest.param("a+b(c)", "a+b(c)-1.log", True, id="signs are signs"),
    ],
)
def test_log_of(name: str, file: str, its: bool) -> None:
    """Only a model's own logs are selected."""
    assert filter_logs(name, ["other", file, ""]) == ([file] if its else [])


@given(st.text(min_size=1, max_size=9), st.integers(0, 65535))
def test_a_log_is_found_by_its_models_name(name: str, port: int) -> None:
    """`log_of` finds the log that `record_name` names."""
    assert filter_logs(name, [record_name(name, port) + ".log"]) == [f"{name}-{port}.log"]
