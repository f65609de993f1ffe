"""From a command line to what has to be done: files, engines, settings, questions."""

from __future__ import annotations

import hashlib
import shlex
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tasks.catalogue.artifact import model_dir
from tasks.catalogue.environment import Environment
from tasks.catalogue.model_files import llamafile_exe
from tasks.catalogue.resolve import Resolution, ResolvedModel, resolve, resolve_entry
from tasks.catalogue.settings import ServeSettings
from tasks.errors import UsageError

from tests.support.catalogues import A64, B64, BIG_URL, TINY_URL, VALID, catalogue, edited
from tests.support.command_lines import parse

TEXT = f"""{VALID}\
  tiny-q8: {{title: Q, url: https://example.org/tiny-q8.llamafile, size: 5000000000, license: X}}
  demo: {{title: D, url: demo/demo.gguf, sha256: {"d" * 64}, license: X, engine: embedded}}
  raw: {{title: R, url: raw.gguf, license: X}}
  Phi: {{title: P, url: file:///srv/phi.gguf, mirrors: [../phi.gguf], license: X, aliases: [phi-3]}}
"""
CATALOGUE = catalogue(TEXT)
POSIX = Environment("linux", "/cache", "/recipe", "/home/me")
WINDOWS = Environment("win32", r"C:\cache", r"C:\recipe", r"C:\Users\me")
OTHER = "https://other.org"


def jobs(line: str, environment: Environment = POSIX, text: str = TEXT) -> Resolution:
    return resolve(parse(shlex.split(line)), catalogue(text) if text != TEXT else CATALOGUE, environment)


def job(line: str, environment: Environment = POSIX, text: str = TEXT) -> ResolvedModel:
    """The one job of a command line."""
    found = jobs(line, environment, text)
    assert len(found.by_name) == 1, found.by_name
    (name, only), *_ = found.by_name.items()
    assert name == only.name == only.artifact.label
    return only


def place_of(platform: str) -> Environment:
    return WINDOWS if platform == "win32" else POSIX._replace(platform=platform)


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        pytest.param("", [], id="nothing"),
        pytest.param("catalogue", [[]], id="the catalogue is of no model"),
        pytest.param("exe", [[]], id="nor is the engine's program"),
        pytest.param("serve", [["tiny"]], id="R1: the default"),
        pytest.param("download", [["tiny"]], id="download means the default, never all"),
        pytest.param("serve --model SMALL", [["tiny"]], id="an alias in another case"),
        pytest.param("download --model big --model tiny", [["big", "tiny"]], id="several"),
        pytest.param("download --model tiny --model small", [["tiny", "tiny"]], id="one by two names"),
        pytest.param("download:big serve:tiny", [["big"], ["tiny"]], id="R38: by colon"),
        pytest.param("verify:tiny*", [["tiny", "tiny-q8"]], id="a wildcard, in the catalogue's order"),
        pytest.param("verify:*q8", [["tiny-q8"]], id="a wildcard in front"),
        pytest.param(
            "download --model t* --model phi-3", [["tiny", "tiny-q8", "Phi"]], id="a wildcard and an alias"
        ),
        pytest.param("info serve:demo", [["demo"]], id="doit's info looks at one"),
        pytest.param("list", [], id="doit's list at none"),
        pytest.param(
            "list --all",
            [[n] for n in ("tiny", "big", "tiny-q8", "demo", "raw", "Phi")],
            id="list --all at all",
        ),
        pytest.param("list --all serve:demo", [["demo"]], id="list --all of one"),
        pytest.param("help serve", [], id="help at none"),
        pytest.param("stop:nope status logs", [[], [], []], id="what runs need not be catalogued"),
        pytest.param("start", [["tiny"]], id="start: the default"),
        pytest.param("start --model t* --model big", [["tiny", "tiny-q8", "big"]], id="start: several"),
        pytest.param("with:big -- pytest tiny", [["big"]], id="with: one, and the command's words are none"),
        pytest.param("chat tiny --model big", [["big"]], id="chat: a question's words are none"),
    ],
)
def test_models_of_a_command_line(line: str, asked: list[list[str]]) -> None:
    """Each task's models, in the command line's order."""
    found = jobs(line)
    assert [list(names) for _, names in found.requested] == asked
    assert set(found.by_name) == {name for names in asked for name in names}


def test_names_for_the_graph() -> None:
    """Aliases lead to the job they name; only tasks without a colon speak for the verb."""
    found = jobs("download:small download --model big verify:Big serve:PHI")
    assert found.aliases == {"small": "tiny", "Big": "big", "PHI": "Phi"}
    assert (found.of("download"), found.of("verify"), found.of("serve")) == (("big",), (), ())


