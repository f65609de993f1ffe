"""Imports point down only, what is called pure is pure, and packages keep their size (docs/README.md)."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

pytestmark = pytest.mark.once
ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / "tasks").rglob("*.py"))

# from the ground up: a module imports its own package and what stands before it here
RANKS = (
    *("errors", "references", "urls", "options", "console", "positional", "command_line", "system"),
    *("network", "catalogue"),
    *("doit_adapter", "doit_reporter", "cache", "transfer", "planning", "deploy", "upstream", "engine"),
    "publish",
    *("server", "doctor", "machine", "context", "upgrade", "verbs", "endpoint_tasks", "graph"),
)

# a module whose docstring says "Pure" imports none of these, and none of ours that does
IMPURE = {
    *("os", "sys", "time", "socket", "subprocess", "shutil", "signal", "threading"),
    *("random", "tempfile", "requests", "urllib3", "doit", "psutil", "filelock", "rich"),
    *("platformdirs", "logging", "glob", "io", "pathlib", "ctypes", "http", "secrets"),
}

# loaded by a `doit download:M` that has nothing to do: costly packages are imported in functions
WARM = {
    *("graph", "context", "doit_adapter", "doit_reporter", "command_line", "positional", "errors", "urls"),
    *(
        "catalogue.types",
        "catalogue.serve_options",
        "catalogue.load",
        "catalogue.resolve",
        "catalogue.artifact",
        "catalogue.file_specs",
    ),
    *("catalogue.environment", "catalogue.settings", "catalogue.model_files", "cache.stamps", "cache.roots"),
    *("system.files", "console.formatting", "console.log_format", "network.huggingface", "verbs.download"),
    *("transfer.ensure", "transfer.policy", "planning.preflight", "system.packages"),
}
COSTLY = ("requests", "rich", "yaml", "pydantic", "psutil", "filelock", "logging")

# lines of a package, and why it may have so many
BUDGETS = {  # at 88 columns
    "console": (
        860,
        "text, styles, progress, two kinds of log lines, reasoning, two CI systems, the command that was "
        "typed, one renderer for all verbs that report, whose tables fit the terminal",
    ),
    "system": (
        1_780,
        "processes and files on three systems, no link of a cache followed, caches of several users, "
        "what is installed, memory of the machine and of its GPU, which GPU, systemd's notifications, "
        "a regular expression that ends in time",
    ),
    "network": (
        2_310,
        "HTTP with limits of time and bytes, every response's meaning (framing, codings, credentials, "
        "proxies), retries, the Hub's environment, which is checked, tokens of registries",
    ),
    "catalogue": (
        6_790,
        "types and constraints, kinds, companions and sampling, GGUF headers, the memory of a model, "
        "variants, limits of YAML, schema with line numbers, semantic checks, lock file, editing, "
        "resolving, the choice between four engines, what to name in their place, and of one screen, "
        "endpoints, releases of llama.cpp, checks, what is deployed",
    ),
    "cache": (
        1_790,
        "stamps, also where none can be written, inventory, audit, prune, its report, bill of materials, "
        "the manifest of an unpacked archive",
    ),
    "transfer": (
        4_800,
        "the transfer engine: connections, resume after any crash, hashing while it arrives, "
        "archives that are hostile, unpacked and compared",
    ),
    "planning": (
        1_300,
        "the estimates, what of a model is here, what cannot work, the question before a large download, "
        "which models of an endpoint fit together",
    ),
    "deploy": (1_780, "eight kinds of files: values in, text out; templates are in the modules"),
    "upstream": (1_430, "the Hub, GitHub, registries, resolving models.lock, reading the head of a GGUF"),
    "publish": (1_410, "two formats, what a registry answers, uploads in pieces that continue, logins"),
    "engine": (
        3_560,
        "command lines of every version, which version can do what, every flag of llama.cpp's server "
        "for the embedded one (270 lines), how it finishes its answers, companions, known failures, "
        "what an engine may see, which web pages may ask it, the preset file of a router",
    ),
    "server": (
        5_530,
        "session and supervisor, records in two places, logs, readiness, the choice of one server of "
        "several, also by a file's path, stopping after the answers in progress, replicas and haproxy, "
        "a router's models, what clients are told, measuring tokens per second",
    ),
    "doctor": (560, "the checks and their probes, engines that are installed, what they cannot keep out"),
    "upgrade": (520, "which pins move, models that are served to try them, the report"),
    "verbs": (
        5_130,
        "twenty-two verbs and their help, most also as JSON; prune asks before it deletes, "
        "catalogue filters and says which filter leaves nothing, bench compares, "
        "add refuses what is no model or no name",
    ),
    "": (
        2_550,
        "errors, URLs, options, command line, words behind a verb, adapter to doit, "
        "context (also with a broken catalogue, and which server a command means), graph",
    ),
}


def dotted(path: Path) -> str:
    """`tasks.catalogue.types` for its file."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {dotted(path): path for path in FILES}


def imports(path: Path, *, top: bool = False) -> Iterator[str]:
    """Dotted names that a module imports: anywhere, or only while it is loaded."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in tree.body if top else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def ours(path: Path) -> frozenset[str]:
    """Our modules that a module imports, be it in a function."""
    return frozenset(module for name in imports(path) if (module := module_of(name)))


def module_of(name: str) -> str:
    """The module that a dotted name of ours is, or is in; nothing for another's."""
    parts = name.split(".")
    found = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
    return next((one for one in found if one in MODULES), "")


