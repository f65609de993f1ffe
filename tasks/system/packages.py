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
    """Return the absolute path of a program on PATH; empty if there is none."""
    from os.path import abspath
    from shutil import which

    found = which(name)
    if found is None:
        return ""
    return abspath(found)
