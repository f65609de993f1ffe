"""The logins of docker and podman, also those that a credential helper holds.

Source: docker's docs, "docker login", credential helpers: the program
`docker-credential-NAME get` reads the host and prints JSON.
"""

from __future__ import annotations

import logging
import os
import shutil

from tasks.network import registry
from tasks.system import own_files, processes

_MOST_CONFIG = 1024**2  # bytes of docker's config.json
_LIMIT_S = 30.0  # a helper may ask the user to unlock a keychain
_log = logging.getLogger("recipe")


def login(host: str) -> str:
    """Return `Basic …` for a host from the first config that exists; "" if none."""
    home = os.path.expanduser("~")
    for path in registry.config_paths(os.environ, home):
        content = own_files.read_most(path, _MOST_CONFIG)
        if content is not None:
            return _held(content, host) or registry.parse_login(content, host)
    return ""


def _held(content: bytes, host: str) -> str:
    """Return the login that a credential helper holds; "" if none."""
    name, key = registry.parse_helper(content, host)
    if not name:
        return ""
    program = shutil.which(f"docker-credential-{name}")
    if not program:
        text = "%s: docker-credential-%s, which docker's config names, is not on PATH"
        _log.warning(text, host, name)
        return ""
    try:
        answer = processes.ask([program, "get"], key.encode(), _LIMIT_S)
    except OSError as error:
        text = "%s: docker-credential-%s cannot be started: %s"
        _log.warning(text, host, name, error.strerror)
        return ""
    return registry.parse_helper_answer(answer)