def rank(module: str) -> int:
    """How high a module stands."""
    first = module.split(".")[1:2]
    return RANKS.index(first[0]) if first else -1


@cache
def is_pure(path: Path) -> bool:
    """Whether a module's docstring says so; to parse each module takes a second in every worker."""
    doc = re.match(r'"""(.*?)"""', path.read_text("utf-8"), re.DOTALL)
    return doc is not None and re.search(r"\bPure\b", doc[1]) is not None


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    """A module knows its package and what stands below it."""
    above = {one for one in ours(MODULES[module]) if rank(one) > rank(module)}
    assert not above


def test_no_import_circle() -> None:
    """Also not through functions: a module can be read after those that it imports."""
    left = {module: set(ours(path)) - {module, "tasks"} for module, path in MODULES.items()}
    while free := {module for module, needs in left.items() if not needs}:
        left = {module: needs - free for module, needs in left.items() if module not in free}
    assert not left


def test_no_verb_imports_a_verb() -> None:
    """What two verbs need is below them."""
    verbs = {module: path for module, path in MODULES.items() if module.startswith("tasks.verbs.")}
    assert not {(verb, one) for verb, path in verbs.items() for one in ours(path) if one in verbs}


@pytest.mark.parametrize("module", [m for m, p in MODULES.items() if is_pure(p)])
def test_what_says_pure_is_pure(module: str) -> None:
    """No clock, no disk, no network, no process, no doit; and nothing of ours that is not pure itself."""
    path = MODULES[module]
    assert not {n for n in imports(path) if n.split(".")[0] in IMPURE}
    assert not {one for one in ours(path) if one not in ("tasks", module) and not is_pure(MODULES[one])}


def test_no_module_is_imported_by_a_computed_name() -> None:
    """Readers, editors and mypy follow every import."""
    assert not [module for module, path in MODULES.items() if "import_module" in path.read_text("utf-8")]


@pytest.mark.parametrize("module", ["tasks.engine.embedded", "tasks.server.supervisor"])
def test_programs_of_their_own_are_not_imported(module: str) -> None:
    """They are started as processes: what runs in them runs nowhere else."""
    assert not [one for one, path in MODULES.items() if module in ours(path)]


def test_the_embedded_engine_stands_alone() -> None:
    """It is started as any engine is: it imports nothing of ours but its own, and they nothing else."""
    own = {f"tasks.engine.embedded{end}" for end in ("", "_flags", "_values", "_drain")}
    assert set().union(*(ours(MODULES[module]) for module in own)) <= {*own, "tasks"}


@pytest.mark.parametrize("module", sorted(f"tasks.{name}" for name in WARM))
def test_warm_modules_import_costly_packages_in_functions(module: str) -> None:
    """A run that has nothing to do does not pay for them."""
    assert not {n.split(".")[0] for n in imports(MODULES[module], top=True)} & set(COSTLY)


def loaded_by(*modules: str) -> set[str]:
    """Return modules and all that they import while they are loaded."""
    found: set[str] = set()
    left = list(modules)
    while left:
        module = left.pop()
        if module not in found:
            found.add(module)
            left += [one for name in imports(MODULES[module], top=True) if (one := module_of(name))]
    return found


def test_a_run_with_nothing_to_do_loads_no_reader_and_no_downloader() -> None:
    """Without bytecode, as in containers, Python compiles every module that a run loads."""
    loaded = loaded_by("tasks.graph", "tasks.verbs.download")
    assert not loaded & {"tasks.transfer.ensure", "tasks.catalogue.gguf", "tasks.catalogue.schema"}
    later = ("tasks.engine", "tasks.server", "tasks.upstream", "tasks.planning")
    assert not {one for one in loaded if one.startswith(later)}


@pytest.mark.parametrize("package", ["typing", "dataclasses", "ctypes", "psutil", "logging", "tempfile"])
def test_a_supervisor_starts_its_engine_before_it_loads_more(package: str) -> None:
    """Each server waits for the imports of its supervisor."""
    loaded = loaded_by("tasks.server.supervisor")
    names = {name for one in loaded for name in imports(MODULES[one], top=True)}
    assert package not in {name.split(".")[0] for name in names}


@pytest.mark.parametrize("path", [ROOT / "dodo.py", *FILES], ids=lambda p: str(p.relative_to(ROOT)))
def test_sizes_stay_small(path: Path) -> None:
    """Modules up to 400 lines, functions up to 60."""
    text = path.read_text("utf-8")
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, f"{path.name}:{node.name}"


@pytest.mark.parametrize("package", BUDGETS)
def test_packages_keep_their_budget(package: str) -> None:
    """Before one grows past it: what can be deleted, what does a library do?"""
    lines, reason = BUDGETS[package]
    assert sum(p.read_text("utf-8").count("\n") for p in of(package)) <= lines, reason


def of(package: str) -> Iterable[Path]:
    """The files of a package; of the top, those that are in none."""
    return [p for p in FILES if p.parent == ROOT / "tasks" / package]


if __name__ == "__main__":  # python -m tests.test_layers: how big the packages are
    for name, (most, _) in BUDGETS.items():
        total = sum(p.read_text("utf-8").count("\n") for p in of(name))
        sys.stdout.write(f"{name or 'top':12} {total:6} of {most}\n")
