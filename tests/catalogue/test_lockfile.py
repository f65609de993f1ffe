"""models.lock: its text, what it lacks, and what it does to the catalogue (issue 5.1)."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tasks.catalogue.lockfile import (
    FROM_CATALOGUE,
    LockedFile,
    LockFile,
    coverage_errors,
    drop_entries,
    entries,
    merged,
    ordered,
    render,
)
from tasks.catalogue.schema import compile_catalogue, read_catalogue, read_lock
from tasks.catalogue.types import Catalogue, FileSpec
from tasks.errors import RecipeError, UsageError
from tasks.system.paths import is_version

from tests.support.catalogues import A64, B64, WHERE, edited

HUB = "https://huggingface.co"
COMMIT = "9f2d7a4be31c05868e7d0ab1c2d3e4f5a6b7c8d9"
TEXT = f"""\
version: 1
default: free
engines:
  llamafile:
    title: llamafile
    version: latest
    url: https://github.com/o/r/releases/download/{{version}}/llamafile-{{version}}
    mirrors: ["https://e.org/{{version}}"]
    license: Apache-2.0
  embedded: {{title: e, license: MIT}}
models:
  pinned: {{title: P, url: https://e.org/p.llamafile, sha256: {A64}, size: 5, license: MIT}}
  free: {{title: F, url: https://e.org/f.llamafile, mirrors: [https://e.net/f.llamafile], license: MIT}}
  hub:
    title: H
    hf: o/r
    file: m.gguf
    license: MIT
    mmproj: {{file: p.gguf}}
  split:
    title: S
    url: https://e.org/s-00001-of-00002.gguf
    license: MIT
"""


def digest(number: int) -> str:
    return f"{number:064x}"


def lock_all(text: str = TEXT) -> LockFile:
    """What `doit lock` writes: a made-up digest for whatever the catalogue leaves open."""
    lock, number = LockFile(1), 0
    for table, name, entry, files in entries(read_catalogue(text, WHERE)):
        rows = []
        for want in files:
            number += 1
            url = want.url.replace("/main/", f"/{COMMIT}/").replace("{version}", "0.10.5")
            version = "0.10.5" if table == "engines" else None
            source = want.source if want.source != url else None
            rows.append(
                LockedFile(
                    url, want.sha256 or digest(number), entry["license"], FROM_CATALOGUE, "2026-11-25",
                    source, want.size or number, COMMIT if COMMIT in url else None, version,
                )
            )  # fmt: skip
        getattr(lock, table)[name] = tuple(rows)
    return lock


LOCK = lock_all()


def joined(lock: LockFile | None, text: str = TEXT) -> Catalogue:
    return Catalogue(compile_catalogue(text, WHERE, lock), WHERE)


def test_text() -> None:
    """Issue 5.1: one key a line, in the catalogue's order; nothing is said that is not known."""
    first = LockedFile("https://e.org/a", A64, "MIT", "the Hub (X-Linked-Etag)", "2026-11-25", size=5)
    second = LockedFile("b.gguf", B64, "no: licence", "models.yaml", "2026-11-25", "hf:o/r@main/b.gguf")
    assert render(LockFile(1, {}, {"on": (first, second)})) == (
        "# Exactly these bytes. `doit lock` writes this file from models.yaml; commit it, do not edit it.\n"
        "version: 1\n"
        "engines: {}\n"
        "models:\n"
        '  "on":\n'
        "  - url: https://e.org/a\n"
        f'    sha256: "{A64}"\n'
        "    license: MIT\n"
        '    digest_from: "the Hub (X-Linked-Etag)"\n'
        '    since: "2026-11-25"\n'
        "    size: 5\n"
        "  - url: b.gguf\n"
        f'    sha256: "{B64}"\n'
        '    license: "no: licence"\n'
        "    digest_from: models.yaml\n"
        '    since: "2026-11-25"\n'
        '    source: "hf:o/r@main/b.gguf"\n'
    )


# what is in no UTF-8 file
any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
words = st.sampled_from(
    ["null", "~", "1e5", "0x1F", "1_000", "2026-11-25", "yes", "=", "a: b", "#", "-", "inf"]
)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
versions = (names | st.sampled_from(["0.10", "1e5", "2024-11-25", "1.0+a"])).filter(is_version)
rows = st.builds(
    LockedFile,
    st.sampled_from(["https://e.org/a.gguf", "demo/demo.gguf", "file:///srv/m.gguf", "a b ☃/ü.gguf"]),
    st.text("0123456789abcdef", min_size=64, max_size=64) | st.text("0123456789", min_size=64, max_size=64),
    any_text | words,
    any_text | words,
    any_text | words,
    st.none() | any_text | words,
    st.none() | st.integers(1, 2**60),
    st.none() | st.text("0123456789abcdefABC", min_size=1) | words,
    st.none() | versions,
)
tables = st.dictionaries(
    names | st.sampled_from(["null", "on", "1e5", "0.10"]),
    st.lists(rows, min_size=1, max_size=2).map(tuple),
    max_size=2,
)


def plain(lock: LockFile) -> Any:
    """Everything in a lock, its order too."""
    return json.dumps(
        {k: {n: [asdict(r) for r in rs] for n, rs in getattr(lock, k).items()} for k in ("engines", "models")}
    )


@given(tables, tables)
def test_what_is_written_is_read(engines: dict[str, Any], models: dict[str, Any]) -> None:
    """Issue 5.1: every word comes back as it was, in the same order; writing it again changes no byte."""
    lock = LockFile(1, engines, models)
    text = render(lock)
    again = read_lock(text, WHERE)
    assert plain(again) == plain(lock)
    assert render(again) == text
    assert text.isascii()


def row(**changes: str) -> str:
    """A lock of one row, changed."""
    keys = {"url": "u", "sha256": A64, "license": "M", "digest_from": "x", "since": "d", **changes}
    return f"version: 1\nmodels:\n  m:\n  - {{{', '.join(f'{k}: {v}' for k, v in keys.items() if v)}}}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("", "(top level): expected lines of", id="empty"),
        pytest.param(
            "<<<<<<< HEAD\nversion: 1\n",
            "m.lock:1: a merge conflict is not resolved",
            id="a merge that was left",
        ),
        pytest.param("version: 2\n", "1: version: expected 1, got 2", id="of a later version"),
        pytest.param("version: 1\nmodel: {}\n", "2: model: unknown key; did you mean models", id="misspelt"),
        pytest.param(
            row(sha256=A64[1:]),
            "4: models.m.0.sha256: expected 64 lower-case hexadecimal digits",
            id="a digest that lost a letter",
        ),
        pytest.param(
            row(since="2026-11-25"), "4: models.m.0.since: expected text", id="a date without its quotes"
        ),
        pytest.param(
            row(url="ftp://e/u"),
            "4: models.m.0.url: expected the URL of a file, or its path",
            id="a URL that is none",
        ),
        pytest.param(
            row(url="https://e.org/"),
            "4: models.m.0.url: expected the URL of a file, or its path",
            id="a URL of no file",
        ),
        *(
            pytest.param(
                row(version=json.dumps(version)),
                "4: models.m.0.version: expected a version of letters, digits, '.', '_', '+' and '-'",
                id=f"version {version}",
            )
            for version in ("x/../../../victim/.bashrc", "..", "C:x", "a\\b", "1\0", "-1", "1.0\n")
        ),
        *(
            pytest.param(
                row(url=json.dumps(f"https://e.org/{name}")),
                "4: models.m.0.url: expected the URL of a file, or its path",
                id=f"a file called {name}",
            )
            for name in ("NUL.gguf", ".bashrc", "m.gguf.", "x" * 243)
        ),
        pytest.param(row(sha256=""), "4: models.m.0.sha256: this key is required", id="no digest"),
        pytest.param(row(sise="5"), "4: models.m.0.sise: unknown key; did you mean size", id="a row's key"),
        pytest.param("version: 1\nmodels: {m: {url: u}}\n", "2: models.m: expected a list", id="no list"),
    ],
)
def test_damaged(text: str, said: str) -> None:
    """Issue 5.1: what was edited or half merged is an error with its line, and with the way out."""
    with pytest.raises(UsageError) as caught:
        read_lock(text, "m.lock")
    assert said in str(caught.value)
    assert "doit lock" in caught.value.fix or "is not YAML" in said


def test_a_lock_changes_only_what_was_open() -> None:
    """Issue 5.1: digest, size and address of every file; the address of models.yaml stays a mirror."""
    found, before = joined(LOCK), joined(None)
    assert found.model("pinned").__dict__ | {"serve": 0} == before.model("pinned").__dict__ | {"serve": 0}
    free = found.model("free")
    assert (free.url, free.mirrors) == ("https://e.org/f.llamafile", ("https://e.net/f.llamafile",))
    assert (free.sha256, free.size) == (digest(3), 3)
    hub = found.model("hub")
    assert (hub.url, hub.mirrors) == (
        f"{HUB}/o/r/resolve/{COMMIT}/m.gguf",
        (f"{HUB}/o/r/resolve/main/m.gguf",),
    )
    eyes = FileSpec(
        f"{HUB}/o/r/resolve/{COMMIT}/p.gguf", (f"{HUB}/o/r/resolve/main/p.gguf",), digest(5), 5, "mmproj"
    )
    assert found.extra_files("hub") == (eyes,)
    assert found.extra_files("split") == (FileSpec("https://e.org/s-00002-of-00002.gguf", (), digest(7), 7),)
    assert (found.model("split").sha256, found.model("split").size) == (digest(6), 6)


def test_a_lock_of_some_parts_pins_none() -> None:
    """Security 8: all or none; `doit lock --check` says what is missing."""
    rows = LOCK.models["split"]
    some = LockFile(1, LOCK.engines, {**LOCK.models, "split": rows[:1]})
    found = joined(some)
    assert [found.model("split").sha256, *(file.sha256 for file in found.extra_files("split"))] == [
        None,
        None,
    ]
    assert coverage_errors(read_catalogue(TEXT, WHERE), some) == [f"models.split {OTHER}"]


def test_the_latest_engine_is_the_locked_one() -> None:
    """R16, issue 5.1: the lock says which version it is; {version} stands for it in the mirrors, too."""
    engine = joined(LOCK).engine("llamafile")
    base = "https://github.com/o/r/releases/download"
    assert (engine.version, engine.url) == ("0.10.5", f"{base}/0.10.5/llamafile-0.10.5")
    assert (engine.mirrors, engine.sha256) == (("https://e.org/0.10.5",), digest(1))


def test_another_version_in_the_catalogue_is_not_the_locked_one() -> None:
    """R16: an edited version wins over a lock of the one before, which then lacks it."""
    old = lock_all(TEXT.replace("version: latest", 'version: "0.10.5"'))
    text = TEXT.replace("version: latest", 'version: "0.10.6"')
    engine = joined(old, text).engine("llamafile")
    assert (engine.version, engine.sha256) == ("0.10.6", None)
    assert engine.url == "https://github.com/o/r/releases/download/0.10.6/llamafile-0.10.6"
    assert coverage_errors(read_catalogue(text, WHERE), old) == [
        "engines.llamafile names other files than models.yaml"
    ]


@pytest.mark.parametrize("version", [None, "latest"])
def test_a_lock_that_does_not_say_which_is_the_latest(version: str | None) -> None:
    """The catalogue alone does not say it, so the lock does not cover it."""
    (row,) = LOCK.engines["llamafile"]
    lock = LockFile(1, {**LOCK.engines, "llamafile": (replace(row, version=version),)}, LOCK.models)
    why = "engines.llamafile does not say which version is the latest"
    assert coverage_errors(read_catalogue(TEXT, WHERE), lock) == [why]


sources = st.sampled_from(
    ["https://e.org/a.llamafile", "hf", "https://e.org/s-00001-of-00002.gguf", "x/y.gguf"]
)
pins = st.fixed_dictionaries({}, optional={"sha256": st.sampled_from([A64, B64]), "size": st.integers(1, 9)})


@st.composite
def catalogues(draw: st.DrawFn) -> str:
    """The text of a valid catalogue."""
    models: dict[str, Any] = {}
    for name in draw(st.lists(names, min_size=1, max_size=4, unique_by=str.lower)):
        source = draw(sources)
        entry: dict[str, Any] = {"title": "T", "license": draw(names | words)}
        split = "-of-" in source
        entry |= {"hf": "o/r", "file": "m.gguf"} if source == "hf" else {"url": source}
        entry |= {"engine": "self" if source.endswith(".llamafile") else "embedded"}
        if split and draw(st.booleans()):  # their digests: all or none (security 8)
            parts = [draw(pins), draw(pins)]
            pinned = all("sha256" in one for one in parts)
            keys = ("sha256", "size") if pinned else ("size",)
            entry["parts"] = [{key: one[key] for key in keys if key in one} for one in parts]
        entry |= {} if split else draw(pins)
        entry |= {"mmproj": {"url": "p.gguf", **draw(pins)}} if draw(st.booleans()) else {}
        entry |= {"lora": [{"url": "l.gguf", **draw(pins)}]} if draw(st.booleans()) else {}
        models[name] = entry
    engines: dict[str, Any] = {"embedded": {"title": "e", "license": "MIT"}}
    if draw(st.booleans()):
        version = draw(st.sampled_from(["latest", "0.10.5"]))
        engines["llamafile"] = {
            "title": "l",
            "license": "M",
            "version": version,
            "url": "https://e.org/{version}",
        }
    return json.dumps({"version": 1, "default": next(iter(models)), "engines": engines, "models": models})


@given(catalogues())
def test_nothing_is_lacking_right_after_locking(text: str) -> None:
    """Issue 5.1: whatever the catalogue says, its lock covers it, in its order, and contradicts nothing."""
    lock = lock_all(text)
    assert coverage_errors(read_catalogue(text, WHERE), lock) == []
    assert coverage_errors(read_catalogue(text, WHERE), read_lock(render(lock), WHERE)) == []
    found = read_catalogue(text, WHERE)
    assert list(lock.models) == list(found["models"])
    compile_catalogue(text, WHERE, lock)


@given(catalogues())
def test_what_the_catalogue_pins_stays(text: str) -> None:
    """Issue 5.1: joining adds what is open, and changes no digest and no size that models.yaml has."""
    found, own = joined(lock_all(text), text), read_catalogue(text, WHERE)
    for name, entry in own["models"].items():
        model, more = found.model(name), found.extra_files(name)
        wants = entry.get("parts") or [entry]
        files: list[Any] = [model, *(f for f in more if not f.role)]
        wants = [*wants, *([{}] * (len(files) - len(wants)))]
        files, wants = (
            [*files, *(f for f in more if f.role)],
            [*wants, *filter(None, [entry.get("mmproj"), *entry.get("lora", ())])],
        )
        assert len(files) == len(wants)
        for file, want in zip(files, wants, strict=True):
            assert file.sha256 == want.get("sha256", file.sha256)
            assert file.sha256
            assert file.size == want.get("size", file.size)


@given(catalogues())
def test_without_a_lock_nothing_is_added(text: str) -> None:
    """Issue 5.1: an unlocked catalogue pins what it pins."""
    found = joined(None, text)
    for name, entry in read_catalogue(text, WHERE)["models"].items():
        pin = (entry.get("parts") or [entry])[0]
        assert (found.model(name).sha256, found.model(name).size) == (pin.get("sha256"), pin.get("size"))


OTHER = "names other files than models.yaml"


def change(name: str, index: int = 0, **changes: Any) -> LockFile:
    """The lock with one row changed."""
    changed = list(LOCK.models[name])
    changed[index] = replace(changed[index], **changes)
    return LockFile(1, LOCK.engines, {**LOCK.models, name: tuple(changed)})


@pytest.mark.parametrize(
    ("lock", "old", "new", "rows"),
    [
        pytest.param(LOCK, "", "", [], id="it covers it"),
        pytest.param(
            LockFile(1, LOCK.engines), "", "",
            [f"models.{n} is not in models.lock" for n in LOCK.models], id="empty",
        ),
        pytest.param(
            drop_entries(LOCK, {"free", "llamafile"}), "", "",
            ["engines.llamafile is not in models.lock", "models.free is not in models.lock"],
            id="two are missing",
        ),
        pytest.param(LOCK, "f.llamafile,", "g.llamafile,", [f"models.free {OTHER}"], id="another URL"),
        pytest.param(LOCK, "file: m.gguf", "file: n.gguf", [f"models.hub {OTHER}"], id="another file"),
        pytest.param(LOCK, "hf: o/r", "hf: o/r\n    revision: v1", [f"models.hub {OTHER}"], id="revision"),
        pytest.param(LOCK, "of-00002", "of-00003", [f"models.split {OTHER}"], id="more parts"),
        pytest.param(LOCK, "    mmproj: {file: p.gguf}\n", "", [f"models.hub {OTHER}"], id="a file less"),
        pytest.param(
            LOCK, "size: 5, license: MIT", "size: 5, license: BSD",
            ["models.pinned has another license than models.yaml"], id="another licence",
        ),
        pytest.param(
            LOCK, "  pinned: {", "  other: {",
            ["models.other is not in models.lock", "models.pinned is not an entry of models.yaml"],
            id="renamed",
        ),
        pytest.param(
            change("pinned", sha256=B64), "", "",
            [f"models.pinned sha256 is {A64} in models.yaml and {B64} in models.lock"], id="another digest",
        ),
        pytest.param(
            change("pinned", size=6), "", "",
            ["models.pinned size is 5 in models.yaml and 6 in models.lock"], id="another size",
        ),
        pytest.param(change("free", size=None), "", "", [], id="a size that nobody knows"),
    ],
)  # fmt: skip
def test_what_it_lacks(lock: LockFile, old: str, new: str, rows: list[str]) -> None:
    """Issue 5.1: `doit lock --check`: each entry with the reason, also one that has gone."""
    assert coverage_errors(read_catalogue(edited(old, new, TEXT), WHERE), lock) == rows


def test_a_contradiction_says_which_to_edit() -> None:
    """Issue 5.1: both digests, the line of the catalogue, and the two ways out; all of them at once."""
    text = TEXT.replace("title: H\n", f"title: H\n    sha256: {B64}\n").replace(
        "mmproj: {file: p.gguf}", "mmproj: {file: p.gguf, size: 77}"
    )
    lock = change("pinned", sha256=B64)
    with pytest.raises(UsageError) as caught:
        compile_catalogue(text, WHERE, lock)
    line = text[: text.index("  hub:")].count("\n") + 1
    assert str(caught.value).splitlines() == [
        f"{WHERE} has 3 errors:",
        f"  {WHERE}:12: models.pinned: sha256 is {A64} in models.yaml and {B64} in models.lock",
        f"  {WHERE}:{line}: models.hub: sha256 is {B64} in models.yaml and {digest(4)} in models.lock",
        f"  {WHERE}:{line}: models.hub: size is 77 in models.yaml and 5 in models.lock",
        f"  fix: edit {WHERE}, or if it is right: `doit lock --upgrade --model pinned --model hub`",
    ]


def some(*rows: tuple[str, int]) -> LockFile:
    """A lock of models with the digest of a number."""
    models: dict[str, tuple[LockedFile, ...]] = {
        name: (LockedFile(f"https://e.org/{name}", digest(n), "MIT", "me", "x"),) for name, n in rows
    }
    return LockFile(1, {}, models)


@pytest.mark.parametrize(
    ("old", "new", "now", "expected"),
    [
        pytest.param([("a", 1)], [("a", 2)], [("a", 1)], [("a", 2)], id="ours alone"),
        pytest.param([("a", 1)], [("a", 1)], [("a", 2)], [("a", 2)], id="theirs alone"),
        pytest.param([], [("a", 1)], [("b", 2)], [("b", 2), ("a", 1)], id="two new ones"),
        pytest.param([("a", 1)], [], [("a", 1), ("b", 2)], [("b", 2)], id="one is gone"),
        pytest.param([("a", 1)], [("a", 1)], [], [], id="theirs has gone"),
        pytest.param([], [("a", 1)], [("a", 1)], [("a", 1)], id="the same"),
        pytest.param([("a", 1)], [("a", 2)], [("a", 3)], None, id="both"),
        pytest.param([("a", 1)], [("a", 2)], [], None, id="changed and gone"),
        pytest.param([], [("a", 1)], [("a", 2)], None, id="both new"),
    ],
)
def test_merged(old: Any, new: Any, now: Any, expected: Any) -> None:
    """Finding 7: what changed is applied to what the file says now; two changes of one entry are refused."""
    locks = (some(*old), some(*new), some(*now))
    if expected is None:
        with pytest.raises(RecipeError, match=r"another process changed x\.lock, with conflicts in a; "):
            merged(*locks, "x.lock")
    else:
        assert list(merged(*locks, "x.lock").models.items()) == list(some(*expected).models.items())


def test_ordered() -> None:
    """Finding 7: as models.yaml has them; what it does not have comes last."""
    plain = {"engines": {}, "models": {"b": 1, "c": 1, "a": 1}}
    assert list(ordered(some(("x", 1), ("a", 1), ("b", 1)), plain).models) == ["b", "a", "x"]
