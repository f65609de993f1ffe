"""One description of a report: text for people, values for programs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tasks.cache import audit_report
from tasks.console.formatting import format_size
from tasks.console.report import Column, Fact, Report, Row
from tasks.planning import plan_report
from tasks.verbs import bom, catalogue, doctor, status

from tests.support.project import Project

COLUMNS = (
    Column("name", "name", describe=lambda row: row["name"].upper(), least=5),
    Column("size", ">size", format_size, unknown="?"),
    Column("is_here", "here", lambda is_here: {True: "yes", False: "no"}[is_here]),
)
ROWS: list[Row] = [
    {"name": "a", "size": 1000, "is_here": True, "more": [1]},
    {"name": "b", "size": None, "is_here": False},
    {"name": "c"},
]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The output is for a terminal of 80 columns without colours."""
    for name, value in {"FORCE_COLOR": "1", "TERM": "dumb", "COLUMNS": "80"}.items():
        monkeypatch.setenv(name, value)


def test_the_same_rows_in_two_forms() -> None:
    """Programs get the values, people what the columns make of them."""
    report = Report(COLUMNS, ROWS, [Fact("note  ", "well"), "a b"], empty="nothing")
    table, *facts = report.as_text()
    assert [line.split() for line in table.splitlines()] == [
        ["name", "size", "here"], ["A", "1.00", "kB", "yes"], ["B", "?", "no"], ["C", "?"],
    ]  # fmt: skip
    assert facts == ["note  well", "a b"]
    assert report.as_json() == ROWS


def test_without_rows() -> None:
    """People are told so; programs get an empty list, or the data that the verb has."""
    assert Report(COLUMNS, [], ["fact"], empty="nothing").as_text() == ["nothing", "fact"]
    assert Report(COLUMNS, [], ["fact"]).as_text() == ["fact"]
    assert Report(COLUMNS, [], empty="nothing").as_json() == []
    assert Report(COLUMNS, [], data={"rows": []}).as_json() == {"rows": []}


@pytest.mark.usefixtures("terminal")
def test_a_terminal_gets_facts_wrapped_and_commands_whole() -> None:
    """A hostile text stays one line of a fact."""
    words = "word " * 30
    facts: list[Fact | str] = [Fact("memory   ", words), Fact("", "a\x1b[2Jb"), f"doit {words}"]
    long, hostile, command = Report((), [], facts).as_text()
    lines = long.splitlines()
    assert [line[:9] for line in lines] == ["memory   ", " " * 9, " " * 9]
    assert max(map(len, lines)) <= 80
    assert hostile == r"a\x1b[2Jb"
    assert command == f"doit {words}"


SIZE = 5_160_777_905
URL = f"https://huggingface.co/Mozilla/Mistral-7B-Instruct-v0.2-llamafile/resolve/{'6' * 40}/m.llamafile"
NAME = "mistral-7b-instruct-v0.2-q5"
WIDEST: dict[str, tuple[tuple[Column, ...], Row]] = {  # the widest rows that the verbs make in practice
    "plan": (
        plan_report.COLUMNS,
        {"file": NAME, "state": "resume", "here": SIZE // 2, "size": SIZE, "to_fetch": SIZE, "source": URL},
    ),
    "bom": (
        bom._COLUMNS,
        {
            "name": NAME, "size": SIZE, "license": "CC-BY-NC-SA-4.0", "version": "", "sha256": "6" * 64,
            "engines": {"llamafile": "0.10.5", "embedded": "2026.10.11549"}, "commit": "6" * 40,
            "path": "models/x", "source": URL,
        },
    ),
    "audit": (
        audit_report.columns("/cache"),
        {
            "label": NAME, "in_catalogue": True, "size": SIZE, "verdict": "not pinned", "got": None,
            "file": f"/cache/models/{'6' * 16}/mistral-7b-instruct-v0.2.Q5_K_M.llamafile",
        },
    ),
    "doctor": (doctor._COLUMNS, {"check": "embedded", "state": "fail", "found": "x" * 100}),
    "catalogue": (
        catalogue._columns(NAME),
        {
            "name": NAME, "size": SIZE, "memory": 38 * 10**9, "license": "CC-BY-NC-SA-4.0",
            "title": "Mistral 7B Instruct v0.2, small (fits Windows)", "kind": "vision", "state": "bundled",
        },
    ),
    "status of a server": (
        status._COLUMNS,
        {
            "model": NAME, "state": "unhealthy", "url": "http://127.0.0.1:65535", "pid": 4194304,
            "uptime_s": 86_000, "memory": SIZE, "requests": 12, "engine": "llamafile",
        },
    ),
    "status of one that ended": (
        status._COLUMNS, {"model": NAME, "state": "stopped", "ended": -9, "ended_at": 0.0},
    ),
}  # fmt: skip


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("name", WIDEST)
def test_each_table_fits_80_columns(name: str) -> None:
    """A value is shortened visibly, and a column that is left out is named."""
    columns, row = WIDEST[name]
    [table] = Report(columns, [row]).as_text()
    lines = re.sub(r"\x1b\[[\d;]*m", "", table).splitlines()
    assert max(map(len, lines)) <= 80, lines
    omitted = [column.title.lstrip(">") for column in columns if column.title.lstrip(">") not in lines[0]]
    assert omitted == [] or lines[-1] == f"not shown, as the terminal is too narrow: {', '.join(omitted)}"


FOR_PEOPLE = re.compile(r"\d+(\.\d+)?( (B|kB|MB|GB|%|ms|s|min|h))?|yes|no|-|\?|[Tt]rue|[Ff]alse|None")


def strings(data: object) -> Iterator[str]:
    """Yield all texts that are values in JSON."""
    if isinstance(data, dict):
        for value in data.values():
            yield from strings(value)
    elif isinstance(data, list):
        for value in data:
            yield from strings(value)
    elif isinstance(data, str):
        yield data


@pytest.fixture
def filled(project: Project, tmp_path: Path) -> Project:
    """A cache with a model whose name, licence and source are long."""
    file = tmp_path / "mistral-7b-instruct-v0.2.Q5_K_M.gguf"
    file.write_bytes((project.path / "demo" / "demo.gguf").read_bytes())
    entry = project.entry(str(file), file.read_bytes(), engine="embedded", ram=7)
    project.catalogue({NAME: {**entry, "license": "CC-BY-NC-SA-4.0", "serve": {"ctx_size": 131_072}}})
    assert project.doit("download").status == 0
    return project


def test_a_terminal_of_80_columns(filled: Project) -> None:
    """Each line fits, but for a path, and for a command, which a user copies."""
    env = {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "80"}
    for verb in ("plan", "bom", "audit", "doctor", "catalogue", "status", "prune --dry-run"):
        shown = re.sub(r"\x1b\[[\d;]*m", "", filled.doit(*verb.split(), env=env).out)
        assert shown
        paths = str(filled.cache.parent)
        long = [line for line in shown.splitlines() if len(line) > 80 and paths not in line]
        assert not [line for line in long if not line.startswith("  fix: ")], verb


def test_json_has_values_not_text_for_people(filled: Project) -> None:
    """Each verb that reports: numbers and booleans stay what they are, and stderr stays empty.

    Not `bom`: CycloneDX wants the value of a property as text.
    """
    for verb in ("catalogue", "plan", "audit", "doctor", "status", "prune --dry-run"):
        result = filled.doit(*verb.split(), "--json")
        assert result.err == ""
        assert not [text for text in strings(json.loads(result.out)) if FOR_PEOPLE.fullmatch(text)], verb
