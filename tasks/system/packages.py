"""Which Python packages and which programs are installed."""

from __future__ import annotations


def package_version(name: str) -> str:
    """Return the version of an installed distribution; "" if there is none."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def has_package(name: str) -> bool:
    """Whether a top-level package can be found; it is not imported."""
    from importlib.util import find_spec

    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def find_program(name: str) -> str:
    """Return the absolute path of a program on PATH; empty if there is none.

    Windows also looks in the current directory, which anyone may have filled: what is
    found there does not count.
    """
    import os
    import shutil

    found = shutil.which(name)
    if found is None:
        return ""
    path = os.path.abspath(found)
    entries = filter(None, os.environ.get("PATH", "").split(os.pathsep))
    folders = {os.path.normcase(os.path.abspath(entry)) for entry in entries}
    if os.path.normcase(os.path.dirname(path)) not in folders:
        return ""
    return path