@pytest.mark.parametrize(
    ("line", "platform", "engine"),
    [
        pytest.param("serve", "linux", "self", id="a .llamafile is its own engine"),
        pytest.param("serve", "darwin", "self", id="also on a Mac"),
        pytest.param("serve", "win32", "llamafile", id="not on Windows, where only an .exe starts"),
        pytest.param("serve:tiny-q8", "linux", "self", id="over 4 GiB on Linux"),
        pytest.param("serve:tiny-q8", "win32", "llamafile", id="R9: over 4 GiB on Windows"),
        pytest.param("serve:big", "linux", "llamafile", id="a .gguf needs one"),
        pytest.param("serve:big", "win32", "llamafile", id="also on Windows"),
        pytest.param("serve:demo", "linux", "embedded", id="what the entry says"),
        pytest.param("serve:demo", "win32", "embedded", id="also on Windows "),
        pytest.param("serve:demo --engine llamafile", "linux", "llamafile", id="the command line wins"),
        pytest.param("serve:big --engine embedded", "darwin", "embedded", id="a .gguf in Python"),
        pytest.param("serve --engine self", "linux", "self", id="what would be anyway"),
        pytest.param("serve --engine llamafile", "linux", "llamafile", id="a newer engine for a .llamafile"),
        pytest.param("serve --llamafile x.gguf", "linux", "llamafile", id="a .gguf of the user's"),
        pytest.param("serve --llamafile x.llamafile", "linux", "self", id="a .llamafile of the user's"),
        pytest.param("serve --llamafile program", "linux", "self", id="a file without ending"),
        pytest.param(f"serve --llamafile-url {OTHER}/x.gguf", "linux", "llamafile", id="a .gguf by URL"),
    ],
)
def test_engine(line: str, platform: str, engine: str) -> None:
    """R9, R13: what was asked, what the entry says, what fits file and platform; in this order."""
    environment = place_of(platform)
    found = job(line, environment)
    assert found.engine == engine
    assert (found.exe == llamafile_exe(CATALOGUE, environment)) == (engine == "llamafile")


def test_engine_of_an_entry_on_windows() -> None:
    """R9: `engine: self` in the catalogue is meant for systems that can."""
    text = edited("    engine_version", "    engine: self\n    engine_version")
    assert job("serve", WINDOWS, text).engine == "llamafile"
    assert job("serve", POSIX, text).engine == "self"


@pytest.mark.parametrize(
    ("size", "why"),
    [
        pytest.param("4294967297", "over 4 GiB", id="a byte over 4 GiB"),
        pytest.param("4294967296", "not an .exe", id="4 GiB"),
        pytest.param("null", "not an .exe", id="nobody knows"),
    ],
)
def test_limit_of_windows(size: str, why: str) -> None:
    """R9: 4 GiB, and not a byte more (mozilla-ai/llamafile#98)."""
    with pytest.raises(UsageError, match=why):
        jobs("serve --engine self", WINDOWS, edited("size: 1000", f"size: {size}"))


_KEY = "url-" + hashlib.sha256(b"https://example.org/llamafile-0.10.5").hexdigest()[:16]


def test_another_digest_is_another_program() -> None:
    """Issue 11: of the same version and from the same URL."""
    url = "url: https://example.org/llamafile-0.10.5"
    for digest in (A64, B64):
        exe = llamafile_exe(catalogue(edited(url, f"{url}\n    sha256: {digest}")), place_of("linux"))
        assert exe.target == f"/cache/engines/{digest[:16]}/llamafile-0.10.5"


@pytest.mark.parametrize(
    ("platform", "target"),
    [
        pytest.param("linux", f"/cache/engines/{_KEY}/llamafile-0.10.5", id="POSIX"),
        pytest.param(
            "win32", rf"C:\cache/engines/{_KEY}/llamafile-0.10.5.exe", id="Windows starts what ends in .exe"
        ),
    ],
)
def test_program_without_a_model(platform: str, target: str) -> None:
    """R9, R16: the catalogue's version, under a name the system starts."""
    exe = llamafile_exe(CATALOGUE, place_of(platform))
    assert exe.target == target
    assert exe.sources == ("https://example.org/llamafile-0.10.5",)
    assert exe.in_cache


_OF_NO_URL = {"target": "/home/me/x.gguf", "sources": (), "sha256": None, "in_cache": False}
_URL_DIR = f"/cache/models/url-{hashlib.sha256(b'https://other.org/x.gguf').hexdigest()[:16]}"


