"""The graph and the commands of Linux, macOS and Windows, wherever the tests run."""

from __future__ import annotations

import contextlib
import sys

import pytest
from dodo import recipe
from doit.task import Task
from tasks.catalogue.environment import Environment
from tasks.catalogue.resolve import ResolvedModel, resolve
from tasks.catalogue.schema import compile_catalogue
from tasks.catalogue.types import Catalogue
from tasks.context import Context
from tasks.engine import command
from tasks.engine.version import launch_of
from tasks.errors import UsageError
from tasks.verbs import plan as plan_verb

from tests.support.command_lines import parse

A64, B64, C64 = "a" * 64, "b" * 64, "c" * 64
MODELS = f"""\
version: 1
default: big
defaults: {{ctx_size: 0, n_predict: 1024}}
engines:
  llamafile:
    title: llamafile
    version: "0.10.5"
    url: https://models.invalid/llamafile-0.10.5
    sha256: {C64}
    license: Apache-2.0
models:
  big: {{title: B, url: "https://m.invalid/big.llamafile", sha256: {A64}, size: 5160777905, license: MIT}}
  small: {{title: S, url: "https://m.invalid/small.llamafile", sha256: {B64}, size: 700000000, license: MIT}}
  data: {{title: D, url: "https://m.invalid/data.gguf", sha256: {C64}, license: MIT}}
  demo: {{title: D, url: demo/demo.gguf, sha256: {C64}, license: MIT, engine: embedded}}
"""
PLACES = {
    "win32": Environment("win32", r"C:\Users\me\AppData\Local\cache", r"C:\recipe", r"C:\Users\me"),
    "darwin": Environment("darwin", "/Users/me/Library/Caches/r", "/Users/me/recipe", "/Users/me"),
    "linux": Environment("linux", "/home/me/.cache/r", "/home/me/recipe", "/home/me"),
}
CACHE = {name: environment.cache for name, environment in PLACES.items()}


def recipe_on(platform: str, *argv: str) -> Context:
    """What a command line means on a platform."""
    catalogue = Catalogue(compile_catalogue(MODELS, "models.yaml"), "models.yaml")
    args, environment = parse(argv), PLACES[platform]
    return Context(catalogue, environment, args, resolve(args, catalogue, environment))


def tasks_on(platform: str, *argv: str) -> dict[str, Task]:
    """doit's tasks for a command line on a platform."""
    return {task.name: task for task in recipe.tasks(recipe_on(platform, *argv))}


def command_on(platform: str, *argv: str) -> list[str]:
    """The engine's command line, for the one model of a command line."""
    context = recipe_on(platform, *argv)
    [resolved] = context.resolution.by_name.values()
    assert isinstance(resolved, ResolvedModel)
    version = "0.10.5" if resolved.exe else "0.8.6"
    return command.serve_command(
        launch_of(context.environment.platform, resolved),
        resolved.settings,
        version=version,
        extra=resolved.engine_args,
    )


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_the_chain_on_posix(platform: str) -> None:
    """R13, R36: download, chmod, verify, serve, each after the one before; no further program."""
    tasks = tasks_on(platform, "serve")
    chain = ["serve", "serve:big", "verify:big", "chmod:big", "download:big"]
    chained = [[name] for name in chain[1:]] + [[]]
    chained[1].insert(0, "_check_serve:big")  # before anything is downloaded for nothing
    assert [tasks[name].task_dep for name in chain] == chained
    assert tasks["exe"].actions == []
    assert tasks["chmod:big"].title() == "chmod:big"
    assert [callable(check) for check, _, _ in tasks["chmod:big"].uptodate] == [True]


@pytest.mark.parametrize("model", ["big", "small"])
def test_the_chain_on_windows(model: str) -> None:
    """R9, R31, R36: llamafile.exe comes as well, is proven before the model, and chmod says why it rests."""
    tasks = tasks_on("win32", f"serve:{model}")
    assert tasks[f"serve:{model}"].task_dep == [f"_check_serve:{model}", f"verify:{model}"]
    assert tasks[f"verify:{model}"].task_dep == [f"chmod:{model}", "exe"]
    assert tasks[f"chmod:{model}"].task_dep == [f"download:{model}"]
    assert tasks[f"chmod:{model}"].title() == f"chmod:{model}  (skipped: Windows has no chmod)"
    assert [check() for check, _, _ in tasks[f"chmod:{model}"].uptodate] == [True]
    assert len(tasks["exe"].actions) == 2  # the check of the whole command, and the download
    assert tasks["exe"].targets == [f"{CACHE['win32']}/engines/{C64[:16]}/llamafile-0.10.5.exe"]


