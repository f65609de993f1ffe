"""The engine's exact command line: engine, platform, version (R9, R10, R11)."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tasks.catalogue.constraints import GPUS
from tasks.catalogue.environment import Environment
from tasks.catalogue.model_files import CompanionFile
from tasks.catalogue.resolve import resolve
from tasks.catalogue.schema import compile_catalogue
from tasks.catalogue.settings import ServeSettings
from tasks.catalogue.types import Catalogue
from tasks.engine.command import Launch, parse_version, serve_command, version_in, version_tuple
from tasks.errors import ServerError

from tests.support.command_lines import parse

USUAL = "--host 127.0.0.1 --port 8080"
REFERENCE = ServeSettings(ctx_size=0, n_predict=1024)
TAIL = "--host 127.0.0.1 --port 8080 --ctx-size 0 --n-predict 1024"


def launch(engine: str, platform: str) -> Launch:
    if platform == "win32":
        return Launch(engine, platform, r"C:\m.llamafile", r"C:\llamafile.exe", r"C:\py.exe")
    return Launch(engine, platform, "/m.llamafile", "/llamafile", "/py")


@pytest.mark.parametrize(
    ("engine", "platform", "program", "model"),
    [
        # Source: execve refuses an APE, /bin/sh reads it (mozilla-ai/llamafile#7)
        pytest.param("self", "linux", "/bin/sh /m.llamafile", "", id="self on Linux"),
        pytest.param("self", "darwin", "/bin/sh /m.llamafile", "", id="self on a Mac"),
        pytest.param("self", "win32", r"C:\m.llamafile", "", id="self on Windows"),
        pytest.param("llamafile", "linux", "/bin/sh /llamafile", "-m /m.llamafile", id="llamafile on Linux"),
        pytest.param("llamafile", "darwin", "/bin/sh /llamafile", "-m /m.llamafile", id="llamafile on a Mac"),
        pytest.param(
            "llamafile", "win32", r"C:\llamafile.exe", r"-m C:\m.llamafile", id="R9: llamafile on Windows"
        ),
        pytest.param(
            "embedded", "linux", "/py -m tasks.engine.embedded", "-m /m.llamafile", id="embedded on Linux"
        ),
        pytest.param(
            "embedded", "darwin", "/py -m tasks.engine.embedded", "-m /m.llamafile", id="embedded on a Mac"
        ),
        pytest.param(
            "embedded",
            "win32",
            r"C:\py.exe -m tasks.engine.embedded",
            r"-m C:\m.llamafile",
            id="embedded on Windows",
        ),
    ],
)
@pytest.mark.parametrize(
    ("version", "olds"),
    [
        # Source: the flag is gone in 0.10, where an unknown flag ends the program (mozilla-ai/llamafile#955)
        pytest.param("0.6.2", "--nobrowser", id="0.6.2"),
        pytest.param("0.7.4", "--nobrowser", id="0.7.4"),
        # From 0.8 on it writes a llama.log of its own, without a bound
        pytest.param("0.8", "--nobrowser --log-disable", id="0.8"),
        pytest.param("0.8.6", "--nobrowser --log-disable", id="0.8.6"),
        pytest.param("0.9.3", "--nobrowser --log-disable", id="0.9.3"),
        pytest.param("0.10", "", id="0.10, as the catalogue has it"),
        pytest.param("0.10.5", "", id="0.10.5"),
        pytest.param("1.0", "", id="1.0"),
        pytest.param(None, "", id="unknown"),
        pytest.param("", "", id="not said"),
    ],
)
def test_command_line(
    engine: str, platform: str, program: str, model: str, version: str | None, olds: str
) -> None:
    """R10, R11, R13: only flags that the version knows; host and port always."""
    flags = "" if engine == "embedded" else olds
    here = launch(engine, platform)
    assert (
        serve_command(here, REFERENCE, version=version)
        == f"{program} --server {flags} {model} {TAIL}".split()
    )
    assert here.version_command() == [*program.split(), "--version"]


@pytest.mark.parametrize(
    ("settings", "flags"),
    [
        (ServeSettings(ngl=9999, threads=2), f"{USUAL} -ngl 9999 --threads 2"),
        (ServeSettings(gpu="auto"), USUAL),
        (ServeSettings(gpu="disable"), f"{USUAL} --device none"),
        (ServeSettings(gpu="vulkan"), f"{USUAL} -ngl auto"),
        (ServeSettings(gpu="nvidia", ngl=9), f"{USUAL} -ngl 9"),
        (ServeSettings(args=("--mlock",)), f"{USUAL} --mlock"),
    ],
)
@pytest.mark.parametrize("platform", ["linux", "win32"])
def test_llama_server(settings: ServeSettings, flags: str, platform: str) -> None:
    """Issue 15.3: started as it is; it has neither --server nor --gpu, and no version of llamafile."""
    here = Launch("llama-server", platform, "/a@b/m.gguf", "/opt/llama-server")
    assert here.version_command() == ["/opt/llama-server", "--version"]
    words = serve_command(here, settings, version="11669")
    assert words == ["/opt/llama-server", "-m", "/a@b/m.gguf", *flags.split()]


KEY = "sk-not-for-ps"


@pytest.mark.parametrize("version", ["0.6.2", "0.8.6", "0.9.3", "0.10.5", None, ""])
@pytest.mark.parametrize("engine", ["self", "llamafile"])
def test_the_key_is_in_a_file(engine: str, version: str | None) -> None:
    """R30: `ps` shows command lines; every llamafile reads its keys from a file."""
    here = launch(engine, "linux")
    found = serve_command(here, REFERENCE, version=version, key_file="/run/m.key")
    at = found.index("--api-key-file")
    assert found[at + 1] == "/run/m.key"
    assert found[:at] + found[at + 2 :] == serve_command(here, REFERENCE, version=version)


@pytest.mark.parametrize(
    ("settings", "flags"),
    [
        pytest.param(ServeSettings(), USUAL, id="nothing said: host and port"),
        pytest.param(ServeSettings(host="::", port=1), "--host :: --port 1", id="R10: host and port"),
        pytest.param(ServeSettings(ngl=9999), f"{USUAL} -ngl 9999", id="R10: --force-gpu"),
        pytest.param(ServeSettings(ngl=0, ctx_size=0), f"{USUAL} --ctx-size 0 -ngl 0", id="0 is passed on"),
        pytest.param(ServeSettings(n_predict=-1), f"{USUAL} --n-predict -1", id="-1 is passed on"),
        pytest.param(ServeSettings(gpu="nvidia"), f"{USUAL} --gpu nvidia", id="R24: kind of GPU"),
        pytest.param(ServeSettings(threads=8), f"{USUAL} --threads 8", id="R17: threads"),
        pytest.param(ServeSettings(timeout=9), USUAL, id="the time limit is ours"),
        pytest.param(
            ServeSettings(args=("--mlock", "a b")), f"{USUAL} --mlock 'a b'", id="args of the catalogue"
        ),
    ],
)
def test_settings_as_flags(settings: ServeSettings, flags: str) -> None:
    """R17: each setting as the flag that every engine knows."""
    words = serve_command(launch("self", "linux"), settings, version=None)
    assert words == ["/bin/sh", "/m.llamafile", "--server", *shlex.split(flags)]


_NUMBERS = st.none() | st.integers(-1, 10**6)
_ARGS = st.lists(st.text(), max_size=4).map(tuple)


@given(
    st.builds(
        ServeSettings,
        port=st.integers(0, 65535),
        ctx_size=_NUMBERS,
        n_predict=_NUMBERS,
        ngl=_NUMBERS,
        threads=_NUMBERS,
        gpu=st.none() | st.sampled_from(GPUS[:-1]),
        host=st.text(),
        args=_ARGS,
    ),
    st.sampled_from(["self", "llamafile", "embedded"]),
    st.sampled_from([None, "0.6.2", "0.10.5"]),
    _ARGS,
)
def test_arguments_of_the_user_come_last_and_untouched(
    settings: ServeSettings, engine: str, version: str | None, extra: tuple[str, ...]
) -> None:
    """Arguments after -- come last and override the catalogue's."""
    bare = serve_command(launch(engine, "linux"), settings, version=version)
    full = serve_command(launch(engine, "linux"), settings, version=version, extra=extra)
    assert full == [*bare, *extra]
    assert bare[len(bare) - len(settings.args) :] == list(settings.args)
    assert all(isinstance(word, str) for word in full)