@pytest.mark.parametrize(
    ("line", "name", "expected"),
    [
        pytest.param(
            "serve",
            "tiny",
            {
                "target": f"/cache/models/{A64[:16]}/tiny.llamafile",
                "sources": (TINY_URL,),
                "sha256": A64,
                "size": 1000,
                "in_cache": True,
            },
            id="a catalogued model lies under its digest",
        ),
        pytest.param(
            "serve:big",
            "big",
            {
                "target": model_dir("/cache", None, BIG_URL) + "/big.gguf",
                "sha256": None,
                "size": None,
                "sources": (BIG_URL, "https://example.net/big.gguf"),
            },
            id="without a digest, under its URL's; with mirrors",
        ),
        pytest.param(
            "serve:demo", "demo", {"sources": ("/recipe/demo/demo.gguf",)}, id="a path begins at models.yaml"
        ),
        pytest.param(
            "serve:raw",
            "raw",
            {"target": model_dir("/cache", None, "/recipe/raw.gguf") + "/raw.gguf"},
            id="an unpinned path of this project is not another project's",
        ),
        pytest.param(
            "serve:phi",
            "Phi",
            {"sources": ("file:///srv/phi.gguf", "/phi.gguf")},
            id="file:// stays, a mirror's path begins at models.yaml",
        ),
        pytest.param("serve --llamafile x.gguf", "x", _OF_NO_URL, id="R2, R12: a file where the user is"),
        pytest.param(
            "serve --llamafile ../you/./x.gguf", "x", {"target": "/home/you/x.gguf"}, id="a path with dots"
        ),
        pytest.param(
            f"serve --llamafile /srv/x.gguf --sha256 {B64} --llamafile_url {OTHER}/y",
            "x",
            {"target": "/srv/x.gguf", "sources": (f"{OTHER}/y",), "sha256": B64, "in_cache": False},
            id="R2: with URL and digest",
        ),
        pytest.param(
            f"serve --llamafile-url {OTHER}/x.gguf",
            "x",
            {
                "target": f"{_URL_DIR}/x.gguf",
                "sources": (f"{OTHER}/x.gguf",),
                "sha256": None,
                "in_cache": True,
            },
            id="R3: a URL alone names its file",
        ),
        pytest.param(
            f"serve --llamafile-url={OTHER}/a%20b%2Fc%3D1.llamafile?x=y#z --sha256 sha256:{B64.upper()}",
            "c-1",
            {"target": f"/cache/models/{B64[:16]}/c=1.llamafile", "sha256": B64},
            id="R3: decoded, without query and fragment; a digest as it is often written",
        ),
        pytest.param(
            "serve --llamafile-url ../x.gguf",
            "x",
            {"sources": ("/home/x.gguf",)},
            id="R12: a path begins at the user's",
        ),
        pytest.param(
            "serve --llamafile-url file:///srv/x.gguf",
            "x",
            {"sources": ("file:///srv/x.gguf",)},
            id="a file URL",
        ),
        pytest.param(
            f"serve --llamafile-url http://other.org/x.gguf --sha256 {B64}",
            "x",
            {"sha256": B64},
            id="R29: plain http with a digest",
        ),
        pytest.param(
            f"serve:tiny --llamafile-url {OTHER}/whatever",
            "tiny",
            {
                "target": f"/cache/models/{A64[:16]}/tiny.llamafile",
                "sources": (f"{OTHER}/whatever",),
                "sha256": A64,
            },
            id="another source of a catalogued model is held to the same digest",
        ),
        pytest.param(
            f"serve --llamafile-url {OTHER}/tiny.llamafile",
            "tiny",
            {"sources": (f"{OTHER}/tiny.llamafile",)},
            id="recognised by its file's name",
        ),
        pytest.param(
            f"serve --llamafile-url {TINY_URL} --sha256 {B64}",
            "tiny",
            {"target": f"/cache/models/{B64[:16]}/tiny.llamafile", "sha256": B64, "size": None},
            id="another digest is another file, of unknown size",
        ),
    ],
)
def test_file(line: str, name: str, expected: dict[str, Any]) -> None:
    """R2, R3, R12: where the file lies, where it comes from and what it must be."""
    found = job(line)
    assert found.name == name
    assert {key: getattr(found.artifact, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("line", "name", "target", "sources"),
    [
        pytest.param(r"serve --llamafile 'C:\x\y.llamafile'", "y", r"C:\x\y.llamafile", (), id="absolute"),
        pytest.param("serve --llamafile D:/x/y.gguf", "y", r"D:\x\y.gguf", (), id="with slashes"),
        pytest.param(r"serve --llamafile '..\y.gguf'", "y", r"C:\Users\y.gguf", (), id="relative"),
        pytest.param(r"serve --llamafile '\y.gguf'", "y", r"C:\y.gguf", (), id="from the drive's root"),
        pytest.param(r"serve --llamafile '\\srv\share\y.gguf'", "y", r"\\srv\share\y.gguf", (), id="a share"),
        pytest.param(
            "serve:demo",
            "demo",
            rf"C:\cache/models/{'d' * 16}/demo.gguf",
            (r"C:\recipe\demo\demo.gguf",),
            id="a path in the catalogue",
        ),
        pytest.param(
            r"serve --llamafile y.gguf --llamafile-url 'D:\x.gguf'",
            "y",
            r"C:\Users\me\y.gguf",
            (r"D:\x.gguf",),
            id="a path as URL",
        ),
    ],
)
def test_paths_on_windows(line: str, name: str, target: str, sources: tuple[str, ...]) -> None:
    """R13: drives, backslashes and shares."""
    found = job(line, WINDOWS)
    assert (found.name, found.artifact.target, found.artifact.sources) == (name, target, sources)


@pytest.mark.parametrize(
    ("folder", "platform", "seen"),
    [
        pytest.param("models", "linux", "/recipe/models", id="relative: it begins at models.yaml"),
        pytest.param("../models/", "linux", "/models", id="beside it"),
        pytest.param(".", "linux", "/recipe", id="beside models.yaml"),
        pytest.param("/mnt/m/../n", "linux", "/mnt/n", id="absolute"),
        pytest.param("~/m", "linux", "~/m", id="the user's, whoever that is"),
        pytest.param("~", "darwin", "~", id="the user's home"),
        pytest.param("a/~/b", "linux", "/recipe/a/~/b", id="a ~ inside"),
        pytest.param("a b*[c]", "linux", "/recipe/a b*[c]", id="blanks and glob's signs"),
        pytest.param("models", "win32", r"C:\recipe\models", id="relative on Windows"),
        pytest.param(r"..\m", "win32", r"C:\m", id="beside it on Windows"),
        pytest.param("D:/m", "win32", r"D:\m", id="another drive"),
        pytest.param(r"\m", "win32", r"C:\m", id="from the drive's root"),
        pytest.param(r"\\srv\share\m", "win32", r"\\srv\share\m", id="a share"),
        pytest.param(r"~\m", "win32", r"~\m", id="the user's on Windows"),
        pytest.param("D:/m", "linux", "/recipe/D:/m", id="a drive where there are none"),
    ],
)
@pytest.mark.parametrize(
    "line",
    [
        pytest.param("download", id="of the catalogue"),
        pytest.param("serve:big", id="with a program"),
        pytest.param(f"download --llamafile x.gguf --llamafile-url {OTHER}/y.gguf --sha256 {B64}", id="own"),
        pytest.param(f"download --llamafile-url {OTHER}/x.gguf --sha256 {B64}", id="by URL"),
        pytest.param(f"download:tiny --llamafile-url {OTHER}/x.gguf", id="by another URL"),
        pytest.param("info serve:demo", id="only looked at"),
    ],
)
def test_folders_where_it_may_lie_already(line: str, folder: str, platform: str, seen: str) -> None:
    """Issue 3: models.yaml's adopt_from holds for every file, models and programs."""
    text = f"{TEXT}adopt_from: [/first, '{folder}']\n"
    found = job(line, place_of(platform), text)
    first = "/first" if platform != "win32" else r"C:\first"
    assert found.artifact.adopt_from == (first, seen)
    assert found.exe is None or found.exe.adopt_from == (first, seen)


def test_no_folders() -> None:
    """Nothing in models.yaml: only other programs' usual places (() is not None, which is nowhere)."""
    assert job("serve:big").artifact.adopt_from == ()
    assert llamafile_exe(CATALOGUE, POSIX).adopt_from == ()
    text = f"{TEXT}adopt_from: [m]\n"
    assert resolve_entry("big", catalogue(text), POSIX).artifact == job("serve:big", text=text).artifact


def test_no_adopt_changes_no_job() -> None:
    """Two tasks of one model, one of them with --no-adopt, mean the same file."""
    found = jobs("download:tiny serve:tiny --no-adopt")
    assert list(found.by_name) == ["tiny"]


@pytest.mark.parametrize(
    ("filename", "name"),
    [
        pytest.param("x.llamafile", "x", id="without its ending"),
        pytest.param("my model.v1.Q4_K.gguf", "my-model.v1.Q4_K", id="blanks; other dots stay"),
        pytest.param("a=b:c*d.gguf", "a-b-c-d", id="what doit takes for something else"),
        pytest.param("x.bin", "x.bin", id="another ending stays"),
        pytest.param("modèle.gguf", "modèle", id="letters of any language"),
        pytest.param("--x--.gguf", "x", id="no option"),
        pytest.param("***.gguf", "file", id="nothing is left"),
        pytest.param(".gguf", "file", id="nothing was there"),
    ],
)
def test_task_name_of_a_file(filename: str, name: str) -> None:
    """A name that doit takes as one."""
    assert job(shlex.join(["serve", f"--llamafile={filename}"])).name == name


@pytest.mark.parametrize(
    ("line", "asks"),
    [
        pytest.param("serve", False, id="nothing but the catalogue"),
        pytest.param(f"serve --llamafile-url {TINY_URL}", False, id="the catalogue's URL"),
        pytest.param("serve:big --llamafile-url https://example.net/big.gguf", False, id="a mirror's"),
        pytest.param(f"serve:tiny --llamafile-url {OTHER}/x", True, id="another URL for a named model"),
        pytest.param(f"serve:small --llamafile_url {OTHER}/x", True, id="named by an alias"),
        pytest.param(f"serve --llamafile-url {OTHER}/tiny.llamafile", True, id="for a model by file name"),
        pytest.param(
            f"serve --llamafile tiny.llamafile --llamafile-url {OTHER}/x", True, id="by its own path"
        ),
        pytest.param("serve --llamafile tiny.llamafile", False, id="a path without a URL"),
        pytest.param(
            f"serve --llamafile tiny.llamafile --llamafile-url {TINY_URL}", False, id="path, same URL"
        ),
        pytest.param(f"serve --llamafile x.gguf --llamafile-url {OTHER}/x", False, id="a file nobody lists"),
        pytest.param(f"serve --llamafile-url {OTHER}/x.gguf", False, id="a URL nobody lists"),
    ],
)
def test_question(line: str, asks: bool) -> None:
    """R4: another URL for a catalogued model is asked about, with the model and both URLs."""
    question = job(line).confirmation
    assert bool(question) == asks
    if asks:
        url = line.split()[-1]
        assert question.splitlines() == [
            "the catalogue's URL of tiny is",
            f"  {TINY_URL}",
            "the requested URL is",
            f"  {url}",
            "Download from the requested URL?",
        ]


_BUILT_IN = {**asdict(ServeSettings()), "host": "127.0.0.1", "port": 8080, "timeout": 600}
_EVERY = (
    "host: h{0}, port: {0}, ctx_size: {0}, n_predict: {0}, ngl: {0}, gpu: {1}, threads: {0}, timeout: {0}"
)
_TYPED = "--host h3 --port 3 --ctx-size 3 --n-predict 3 --ngl 3 --gpu AMD --threads 3 --timeout 3"


def _all(level: int, gpu: str) -> dict[str, object]:
    keys = ("port", "ctx_size", "n_predict", "ngl", "threads", "timeout")
    return {**_BUILT_IN, "host": f"h{level}", **dict.fromkeys(keys, level), "gpu": gpu, "args": ()}


@pytest.mark.parametrize(
    ("defaults", "serve", "options", "settings"),
    [
        pytest.param("", "", "", _BUILT_IN, id="nobody says anything: built in"),
        pytest.param(_EVERY.format(1, "auto"), "", "", _all(1, "auto"), id="defaults over built in"),
        pytest.param("", _EVERY.format(2, "apple"), "", _all(2, "apple"), id="serve over built in"),
        pytest.param(
            _EVERY.format(1, "auto"),
            _EVERY.format(2, "apple"),
            "",
            _all(2, "apple"),
            id="serve over defaults",
        ),
        pytest.param(
            _EVERY.format(1, "auto"),
            _EVERY.format(2, "apple"),
            _TYPED,
            _all(3, "amd"),
            id="the command line over all",
        ),
        pytest.param(
            "ctx_size: 1",
            "n_predict: 2",
            "--threads 3",
            {**_BUILT_IN, "ctx_size": 1, "n_predict": 2, "threads": 3},
            id="each level where it says something",
        ),
        pytest.param(
            "ctx_size: 9, ngl: 9, port: 9",
            "ctx_size: 0, ngl: 0",
            "--port 0",
            {**_BUILT_IN, "ctx_size": 0, "ngl": 0, "port": 0},
            id="0 is something said",
        ),
        pytest.param("ngl: 1", "ngl: 2", "--force-gpu", {**_BUILT_IN, "ngl": 9999}, id="R10: --force-gpu"),
        pytest.param(
            "args: [a, '1']", "args: [b]", "", {**_BUILT_IN, "args": ("a", "1", "b")}, id="args add up"
        ),
        pytest.param(
            "", "", "--n-predict -1 --ngl -1", {**_BUILT_IN, "n_predict": -1, "ngl": -1}, id="-1: no limit"
        ),
    ],
)
def test_settings(defaults: str, serve: str, options: str, settings: dict[str, object]) -> None:
    """R10, R17: command line, then the model's serve, then defaults, then what is built in."""
    text = edited("{ctx_size: 4096}", f"{{{defaults}}}", edited("{ctx_size: 0}", f"{{{serve}}}"))
    assert asdict(job(f"serve {options}", text=text).settings) == settings


def test_arguments_for_the_engine() -> None:
    """What stands behind -- reaches the one job that serves."""
    found = jobs("download:big serve --model tiny -- --parallel 1 a=b")
    assert found.by_name["tiny"].engine_args == ("--parallel", "1", "a=b")
    assert found.by_name["big"].engine_args == ()


@pytest.mark.parametrize(
    ("line", "platform", "what", "fix"),
    [
        # models
        pytest.param("serve:tinny", "linux", "no model 'tinny'", "did you mean tiny", id="unknown model"),
        pytest.param("info serve:tinny", "linux", "no model 'tinny'", "tiny", id="also where doit looks"),
        pytest.param("verify:xy*", "linux", "no model matches 'xy*'", "`doit`", id="a wildcard for nothing"),
        pytest.param(
            "download --model nope --model t*", "linux", "no model 'nope'", "`doit`", id="unknown beside one"
        ),
        pytest.param(
            "verify:TINY*", "linux", "no model matches", "`doit`", id="doit knows a wildcard in one case"
        ),
        pytest.param("serve:tiny*", "linux", "got 2: tiny, tiny-q8", "", id="two servers in the foreground"),
        # two ways to say one thing
        pytest.param(
            "serve:tiny --llamafile x", "linux", "--model and --llamafile", "remove one", id="two files"
        ),
        pytest.param(
            "serve --model big --llamafile x", "linux", "--model and --llamafile", "remove", id="by option"
        ),
        pytest.param(f"serve --sha256 {B64}", "linux", "--sha256 requires", "", id="a digest of nothing"),
        pytest.param(
            "serve --force-gpu --ngl 3", "linux", "--force-gpu and --ngl", "remove one", id="two ngl"
        ),
        pytest.param(
            "download --llamafile a/x.gguf serve --llamafile b/x.gguf",
            "linux",
            "x is requested twice",
            "",
            id="one name, two files",
        ),
        pytest.param(
            f"download:tiny serve --llamafile-url {OTHER}/tiny.llamafile",
            "linux",
            "tiny is requested twice",
            "",
            id="one model, two sources",
        ),
        # R3
        pytest.param(
            f"serve --llamafile-url={OTHER}/model.bin?x=y.gguf",
            "linux",
            "'model.bin': expected one ending in .llamafile or .gguf",
            f"--llamafile NAME.gguf (or NAME.llamafile) --llamafile-url {OTHER}/model.bin?x=y.gguf",
            id="R3: another ending",
        ),
        pytest.param(f"serve --llamafile-url {OTHER}/", "linux", "'': expected one", "NAME", id="no name"),
        # R22, R29
        pytest.param("serve --llamafile-url ftp://h/x.gguf", "linux", "got ftp:", "", id="R22: scheme"),
        pytest.param("serve --llamafile-url https:///x.gguf", "linux", "has no host", "", id="R22: host"),
        pytest.param("serve --llamafile-url https://[/x.gguf", "linux", "not a URL", "", id="R22: syntax"),
        pytest.param("serve --llamafile-url ''", "linux", "expected a URL", "", id="R22: nothing"),
        pytest.param(
            "serve --llamafile-url http://h/x.gguf", "linux", "plain http", "--sha256", id="R29: plain http"
        ),
        pytest.param(
            "serve --llamafile x.gguf --llamafile-url http://h/x",
            "linux",
            "plain http",
            "--sha256",
            id="R29: plain http for a path",
        ),
        pytest.param(
            "serve --llamafile-url http://h/big.gguf",
            "linux",
            "plain http",
            "--sha256",
            id="R29: plain http for an unpinned model",
        ),
        pytest.param(
            "serve --llamafile x --sha256 abc", "linux", "64 hexadecimal digits", "", id="a short digest"
        ),
        # engines
        pytest.param(
            "serve --engine lamafile", "linux", "'lamafile'", "did you mean llamafile", id="engine, misspelt"
        ),
        pytest.param(
            "serve --engine ollama", "linux", "no engine 'ollama'", "llamafile", id="engine of another"
        ),
        pytest.param(
            "serve:big --engine self",
            "linux",
            "is a GGUF, which is not a program",
            "--engine llamafile",
            id="a .gguf as program",
        ),
        pytest.param(
            "serve --engine embedded", "linux", "reads GGUF files", "remove --engine", id="a .llamafile"
        ),
        pytest.param("serve --engine self", "win32", "not an .exe", "--engine llamafile", id="R9: no .exe"),
        pytest.param(
            "serve:tiny-q8 --engine self", "win32", "over 4 GiB", "--engine llamafile", id="R9: over 4 GiB"
        ),
        # R23
        pytest.param(
            "serve --port 65536",
            "linux",
            "--port: expected a whole number from 0 to 65535, got '65536'",
            "",
            id="R23: port too large",
        ),
        pytest.param("serve --port -1", "linux", "--port: expected", "", id="R23: port below 0"),
        pytest.param("serve --port http", "linux", "--port: expected", "", id="R23: port by name"),
        pytest.param("serve --port ''", "linux", "--port: expected", "", id="R23: no port"),
        pytest.param("serve --port 80/tcp", "linux", "--port: expected", "", id="R23: port and protocol"),
        pytest.param("serve --port 80.0", "linux", "--port: expected", "", id="R23: a fraction"),
        pytest.param(
            "serve --host http://0.0.0.0", "linux", "--host: expected", "remove http://", id="R23: a URL"
        ),
        pytest.param("serve --host ''", "linux", "--host: expected", "", id="R23: no host"),
        pytest.param(
            f"serve --host {'h' * 254}", "linux", "--host: expected", "", id="R23: a host too long for DNS"
        ),
        pytest.param("serve --host 'a b'", "linux", "--host: expected", "", id="R23: a blank in a host"),
        # R17
        pytest.param(
            "serve --ctx-size 4k", "linux", "--ctx-size: expected a whole number from 0 to", "", id="ctx 4k"
        ),
        pytest.param(
            "serve --ctx-size 1000000000",
            "linux",
            "from 0 to 999,999,999, got '1000000000'",
            "",
            id="ctx big",
        ),
        pytest.param("serve --ctx-size -1", "linux", "--ctx-size: expected", "", id="ctx below 0"),
        pytest.param("serve --n-predict -2", "linux", "--n-predict: expected", "", id="n-predict below -1"),
        pytest.param("serve --ngl all", "linux", "--ngl: expected", "", id="ngl in words"),
        pytest.param("serve --threads 0", "linux", "--threads: expected", "", id="no thread"),
        pytest.param("serve --timeout 0", "linux", "--timeout: expected", "", id="no time"),
        pytest.param(
            f"serve --threads {10**10}", "linux", "--threads: expected", "", id="more than an int holds"
        ),
        pytest.param(
            "serve --gpu nvdia", "linux", "--gpu: expected one of auto, disable", "nvidia", id="gpu, misspelt"
        ),
        pytest.param(
            "serve --gpu x", "linux", "--gpu: expected one of auto, disable", "", id="gpu of another"
        ),
        pytest.param(
            "serve -- --port 1",
            "linux",
            "--port cannot be passed to the engine directly",
            "before the --",
            id="a port we would not know",
        ),
        pytest.param(
            "serve -- --host=::1",
            "linux",
            "--host cannot be passed to the engine directly",
            "before",
            id="a host we would not know",
        ),
        # issue 4
        pytest.param(
            "start:tiny -- -c 5 --api-key K",
            "linux",
            "--api-key cannot be passed to the engine directly",
            "before the --",
            id="R30: a key we would not know",
        ),
        pytest.param(
            "start --model tiny --model big --port 9",
            "linux",
            "--port 9 is for one model, got 2: tiny, big",
            "--port 0",
            id="R23: two models on one port",
        ),
        pytest.param("with:tiny* -- x", "linux", "`with` runs one model, got 2", "", id="with of two models"),
        pytest.param("chat:tiny*", "linux", "`chat` runs one model", "", id="chat with two models"),
        pytest.param("start --api-key ''", "linux", "--api-key: expected", "", id="R30: an empty key"),
        pytest.param("start --api-key a,b", "linux", "--api-key: expected", "", id="R30: two keys"),
        pytest.param("serve --api-key 'a b'", "linux", "--api-key: expected", "", id="R30: a blank in a key"),
        pytest.param("with --api-key é -- x", "linux", "--api-key: expected", "", id="R30: no ASCII"),
    ],
)
def test_refused(line: str, platform: str, what: str, fix: str) -> None:
    """R3, R22, R23, R29: clean, before anything runs, with the remedy where there is one."""
    with pytest.raises(UsageError) as caught:
        jobs(line, place_of(platform))
    assert what in caught.value.what
    assert fix in caught.value.fix
    assert bool(fix) == bool(caught.value.fix)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "0.0.0.0", "::", "::1", "fe80::1%eth0", "localhost", "my-host.local", "a_b"]
)
def test_hosts(host: str) -> None:
    """R23: names and addresses of both kinds."""
    assert job(f"serve --host {host}").settings.host == host


