"""A small valid catalogue, of which tests change a line."""

from __future__ import annotations

from tasks.catalogue.schema import compile_catalogue
from tasks.catalogue.types import Catalogue

A64 = "a" * 64
B64 = "b" * 64
WHERE = "m.yaml"
TINY_URL = "https://example.org/tiny.llamafile"
BIG_URL = "https://example.org/big.gguf"

# line numbers matter to the tests of messages
VALID = f"""\
version: 1
default: tiny
defaults: {{ctx_size: 4096}}
engines:
  llamafile:
    title: llamafile
    version: "0.10.5"
    url: https://example.org/llamafile-0.10.5
    license: Apache-2.0
models:
  tiny:
    title: Tiny 1B
    aliases: [small]
    url: {TINY_URL}
    sha256: {A64}
    size: 1000
    license: MIT
    engine_version: "0.8.6"
    serve: {{ctx_size: 0}}
  big:
    title: Big 9B
    url: {BIG_URL}
    mirrors: [https://example.net/big.gguf]
    license: MIT
"""


def edited(old: str = "", new: str = "", text: str = VALID) -> str:
    """Return `text` with its first `old` replaced."""
    assert old in text
    return text.replace(old, new, 1)


def catalogue(text: str = VALID) -> Catalogue:
    """Return the catalogue of a text."""
    return Catalogue(compile_catalogue(text, WHERE), WHERE)
