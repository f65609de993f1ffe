"""The options that isolate a server, by engine and version."""

from __future__ import annotations

import pytest
from tasks.catalogue.settings import ServeSettings
from tasks.engine.isolation import is_open_to_pages, isolation_options, listed_names
from tasks.errors import ServerError

pytestmark = pytest.mark.once

LOCAL = "--cors-origins localhost"


@pytest.mark.parametrize(
    ("engine", "version", "options", "is_open"),
    [
        ("llama-server", "11669", f"--offline {LOCAL} --alias m", False),
        ("llama-server", "10009", "--offline --alias m", True),
        ("llama-server", "4000", "--alias m", True),
        ("llama-server", "", "", True),
        ("embedded", "2026.10.11549", f"{LOCAL} --alias m", False),
        ("embedded", "", f"{LOCAL} --alias m", False),
        ("self", "0.6.2", "", True),
        ("self", "0.8.3", "", True),
        ("self", "0.8.6", "--alias m", True),
        ("self", "0.9.3", "--alias m", True),
        ("self", "0.10", "--offline --alias m", True),
        ("llamafile", "0.10.5", "--offline --alias m", True),
        ("self", None, "", True),
    ],
)
def test_options(engine: str, version: str | None, options: str, is_open: bool) -> None:
    """Issue 15.1, 15.2, 15.4: no option that a version may not know, as that would end it."""
    settings = ServeSettings()
    assert isolation_options(engine, version, settings, "m") == options.split()
    assert "--alias" not in isolation_options(engine, version, settings, "")
    assert is_open_to_pages(engine, version, settings, "") is is_open
    assert not is_open_to_pages(engine, version, settings, "a-key")
    assert not is_open_to_pages(engine, version, ServeSettings(cors="*"), "")


@pytest.mark.parametrize(
    ("model_id", "aliases", "names"),
    [
        ("m", [], "m"),
        ("m", ["m"], "m"),
        ("phi", ["phi3", "phi-3-mini"], "phi,phi-3-mini,phi3"),
        ("phi3", ["phi", "phi-3", "phi3.5"], "phi3,phi3.5"),  # the first one would be the id
        ("m-7b.gguf", ["m", "M-7B", "mistral"], "m-7b.gguf,mistral"),
    ],
)
def test_aliases(model_id: str, aliases: list[str], names: str) -> None:
    """Issue 15.4: a version that knows several names gets them; the id stays the one of the catalogue."""
    assert ",".join(listed_names(model_id, aliases)) == names
    for engine, version, expected in (
        ("llama-server", "8783", names),
        ("llama-server", "8782", model_id),
        ("embedded", "", names),
        ("llamafile", "0.10.5", model_id),
    ):
        words = isolation_options(engine, version, ServeSettings(), model_id, aliases)
        assert words[-2:] == ["--alias", expected], engine


def test_cors_of_the_catalogue() -> None:
    """Issue 15.2: `cors:` says otherwise; what cannot be done is an error."""
    pages = ServeSettings(cors="https://a.example,https://b.example")
    words = isolation_options("embedded", "", pages, "")
    assert words == ["--cors-origins", "https://a.example,https://b.example"]
    assert isolation_options("self", "0.9.3", ServeSettings(cors="*"), "") == []
    with pytest.raises(
        ServerError, match=r"llamafile 0\.9\.3 cannot restrict which web pages use the server"
    ):
        isolation_options("self", "0.9.3", pages, "")