@pytest.mark.parametrize("missing", ["version", "url"])
def test_program_that_the_catalogue_does_not_name(missing: str) -> None:
    """A .gguf needs it: the message says what to add and where."""
    line = next(row for row in VALID.splitlines() if row.startswith(f"    {missing}:"))
    with pytest.raises(UsageError, match=r"engines\.llamafile needs url and version"):
        jobs("serve:big", text=edited(line + "\n", ""))


def test_same_file_twice_is_no_conflict() -> None:
    """The steps of one model may stand in one command line."""
    found = jobs("download:tiny verify --model small serve --port 9")
    assert list(found.by_name) == ["tiny"]
    assert found.by_name["tiny"].settings.port == 9


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param(
            "start",
            {"requested_port": None, "key": "", "probe": False, "require_gpu": False},
            id="nothing said",
        ),
        pytest.param("start --port 0", {"requested_port": 0}, id="any free port is one that was asked for"),
        pytest.param("serve --port 8080", {"requested_port": 8080}, id="the usual port, by name"),
        pytest.param("serve --api-key sk-1 --probe", {"key": "sk-1", "probe": True}, id="key and probe"),
        pytest.param("start --force-gpu", {"require_gpu": True}, id="--force-gpu means it"),
        pytest.param("with --gpu NVIDIA -- x", {"require_gpu": True}, id="--gpu of a kind means it"),
        pytest.param("start --gpu auto", {"require_gpu": False}, id="--gpu auto may do without"),
        pytest.param("start --gpu Disable", {"require_gpu": False}, id="--gpu disable is no wish for one"),
        pytest.param("start -- -t 2 a=b", {"engine_args": ("-t", "2", "a=b")}, id="start: the engine's own"),
        pytest.param(
            "with -- x --port 1", {"engine_args": (), "requested_port": None}, id="with: the command's"
        ),
        pytest.param("chat Hello -- --host", {"engine_args": ()}, id="chat: a question's words"),
    ],
)
def test_what_a_server_is_started_with(line: str, expected: dict[str, Any]) -> None:
    """Issue 4: what the command line said, as it is needed when the server is started."""
    found = job(line)
    assert {name: getattr(found, name) for name in expected} == expected


