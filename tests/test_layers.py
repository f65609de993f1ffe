"""Imports point down only, core is pure, and modules keep their size (docs/README.md)."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / "tasks").rglob("*.py"))
IMPURE = {
    *("os", "sys", "time", "socket", "subprocess", "shutil", "signal", "threading", "random", "tempfile"),
    *("requests", "urllib3", "doit", "psutil", "filelock", "rich", "platformdirs", "logging", "glob", "io"),
}  # fmt: skip


def imports(path: Path) -> Iterator[str]:
    """Dotted names a module imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def prefixes(names: Iterable[str]) -> Iterator[str]:
    """Each dotted name and what it is in: `from tasks.keeper import x` imports tasks.keeper."""
    for name in names:
        parts = name.split(".")
        yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1))


def layer(name: str) -> int:
    """Rank of a dotted name of ours: a module imports its own rank (below `verbs`) or a lower one."""
    parts = name.split(".")
    if parts[:2] == ["tasks", "core"]:
        return 0
    if parts[:2] == ["tasks", "effects"]:
        return 1
    if parts[1:2] and parts[1] in ("recipe", "glue"):
        return 2
    return 4 if parts[1:2] == ["graph"] else 3


def dotted(path: Path) -> str:
    """`tasks.core.urls` for its file."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("path", FILES, ids=dotted)
def test_imports_point_down(path: Path) -> None:
    """A layer knows itself and what is below it."""
    mine = layer(dotted(path))
    assert not [n for n in imports(path) if n.startswith("tasks.") and layer(n) > mine]


@pytest.mark.parametrize("path", [p for p in FILES if p.parent.name == "core"], ids=dotted)
def test_core_is_pure(path: Path) -> None:
    """No clock, no disk, no network, no process, no doit in core."""
    assert not {n for n in imports(path) if n.split(".")[0] in IMPURE}


def test_the_embedded_engine_stands_alone() -> None:
    """It is started as any engine is: it imports nothing of ours, and nothing of ours imports it."""
    assert not [n for n in imports(ROOT / "tasks" / "embedded.py") if n.startswith("tasks")]
    assert not [p for p in FILES if "tasks.embedded" in set(prefixes(imports(p)))]


def test_nothing_imports_the_keeper() -> None:
    """It is a process of its own, started as an engine is: what runs in it runs nowhere else."""
    assert not [p for p in FILES if {"tasks.keeper"} & set(prefixes(imports(p)))]


@pytest.mark.parametrize("module", ["requests", "rich", "yaml", "pydantic", "psutil", "filelock", "logging"])
def test_costly_imports_are_made_where_they_are_used(module: str) -> None:
    """At the top of a module only where everything in it needs the package."""
    allowed = {"requests": {"http"}, "yaml": {"schema", "yaml_limits"}, "pydantic": {"schema"}}.get(
        module, set()
    )
    lazy = {
        "download",
        "source",
        "events",
        "progress",
        "locks",
        "server",
        "process",
        "runs",
    }  # imported in functions
    for path in FILES:
        tree = ast.parse(path.read_text("utf-8"))
        top = [n for n in tree.body if isinstance(n, (ast.Import, ast.ImportFrom))]
        names = {a.name for n in top if isinstance(n, ast.Import) for a in n.names}
        names |= {n.module or "" for n in top if isinstance(n, ast.ImportFrom)}
        if module in {n.split(".")[0] for n in names}:
            assert path.stem in (lazy if module == "logging" else allowed), path


@pytest.mark.parametrize("path", [ROOT / "dodo.py", *FILES], ids=lambda p: str(p.name))
def test_sizes_stay_small(path: Path) -> None:
    """Modules up to 400 lines, functions up to 60, dodo.py up to 30."""
    text = path.read_text("utf-8")
    assert text.count("\n") <= (30 if path.name == "dodo.py" else 400)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, f"{path.name}:{node.name}"


def test_all_of_tasks_stays_below_13000_lines() -> None:
    """Before it grows past that: what can be deleted, what does a library do?"""
    assert sum(p.read_text("utf-8").count("\n") for p in FILES) < 13000
