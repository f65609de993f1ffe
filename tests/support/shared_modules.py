"""Modules of the recipe that all runs in this process share: their import takes longer than most verbs.

They are imported once, from the copy that every project links to (`mould` in project.py). A run gets them
if the files of its project are those of that copy, and with its project's ROOT. A test whose project has
another file imports all of them again.

A process that forks (fork_server.py) imports all of them before, from the same copy.

What a module keeps in a `functools.cache` or in a dict, list or set of its own is forgotten after each run;
it may keep nothing elsewhere (test_in_process.py).
"""

from __future__ import annotations

import compileall
import functools
import importlib.util
import inspect
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

REPO = Path(__file__).resolve().parent.parent.parent
PACKAGE = "tasks"
given: list[Path] = []  # the copy that another process has made
_shared: dict[str, ModuleType] = {}
_caches: list[Any] = []  # functions of these modules that have a functools.cache
_containers: list[tuple[Any, Any]] = []  # of these modules, with their first content
_compiled: dict[tuple[bytes, bytes | None], str] = {}  # catalogues, by their text and that of the lock

COMPILES = "tasks.catalogue.load"
MOST_COMPILED = 50

PROGRAMS = ("embedded", "supervisor")  # started as processes, never imported


@functools.cache
def mould() -> Path:
    """Return a compiled copy of tasks/ and demo/, to which all projects of this process link."""
    if given:
        return given[0]
    place = Path(tempfile.mkdtemp(prefix="recipe-mould-"))
    place.chmod(0o755)  # tests run doit as another user
    for name in ("tasks", "demo"):
        shutil.copytree(REPO / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(REPO / "dodo.py", place)
    compileall.compile_dir(place / "tasks", quiet=1)
    compileall.compile_file(place / "dodo.py", quiet=1)
    return place


@contextmanager
def shared() -> Iterator[None]:
    """Let `import tasks` give a run the shared modules if its project has the same files."""
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        if finder.used:
            _keep()


def spare_doit_work() -> None:
    """Give doit what is the same in all runs, and takes as long as all else that it does."""
    import doit.loader
    import doit.plugin

    # doit looks for plugins in every installed package, several times a run
    doit.plugin.entry_points = functools.cache(doit.plugin.entry_points)
    for category in ("COMMAND", "LOADER", "BACKEND", "REPORTER"):
        doit.plugin.entry_points(group=f"doit.{category}")
    # doit parses dodo.py again for each verb to learn its line, which the compiled code knows
    doit.loader.inspect = SimpleNamespace(**{**vars(inspect), "getsourcelines": _source_lines})


def _source_lines(function: Any) -> tuple[list[str], int]:
    return [], inspect.unwrap(function).__code__.co_firstlineno


def find_shared() -> None:
    """Import all modules; from now on, `import tasks` gives them to a project that has the same files."""
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    sys.path.insert(0, str(mould()))
    for name, _ in _modules():
        if Path(name).stem not in PROGRAMS:
            importlib.import_module(".".join(Path(name).with_suffix("").parts).removesuffix(".__init__"))
    sys.path.pop(0)
    _keep()
    # for all that is forked; it imports modules while it runs
    vars(_shared[COMPILES])["_compile"]((REPO / "models.yaml").read_bytes(), "models.yaml", None)
    _keep()
    for name in _shared:
        del sys.modules[name]
    finder.used = False


def _keep() -> None:
    """Take the modules that the run has used, and forget what they remember of it."""
    for name, module in list(sys.modules.items()):
        if name not in _shared and name.partition(".")[0] == PACKAGE:
            _shared[name] = module
            if name == COMPILES:
                vars(module)["_compile"] = _remembering(vars(module)["_compile"])
    for function in _caches:
        function.cache_clear()
    for container, first in _containers:
        if container != first:
            container.clear()
            if isinstance(container, list):
                container.extend(first)
            else:
                container.update(first)


def _remembering(compile_catalogue: Any) -> Any:
    """Compile each catalogue once: hundreds of projects have that of the recipe, each with an empty cache."""

    def remembered(content: bytes, path: str, locked: bytes | None) -> Any:
        key = content, locked
        if key not in _compiled:
            plain = compile_catalogue(content, path, locked)  # the path is for errors, which are not kept
            if len(_compiled) == MOST_COMPILED:
                _compiled.clear()
            _compiled[key] = json.dumps(plain)
            return plain
        return json.loads(_compiled[key])

    return remembered


def _note(module: ModuleType) -> None:
    """Note what a new module can remember with."""
    for value in vars(module).values():
        if hasattr(value, "cache_clear"):
            _caches.append(value)
        elif isinstance(value, (dict, list, set)) and value is not vars(module)["__builtins__"]:
            _containers.append((value, value.copy()))


class _Finder(MetaPathFinder):
    """Finds the package `tasks` where Python does, and replaces it by the shared one."""

    def __init__(self) -> None:
        self.used = False

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if self.used and name.startswith(f"{PACKAGE}."):
            return _noting(PathFinder.find_spec(name, path))
        if name != PACKAGE:
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is None or spec.origin is None:
            return None
        root = Path(spec.origin).parent.parent
        if not has_the_same_files(root):
            return None
        self.used = True
        return ModuleSpec(name, _Loader(root.resolve()))


class _Loader(Loader):
    def __init__(self, root: Path) -> None:
        self._root = root

    def exec_module(self, module: ModuleType) -> None:
        """Put the shared modules, with this root, in the place of the new one."""
        if not _shared:
            _shared[PACKAGE] = _first()
        for one in _shared.values():
            if "ROOT" in vars(one):
                vars(one)["ROOT"] = self._root
        sys.modules.update(_shared)


def _noting(spec: ModuleSpec | None) -> ModuleSpec | None:
    """Return the same, with a loader that notes the module as soon as it is there."""
    if spec and spec.loader:
        execute = spec.loader.exec_module

        def execute_and_note(module: ModuleType) -> None:
            execute(module)
            _note(module)

        spec.loader.exec_module = execute_and_note  # type: ignore[method-assign]
    return spec


def _first() -> ModuleType:
    path = mould() / PACKAGE / "__init__.py"
    spec = importlib.util.spec_from_file_location(
        PACKAGE, path, submodule_search_locations=[str(path.parent)]
    )
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def has_the_same_files(root: Path) -> bool:
    """Return whether a project's modules are links to those of the mould, or copies of the same age."""
    linked = tuple(name for name in _folders() if _is_linked(root, name))
    try:
        return all(_identity(root, name) == mine for name, mine in _modules() if not name.startswith(linked))
    except OSError:
        return False


@functools.cache
def _folders() -> list[str]:
    return [f"{PACKAGE}/{entry.name}/" for entry in os.scandir(mould() / PACKAGE) if entry.is_dir()]


def _is_linked(root: Path, folder: str) -> bool:
    path = os.path.join(root, folder[:-1])
    return os.path.islink(path) and os.readlink(path) == os.path.join(mould(), folder[:-1])


@functools.cache
def _modules() -> list[tuple[str, tuple[int, int]]]:
    names = [path.relative_to(mould()).as_posix() for path in (mould() / PACKAGE).rglob("*.py")]
    return [(name, _identity(mould(), name)) for name in names]


def _identity(folder: Path, name: str) -> tuple[int, int]:
    found = os.stat(os.path.join(folder, name))
    return found.st_mtime_ns, found.st_size