@pytest.mark.parametrize(
    ("text", "version", "numbers"),
    [
        pytest.param("llamafile v0.8.6\n", "0.8.6", (0, 8, 6), id="llamafile 0.8.6"),
        pytest.param("llamafile v0.6.2 main\n", "0.6.2", (0, 6, 2), id="with something behind it"),
        pytest.param("llamafile v0.10.5\n", "0.10.5", (0, 10, 5), id="llamafile 0.10.5"),
        pytest.param("llamafile v0.10\n", "0.10", (0, 10), id="two numbers"),
        pytest.param(
            "note: AVX2 found (level v3)\nllamafile v0.9.3\n", "0.9.3", (0, 9, 3), id="behind other lines"
        ),
        pytest.param(
            "embedded v2026.10.11549\n", "2026.10.11549", (2026, 10, 11549), id="the embedded engine"
        ),
        pytest.param("version: 4567 (a1b2c3d)\n", "", None, id="llama.cpp's own: no version of llamafile"),
        pytest.param("server0.8.6\n", "", None, id="digits in a word"),
        pytest.param("", "", None, id="nothing said"),
    ],
)
def test_version(text: str, version: str, numbers: tuple[int, ...] | None) -> None:
    """What `--version` prints, as text and as numbers."""
    assert parse_version(text) == version
    assert version_tuple(parse_version(text)) == numbers


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("version: 11669 (5e1b7c9)\nbuilt with GNU 13.3.0 for Linux x86_64\n", "11669"),
        ("version: 0.7.0 (build 11669, commit Debian)\nbuilt with GNU 16.2.0\n", "11669"),
        ("load_backend: loaded CPU backend from /x.so\nversion: 6500 (abc)\n", "6500"),
        ("version: 0.7.0\n", ""),
        ("version: unknown\n", ""),
        ("llamafile v0.10.5\n", ""),
        ("", ""),
    ],
)
def test_build_of_llama_server(text: str, version: str) -> None:
    """Issue 15.3: the build number, in the output of llama.cpp's releases and of Debian."""
    assert version_in("llama-server", text) == version


