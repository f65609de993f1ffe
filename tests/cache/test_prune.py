"""Which files of a cache may go: tables, and whatever Hypothesis thinks of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tasks.cache.inventory import classify_path
from tasks.cache.prune import CacheFile, LiveSet, is_used, kind_of, parse_age, paths_in_use, select_removable
from tasks.errors import UsageError
from tasks.system.paths import temporary_name

DAY, NOW = 86400.0, 1_000_000_000.0
DIR = "models/0123456789abcdef"
M, E = f"{DIR}/m.gguf", "engines/llamafile-0.10.5"
JSON = "catalogue/" + "a" * 64 + ".json"
STAMPS, ROOT = "stamps/0123456789abcdef.json", "roots/0123456789abcdef.json"
LOG, RECORD = "run/laptop/m-8080.log", "run/laptop/m-8080.json"
NOT_NAMED = "no catalogue names this file"


def old(path: str, days: float = 100, read: float | None = None, size: int = 10) -> CacheFile:
    """A file that was changed so many days ago, and read then or so many days ago."""
    return CacheFile(path, size, NOW - days * DAY, NOW - (days if read is None else read) * DAY)


def reasons(
    *found: CacheFile,
    named: str = "",
    gone: str = "",
    compiled: str = "",
    older: float | None = None,
    all_asked: bool = True,
) -> dict[str, str]:
    """Why each file may go that may; `older` is in days."""
    needed = LiveSet(frozenset(named.split()), frozenset(compiled.split()), all_asked)
    chosen = select_removable(found, needed, gone.split(), NOW, None if older is None else older * DAY)
    return {one.path: one.why for one in chosen}


def test_what_no_catalogue_names() -> None:
    """Issue 5.6: a model and a program go with all that lies beside them, however new they are."""
    beside = [f"{M}.stamp.json", E, f"{E}.stamp.json"]
    assert set(reasons(*(old(path, 0) for path in (M, *beside)))) == {M, *beside}
    assert reasons(old(M), old(E)) == {M: NOT_NAMED, E: "no catalogue names this version"}
    assert reasons(old(M), old(f"{M}.stamp.json"), old(E), named=f"{M} {E}") == {}


@pytest.mark.parametrize(
    ("path", "days", "named", "goes"),
    [
        pytest.param(f"{M}.partial", 29, True, False, id="somebody may go on with it"),
        pytest.param(f"{M}.partial", 31, True, True, id="not resumed for a month"),
        pytest.param(f"{M}.partial", 6, False, False, id="the same --llamafile-url resumes it"),
        pytest.param(f"{M}.partial", 8, False, True, id="not resumed for a week"),
        pytest.param(f"{M}.partial.json", 31, True, True, id="its journal"),
        pytest.param(f"{M}.partial.live", 31, True, True, id="its other journal"),
        pytest.param(f"{M}.partial.json.12-34.new.tmp", 31, True, True, id="half a journal"),
        pytest.param(f"{M}.partial.json.12-34.new.tmp.12-34.tmp", 0.01, False, False, id="a writer at it"),
        pytest.param(f"{M}.12-34.copy", 0.01, False, False, id="it is being hashed, perhaps"),
        pytest.param(f"{M}.12-34.copy", 0.1, False, True, id="a copy of a killed process"),
        pytest.param(f"{M}.12-34.copy", 0.1, True, False, id="a copy of what is named"),
        pytest.param(f"{M}.12-34.copy", 31, True, True, id="an old copy of what is named"),
        pytest.param(f"{M}.stamp.json.12-34.tmp", 0.1, True, True, id="half a stamp"),
        pytest.param(f"{M}.stamp.json", 0, True, True, id="a stamp of nothing"),
    ],
)
def test_left_overs(path: str, days: float, named: bool, goes: bool) -> None:
    """Issue 5.6: what downloads, copies and writers left."""
    assert (path in reasons(old(path, days), named=M if named else "")) is goes


def test_a_left_over_is_as_old_as_its_newest_file() -> None:
    """Issue 5.6: the journal of a download is written more often than each of its bytes."""
    found = [old(f"{M}.partial", 40), old(f"{M}.partial.json", 1)]
    assert reasons(*found, named=M) == {}
    assert len(reasons(*found, named=M, older=0.5)) == 2
    assert reasons(old(M, 0), old(f"{M}.partial", 40), named=M) == {
        f"{M}.partial": "a download that was abandoned"
    }


def test_what_was_used_lately() -> None:
    """Issue 5.6: --older-than keeps what was changed or read since; a stamp that was read tells nothing."""
    assert reasons(old(M, 40), older=30) == {M: NOT_NAMED}
    assert reasons(old(M, 40, read=20), older=30) == {}
    assert reasons(old(M, 40), old(f"{M}.stamp.json", 20), older=30) == {}
    assert len(reasons(old(M, 40), old(f"{M}.stamp.json", 40, read=1), older=30)) == 2
    assert reasons(old(M, -1), older=0) == {}  # its time is in the future


@pytest.mark.parametrize(
    ("path", "gone", "compiled"),
    [
        pytest.param(JSON, "", JSON, id="a compiled catalogue"),
        pytest.param(STAMPS, STAMPS, "", id="the stamp of a file of the user's"),
        pytest.param(ROOT, ROOT, "", id="a catalogue that has used the cache"),
    ],
)
def test_records(path: str, gone: str, compiled: str) -> None:
    """Issue 5.6: what is written down of something goes with it."""
    assert list(reasons(old(path, 0), gone=gone)) == [path]
    assert reasons(old(path, 100), compiled=compiled) == {}
    assert list(reasons(old(f"{path}.1-2.tmp", 0.1), gone=gone)) == [f"{path}.1-2.tmp"]
    assert reasons(old(f"{path}.1-2.tmp", 0.01), older=0) == {}


@pytest.mark.parametrize("folder", [DIR, "engines", "stamps", "catalogue", "roots", "run/laptop"])
@pytest.mark.parametrize("end", [".tmp", ".copy", ".new.tmp", ".old.tmp"])
def test_temporary_files(folder: str, end: str) -> None:
    """Finding 32: their names do not say whose they are; an hour after its last byte nobody is at one."""
    path = f"{folder}/{temporary_name('m.gguf', 12, '0123abcd', end)}"
    for all_asked in (True, False):
        assert list(reasons(old(path, 0.1), named=M, all_asked=all_asked)) == [path]
        assert reasons(old(path, 0.01), older=0, all_asked=all_asked) == {}


def test_logs() -> None:
    """Issue 5.6: an old log goes; never one with a record beside it, and never a record."""
    logs = [LOG, f"{LOG}.1", f"{LOG}.2", f"{LOG}.before", "run/llama.log"]
    assert set(reasons(*map(old, logs))) == set(logs)
    assert reasons(*(old(path, 6) for path in logs)) == {}
    assert set(reasons(*map(old, [*logs, RECORD]))) == {"run/llama.log"}
    ended = [*logs, RECORD]
    assert set(reasons(*map(old, ended), gone=RECORD)) == set(ended)
    assert reasons(*(old(path, 6) for path in ended), gone=RECORD) == {}


def test_the_preset_file_of_an_endpoint() -> None:
    """Issue 16: it goes with the server that read it; `doit preset` writes it again."""
    preset, server = "run/laptop/my-office-0123abcd.ini", "run/laptop/my-office-8080.json"
    assert reasons(old(preset)) == {preset: "the preset file of a stopped server"}
    assert reasons(old(preset, 6)) == {}
    assert reasons(old(preset), old(server)) == {}
    assert reasons(old(preset), old("run/laptop/office-8080.json")) != {}
    assert set(reasons(old(preset), old(server), gone=server)) == {preset, server}


def test_a_model_of_a_url() -> None:
    """Issue 14.9: one that was served by its URL, without a digest, stays for a week after its last use."""
    url = "models/url-0123456789abcdef/m.gguf"
    assert reasons(old(url, 6)) == {}
    assert reasons(old(url, 40, read=6)) == {}
    assert reasons(old(url, 40), old(f"{url}.stamp.json", 6)) == {}
    assert reasons(old(url, 8)) == {url: NOT_NAMED}
    assert reasons(old(url, 6), older=0) == {url: NOT_NAMED}


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (M, "models"), (f"{M}.stamp.json", "models"), (f"{M}.partial.json", "partial downloads"),
        (f"{M}.1-2.copy", "partial downloads"), (E, "engines"), (LOG, "logs"), (RECORD, "logs"),
        (JSON, "compiled catalogues"), (STAMPS, "records"), (ROOT, "records"),
    ],
)  # fmt: skip
def test_kinds(path: str, kind: str) -> None:
    """Issue 14.9: what the report adds up."""
    assert kind_of(path) == kind


def test_another_machines_catalogue() -> None:
    """Issue 5.6: where one cannot be asked, only the age that the user gives says what is not needed."""
    found = [old(M), old(f"{M}.partial"), old(E)]
    assert reasons(*found, all_asked=False) == {}
    assert set(reasons(*found, all_asked=False, older=30)) == {one.path for one in found}
    assert reasons(*found, all_asked=False, older=101) == {}


def test_spellings_of_one_name() -> None:
    """Issue 5.6: macOS and Windows take these for one file, so none of them is a stranger."""
    assert reasons(old(f"{DIR}/Ä.GGUF"), named=f"{DIR}/a\u0308.gguf") == {}


@pytest.mark.parametrize(
    "path",
    [
        *("models/mine/m.gguf", "models/m.gguf", f"{DIR}/folder/m.gguf", "engines/mine", "notes.txt"),
        *(
            "locks/0123456789abcdef.lock",
            "CACHEDIR.TAG",
            "README.txt",
            "catalogue/mine.json",
            "stamps/x.json",
        ),
        *(f"{DIR}/.m.gguf", f"{DIR}/.nfs0123", f"{DIR}/x/.0123abcd-1-0123abcd.tmp"),
        *(RECORD, "run/laptop/m-8080.key", "run/laptop/mine.log", "home/a.1-2.tmp", "engines/m.1-2.tmp"),
        *("engines/mine/llamafile-0.10.5", "engines/0123456789abcdef/mine", "engines/0123456789abcdef"),
    ],
)
def test_what_is_not_ours_to_remove(path: str) -> None:
    """Issue 5.6: nothing but what the recipe makes, where it makes it."""
    assert reasons(old(path), older=0) == {}


NAMES = st.sampled_from(["m.gguf", "n.gguf", "x.partial", "a-1.gguf"])
ENDINGS = st.sampled_from(
    ["", ".stamp.json", ".partial", ".partial.json", ".partial.live", ".1-2.copy", ".stamp.json.1-2.tmp"]
)
FOLDERS = st.sampled_from(
    [DIR, "models/url-0123456789abcdef", "engines", "run/laptop", "elsewhere", "models"]
)
PATHS = st.builds(lambda folder, name, end: f"{folder}/{name}{end}", FOLDERS, NAMES, ENDINGS) | st.builds(
    lambda folder, version, end: f"engines/{folder}llamafile-{version}{end}",
    st.sampled_from(["", "0123456789abcdef/", "url-0123456789abcdef/"]),
    st.sampled_from(["0.9", "0.10.5.exe"]),
    ENDINGS,
)
TIMES = st.floats(NOW - 100 * DAY, NOW + DAY)
FOUND = st.lists(
    st.builds(CacheFile, PATHS, st.integers(0, 100), TIMES, TIMES), unique_by=lambda one: one.path
)
OLDER = st.none() | st.floats(0, 100 * DAY)


@given(FOUND, st.data(), OLDER)
def test_a_root_is_never_named(found: list[CacheFile], data: st.DataObject, older_s: float | None) -> None:
    """Issue 5.6: what a catalogue names stays, with its stamp; the rest is never more than what there is."""
    paths = [one.path for one in found] or ["-"]
    named = frozenset(data.draw(st.lists(st.sampled_from(paths))))
    chosen = select_removable(found, LiveSet(named), (), NOW, older_s)
    assert not named & {one.path for one in chosen if classify_path(one.path).kind == "whole"}
    there = set(paths)
    for one in chosen:
        assert one.path in there
        ours = ("llamafile-", "0123456789abcdef/llamafile-", "url-0123456789abcdef/llamafile-")
        engines = tuple(f"engines/{name}" for name in ours)
        assert one.path.startswith((f"{DIR}/", "models/url-", *engines, "run/laptop/"))
        if one.target in named & there:
            assert classify_path(one.path).kind in ("partial", "copy", "temporary")


@given(FOUND, OLDER, OLDER)
def test_a_longer_time_keeps_more(found: list[CacheFile], first: float | None, second: float | None) -> None:
    """Issue 5.6: whatever goes after a longer time goes after a shorter one."""
    if first is None or second is None:
        return
    few, many = (
        select_removable(found, LiveSet(), (), NOW, older_s)
        for older_s in (max(first, second), min(first, second))
    )
    assert set(few) <= set(many)


@given(PATHS)
def test_a_part_is_of_one_target(path: str) -> None:
    """Issue 5.6: and what lies beside that is of the same one."""
    target = classify_path(path).target
    assert path.startswith(target)
    assert classify_path(f"{path}.1-2.tmp").target == target


@pytest.mark.parametrize(
    ("command", "used", "free"),
    [
        pytest.param(["/bin/sh", f"/c/{M}", "--server"], [M, f"{DIR}/other.gguf"], [E], id="a llamafile"),
        pytest.param(
            [f"/c/{E}", "-m", f"/c/{M}"], [M, E], ["engines/llamafile-0.10"], id="a program and a .gguf"
        ),
        pytest.param(
            ["/c/engines/0123456789abcdef/llamafile-0.10.5"],
            ["engines/0123456789abcdef/llamafile-0.10.5"],
            [E, "engines/url-0123456789abcdef/llamafile-0.10.5"],
            id="a program under its digest",
        ),
        pytest.param(
            [f"C:\\c\\{E}.exe".replace("/", "\\"), "-m", "C:\\m"], [f"{E}.exe"], [M, E], id="on Windows"
        ),
        pytest.param(["/mounted/elsewhere/" + M], [M, f"{M}.stamp.json"], [], id="in a container"),
        pytest.param(["/home/me/m.gguf"], [], [M, E], id="a file of the user's"),
    ],
)
def test_what_a_server_uses(command: list[str], used: list[str], free: list[str]) -> None:
    """Issue 5.6: its program, and the folder of its model with every part in it."""
    found = paths_in_use([command])
    assert [is_used(path, found) for path in (*used, *free)] == [True] * len(used) + [False] * len(free)


@pytest.mark.parametrize(
    ("text", "seconds"), [("30d", 30 * DAY), ("12h", DAY / 2), ("4W", 28 * DAY), ("0d", 0)]
)
def test_ages(text: str, seconds: float) -> None:
    """Issue 5.6: hours, days and weeks."""
    assert parse_age(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "1.5d", "30 days", "1m", "9" * 400 + "d", "٣d"])
def test_no_ages(text: str) -> None:
    """Issue 5.6: anything else is an error that shows how."""
    with pytest.raises(UsageError, match="expected a number and h, d or w") as caught:
        parse_age(text)
    assert caught.value.fix == "--older-than 30d"
