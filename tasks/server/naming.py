"""Find which model or server a word of the command line names, on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterable

from tasks import positional
from tasks.catalogue.environment import Environment
from tasks.catalogue.model_files import own_name
from tasks.catalogue.types import Catalogue
from tasks.command_line import TaskRequest
from tasks.server import log_files, server_registry
from tasks.server.selection import Choice, parse_port


def chat_request(
    request: TaskRequest, catalogue: Catalogue, environment: Environment
) -> TaskRequest:
    """Take the model of `doit chat MODEL QUESTION` out of the question."""
    if request.models:
        return request
    words = request.extra[: len(request.extra) - request.after_dashes]
    if not words:
        return request
    running = server_registry.running(environment.cache)
    servers = (record.name for record in running)
    models = (*catalogue.names, *catalogue.names_and_aliases)
    names = {*models, *catalogue.endpoint_names, *servers}

    def is_file(word: str) -> bool:
        return os.path.isfile(environment.absolute(word, environment.cwd))

    named = positional.chat_options(words, names, is_file)
    if not named:
        return request
    options = {**request.options, **named}
    return request._replace(options=options, extra=request.extra[1:])


def choice_of(
    request: TaskRequest, catalogue: Catalogue, environment: Environment
) -> Choice:
    """Return which servers a task names: by model, by file, by port, or any.

    Raises:
        UsageError: a name is neither in the catalogue nor that of a server on record,
            or --port is not a port.
    """
    words = list(request.models)
    if path := request.options.get("llamafile"):
        words.append(environment.absolute(path, environment.cwd))
    if url := request.options.get("llamafile_url"):
        words.append(url)
    names = [server_name(word, catalogue, environment.cache) for word in words]
    port = parse_port(request.options.get("port"))
    return Choice(tuple(dict.fromkeys(names)), port, own_files(words, environment))


def server_name(word: str, catalogue: Catalogue, cache: str) -> str:
    """Return the name of the model or endpoint that a word means.

    Raises:
        UsageError: it is neither in the catalogue nor that of a server on record.
    """
    if positional.is_path(word):
        return own_name(word)
    known = {record.name for record, _ in server_registry.list_servers(cache)}
    if word in known or log_files.logs(cache, word) or not catalogue.names:
        return word
    return catalogue.endpoint_name(word) or catalogue.name(word)


def own_files(
    words: Iterable[str], environment: Environment
) -> tuple[tuple[str, str], ...]:
    """Return the name and the path of each word that is a path, not a URL."""
    return tuple(
        (own_name(word), environment.absolute(word, environment.cwd))
        for word in words
        if positional.is_path(word) and "://" not in word
    )