def test_versions_are_compared_as_numbers() -> None:
    """0.10 comes after 0.9."""
    order = [version_tuple(v) or () for v in ("0.6.2", "0.8.6", "0.9", "0.9.3", "0.10", "0.10.5", "1.0")]
    assert order == sorted(order)
    assert version_tuple(None) is None


@pytest.mark.parametrize("version", ["0.6.2", "0.9.3", "0.10.5", None])
@pytest.mark.parametrize(("engine", "model"), [("self", []), ("llamafile", ["-m"]), ("embedded", ["-m"])])
def test_projector(engine: str, model: list[str], version: str | None) -> None:
    """Issue 5.3: every engine and version gets it, before what the user adds."""
    here = launch(engine, "linux")
    eyes = here._replace(companions=(CompanionFile("mmproj", "/p.gguf"),))
    before = serve_command(here, REFERENCE, version=version, extra=("--mmproj", "/mine"))
    words = serve_command(eyes, REFERENCE, version=version, extra=("--mmproj", "/mine"))
    at = words.index("--mmproj")
    assert words[at : at + 2] == ["--mmproj", "/p.gguf"]
    assert [*words[:at], *words[at + 2 :]] == before
    assert words[-2:] == ["--mmproj", "/mine"]
    assert ("-m" in words) is bool(model)


def test_projector_in_a_path_that_llamafile_cannot_open() -> None:
    """Issue 5.3: the same sign as in a model's path."""
    here = launch("self", "linux")._replace(companions=(CompanionFile("mmproj", "/a@b/p.gguf"),))
    with pytest.raises(ServerError, match=r"cannot open /a@b/p\.gguf"):
        serve_command(here, REFERENCE, version="0.10.5")
    assert serve_command(here._replace(engine="embedded"), REFERENCE, version=None)


@pytest.mark.parametrize(
    ("engine", "version", "gpu", "model", "what"),
    [
        pytest.param(
            "self", "0.9.3", "vulkan", "/m", "0.9.3 does not support --gpu vulkan", id="vulkan before 0.10"
        ),
        pytest.param("self", "0.10", "vulkan", "/m", "", id="vulkan since 0.10"),
        pytest.param("self", None, "vulkan", "/m", "", id="vulkan in a version nobody knows"),
        pytest.param(
            "embedded", "0.9.3", "vulkan", "/m", "", id="vulkan in Python: that version is not its own"
        ),
        # Source: llamafile.c takes -m FILE@NAME apart at the first @
        pytest.param("llamafile", "0.10.5", None, "/a@b/m", "cannot open /a@b/m", id="@ in a path of -m"),
        pytest.param("self", "0.10.5", None, "/a@b/m", "", id="@ in the program's own path"),
        pytest.param("embedded", None, None, "/a@b/m", "", id="@ in a path, in Python"),
    ],
)
def test_what_an_engine_cannot_do(
    engine: str, version: str | None, gpu: str | None, model: str, what: str
) -> None:
    """The error is raised before the start, with a fix."""
    here = launch(engine, "linux")._replace(model=model)
    if not what:
        assert serve_command(here, ServeSettings(gpu=gpu), version=version)
        return
    with pytest.raises(ServerError) as caught:
        serve_command(here, ServeSettings(gpu=gpu), version=version)
    assert what in caught.value.what
    assert caught.value.fix


def test_default_model_as_the_reference_script_started_it() -> None:
    """R1, R11: the command line without any option."""
    text = (Path(__file__).parents[2] / "models.yaml").read_text("utf-8")
    found = resolve(
        parse(["serve"]), Catalogue(compile_catalogue(text, "m"), "m"), Environment("linux", "/c", "/r", "/w")
    )
    (resolved,) = found.by_name.values()
    here = Launch(resolved.engine, "linux", resolved.artifact.target)
    words = serve_command(here, resolved.settings, version=resolved.model.engine_version)
    assert words == [
        "/bin/sh",
        resolved.artifact.target,
        "--server",
        "--nobrowser",
        "--log-disable",
        *TAIL.split(),
    ]
    assert resolved.artifact.target.endswith("/mistral-7b-instruct-v0.2.Q5_K_M.llamafile")
