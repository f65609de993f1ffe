"""Read the API key with which a server is started."""

from __future__ import annotations

import os

from tasks.catalogue.endpoints import Servable
from tasks.catalogue.settings import api_key_error
from tasks.engine.command import KEY_VARIABLE
from tasks.errors import UsageError


def key_of(resolved: Servable) -> str:
    """Return the API key of the command line, else of LLAMA_API_KEY.

    Raises:
        UsageError: the value is not a valid key.
    """
    key = resolved.key or os.environ.get(KEY_VARIABLE, "")
    if key and (problem := api_key_error(key)):
        raise UsageError(f"{KEY_VARIABLE}: {problem}")
    return key