@pytest.mark.parametrize("platform", PLACES)
def test_a_gguf_needs_the_program_everywhere(platform: str) -> None:
    """R9, R13: verify of a .gguf comes after chmod (skipped, visibly) and after exe."""
    tasks = tasks_on(platform, "serve", "--model", "data")
    assert tasks["verify:data"].task_dep == ["chmod:data", "exe"]
    assert "(skipped: " in tasks["chmod:data"].title()
    ending = ".exe" if platform == "win32" else ""
    assert tasks["exe"].targets == [f"{CACHE[platform]}/engines/{C64[:16]}/llamafile-0.10.5{ending}"]


@pytest.mark.parametrize("platform", PLACES)
def test_the_embedded_engine_needs_no_program(platform: str) -> None:
    """R13: the demo is served by this very Python, without a download, on every platform."""
    tasks = tasks_on(platform, "serve:demo")
    assert tasks["verify:demo"].task_dep == ["chmod:demo"]
    assert tasks["exe"].actions == []
    words = command_on(platform, "serve:demo")
    assert words[:4] == [sys.executable, "-m", "tasks.engine.embedded", "--server"]


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_the_command_on_posix(platform: str) -> None:
    """R8, R11, R13: /bin/sh reads an APE, whose path is absolute."""
    file = f"{CACHE[platform]}/models/{A64[:16]}/big.llamafile"
    assert command_on(platform, "serve") == [
        *(
            "/bin/sh",
            file,
            "--server",
            "--nobrowser",
            "--log-disable",
            "--host",
            "127.0.0.1",
            "--port",
            "8080",
        ),
        *("--ctx-size", "0", "--n-predict", "1024"),
    ]
    own = command_on(platform, "serve", "--llamafile", "Mine/own model.llamafile")
    assert own[:2] == ["/bin/sh", f"{PLACES[platform].cwd}/Mine/own model.llamafile"]


def test_the_command_on_windows() -> None:
    """R9, R11, R13: the .exe itself is started, with -m and the model."""
    exe = rf"{CACHE['win32']}/engines/{C64[:16]}/llamafile-0.10.5.exe"
    file = f"{CACHE['win32']}/models/{A64[:16]}/big.llamafile"
    assert command_on("win32", "serve", "--port", "0") == [
        *(exe, "--server", "-m", file, "--host", "127.0.0.1", "--port", "0"),
        *("--ctx-size", "0", "--n-predict", "1024"),
    ]
    own = command_on("win32", "serve", "--llamafile", r"Mine\own model.llamafile")
    assert own[:4] == [exe, "--server", "-m", r"C:\Users\me\Mine\own model.llamafile"]
    other = command_on("win32", "serve", "--llamafile", r"D:\own.llamafile")
    assert other[3] == r"D:\own.llamafile"


@pytest.mark.parametrize(
    ("model", "why"),
    [
        pytest.param("big", "over 4 GiB, the limit of Windows for a program", id="over 4 GiB"),
        pytest.param("small", "not an .exe, so Windows cannot start it", id="below"),
    ],
)
def test_windows_cannot_start_a_llamafile(model: str, why: str) -> None:
    """R9: --engine self is refused on Windows with the reason and the way out."""
    with pytest.raises(UsageError, match=why) as caught:
        recipe_on("win32", "serve", "--model", model, "--engine", "self")
    assert caught.value.fix == "--engine llamafile"