def test_which_port_was_asked_for() -> None:
    """R17, R23: the entry's own port is meant; that of `defaults:` is the usual one, and may be taken."""
    found = job("start", text=edited("serve: {ctx_size: 0}", "serve: {port: 9}"))
    assert (found.settings.port, found.requested_port) == (9, 9)
    found = job("start", text=edited("{ctx_size: 4096}", "{port: 9}"))
    assert (found.settings.port, found.requested_port) == (9, None)


@pytest.mark.parametrize(
    "line",
    [
        "start:tiny --port 9 --ctx-size 5",
        "verify:tiny start:tiny --port 9 --ctx-size 5",
        "start:tiny --port 9 --ctx-size 5 verify:tiny",
        "start:tiny --port 9 --ctx-size 5 status:tiny",
    ],
)
def test_another_task_of_a_model_does_not_change_its_settings(line: str) -> None:
    """R17: something may follow `start`, which ends when the server is ready."""
    found = jobs(line).by_name["tiny"]
    assert (found.requested_port, found.settings.port, found.settings.ctx_size) == (9, 9, 5)


def test_the_engines_program_is_needed_for_every_start() -> None:
    """R9: a .gguf needs it, whichever verb starts its server."""
    for line in ("serve:big", "start:big", "with:big -- x", "chat:big Hello"):
        assert job(line).exe == llamafile_exe(CATALOGUE, POSIX), line