@pytest.mark.parametrize("platform", PLACES)
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        pytest.param(["--force-gpu"], ["-ngl", "9999"], id="--force-gpu"),
        pytest.param(["--ngl", "0", "--gpu", "disable"], ["-ngl", "0", "--gpu", "disable"], id="none"),
        pytest.param(["--gpu", "auto"], ["--gpu", "auto"], id="auto"),
    ],
)
def test_gpu_options_on_every_platform(platform: str, words: list[str], expected: list[str]) -> None:
    """R24: the same options, the same flags."""
    found = command_on(platform, "serve", *words)
    assert found[found.index("1024") + 1 :] == expected


@pytest.mark.parametrize("platform", PLACES)
def test_only_what_is_reached(platform: str) -> None:
    """R36: a step that nobody asks for has no task; `download` never means the whole catalogue."""
    tasks = tasks_on(platform, "download")
    assert [name for name in tasks if ":" in name] == ["download:big"]
    assert tasks["download"].task_dep == ["download:big"]
    both = tasks_on(platform, "verify", "--model", "big", "--model", "DATA")
    assert both["verify"].task_dep == ["verify:big", "verify:data"]
    assert not [name for name in both if name.startswith("serve:")]


@pytest.mark.parametrize("platform", PLACES)
def test_no_task_depends_on_one_that_is_not_there(platform: str) -> None:
    """R36: doit's own check would be a message nobody can act on."""
    for argv in ([], ["serve"], ["exe"], ["download:data", "verify:big"], ["info", "serve:data"]):
        tasks = tasks_on(platform, *argv)
        wanted = {dep for task in tasks.values() for dep in task.task_dep}
        assert wanted <= set(tasks), argv


def test_a_plan_says_what_windows_does_otherwise(capsys: pytest.CaptureFixture[str]) -> None:
    """Issue 5.5, R9: over 4 GiB, before they have come; a smaller one is run in the same way, unsaid."""
    for model, said in (("big", True), ("small", False)):
        context = recipe_on("win32", "plan", "--model", model)
        with contextlib.suppress(SystemExit):  # no such disk
            plan_verb.run(context, context.command_line.tasks[0])
        assert ("more than Windows starts: llamafile.exe runs it with -m" in capsys.readouterr().out) is said


@pytest.mark.parametrize(
    ("line", "reached"),
    [
        pytest.param("", "", id="nothing asked"),
        pytest.param("catalogue", "", id="the catalogue alone"),
        pytest.param("exe", "", id="the engine alone"),
        pytest.param("download", "download", id="the first link"),
        pytest.param("chmod:small", "download chmod", id="needs what comes before"),
        pytest.param("serve", "download chmod verify serve", id="needs everything"),
        pytest.param("chmod download", "download chmod", id="two links"),
        pytest.param("start", "download chmod verify start", id="start: everything but serve"),
        pytest.param("with -- x", "download chmod verify with", id="with"),
        pytest.param("chat x", "download chmod verify chat", id="chat"),
        pytest.param("bench", "download chmod verify bench", id="bench"),
        pytest.param("start:small serve:data", "download chmod verify serve start", id="start and serve"),
        pytest.param("stop status logs", "", id="those that look at what runs need no files"),
    ],
)
def test_tasks_that_have_to_exist(line: str, reached: str) -> None:
    """Only what the command line can reach is made, in the order of the chain."""
    assert models_of(tasks_on("linux", *line.split())) == reached.split()


AGAIN = ("restart", "reload", "roll")


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        pytest.param("list --all", ["serve"], id="one line for each model"),
        pytest.param("list --all exe verify", ["verify"], id="the verb that is named"),
        pytest.param(
            "list --all serve:small",
            ["download", "chmod", "verify", "serve", "start", "with", "chat", "bench", "check", *AGAIN],
            id="what one model depends on",
        ),
        pytest.param(
            "info serve:small",
            ["download", "chmod", "verify", "serve", "start", "with", "chat", "bench", "check", *AGAIN],
            id="info",
        ),
    ],
)
def test_models_that_doit_lists(line: str, shown: list[str]) -> None:
    """`doit list` has one line for each model, not one for each step."""
    assert models_of(tasks_on("linux", *line.split())) == shown


def models_of(tasks: dict[str, Task]) -> list[str]:
    """The verbs that have tasks of models."""
    named = (name.partition(":")[0] for name in tasks if ":" in name and name[0] != "_")
    return list(dict.fromkeys(named))