def test_the_engines_program_is_needed_only_where_it_is_started() -> None:
    """R9: `doit download` of a .gguf fetches no program."""
    assert jobs("download:big chmod:big").by_name["big"].exe is None
    both = jobs("verify:big download:big").by_name["big"]
    assert both.exe == llamafile_exe(CATALOGUE, POSIX)


def test_without_a_digest_the_url_says_which_bytes() -> None:
    """R4, R6: what lies there from the catalogue's URL is not taken for what another URL holds."""
    here = job("download --model raw").artifact.target
    other = job(f"download --model raw --llamafile-url {OTHER}/raw.gguf")
    assert other.confirmation
    assert other.artifact.target != here
    pinned = job(f"download --model demo --llamafile-url {OTHER}/demo.gguf").artifact
    assert pinned.target == job("download --model demo").artifact.target


def test_own_file_from_the_catalogues_url_has_its_digest() -> None:
    """R2, R21: the catalogue's own URL brings the catalogue's own bytes, wherever they are put."""
    found = job(f"download --llamafile {TINY_URL.rpartition('/')[2]} --llamafile-url {TINY_URL}")
    assert (found.artifact.sha256, found.confirmation) == (A64, "")


def test_catalogued_job_has_nothing_of_the_command_line() -> None:
    """What the table of `doit` shows is the catalogue's."""
    found = resolve_entry("small", CATALOGUE, POSIX)
    assert (found.name, found.artifact, found.engine) == ("tiny", job("serve").artifact, "self")
    assert asdict(found.settings) == {**_BUILT_IN, "ctx_size": 0}


@given(
    st.sampled_from(["--llamafile", "--llamafile-url", "--model", "--host", "--port", "--sha256", "--gpu"]),
    st.text(max_size=30),
    st.sampled_from([POSIX, WINDOWS]),
)
def test_whatever_is_typed(option: str, value: str, environment: Environment) -> None:
    """Jobs, or a UsageError; a file in the cache stays in the cache."""
    try:
        found = resolve(parse(["serve", option, value]), CATALOGUE, environment)
    except UsageError:
        return
    for one in found.by_name.values():
        assert one.name
        assert not set(one.name) & set("=:* /\\")
        if one.artifact.in_cache:
            folder, _, filename = one.artifact.target.rpartition("/")
            assert folder.rpartition("/")[0] == f"{environment.cache}/models"
            assert filename not in ("", ".", "..")
            assert "\\" not in filename


GGUF_BYTES = b"GGUF\3\0\0\0"
APE_BYTES = b"MZqFpD='"


@pytest.mark.parametrize(
    ("line", "head", "engine"),
    [
        ("serve --llamafile M.GGUF", b"", "llamafile"),
        ("serve --llamafile M.GGUF --engine embedded", b"", "embedded"),
        (f"serve --llamafile-url {OTHER}/M.GGUF", b"", "llamafile"),
        (f"serve --llamafile-url {OTHER}/M.LLAMAFILE", b"", "self"),
        ("serve --llamafile sha256-ab", GGUF_BYTES, "llamafile"),
        ("serve --llamafile sha256-ab --engine embedded", GGUF_BYTES, "embedded"),
        ("serve --llamafile x.bin", GGUF_BYTES, "llamafile"),
        ("serve --llamafile x.llamafile --engine embedded", GGUF_BYTES, "embedded"),
        ("serve --llamafile x.gguf", APE_BYTES, "self"),
        ("serve --llamafile x.gguf --engine self", APE_BYTES, "self"),
        ("serve --llamafile x.gguf --engine llamafile", APE_BYTES, "llamafile"),
        ("serve --llamafile x.bin", b"", "self"),
    ],
)
def test_the_bytes_choose_the_engine(line: str, head: bytes, engine: str) -> None:
    """F10: what the first bytes say wins over what the name says."""
    environment = POSIX._replace(first_bytes=lambda _: head)
    assert job(line, environment).engine == engine


@pytest.mark.parametrize(
    ("line", "head", "what"),
    [
        ("serve --llamafile x.bin --engine self", GGUF_BYTES, "x.bin is a GGUF, which is not a program"),
        ("serve --llamafile X.GGUF --engine self", b"", "X is a GGUF, which is not a program"),
        ("serve --llamafile x.gguf --engine embedded", APE_BYTES, "x is a llamafile, but the embedded"),
    ],
)
def test_the_bytes_refuse_an_engine(line: str, head: bytes, what: str) -> None:
    """F10: an engine that cannot read the bytes is refused before anything runs."""
    with pytest.raises(UsageError) as caught:
        job(line, POSIX._replace(first_bytes=lambda _: head))
    assert caught.value.what.startswith(what)
