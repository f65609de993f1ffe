"""What a word behind a verb means."""

from __future__ import annotations

import pytest
from tasks.positional import chat_options

NAMES = {"demo", "small"}
FILES = {"my.gguf", "/a/b.LLAMAFILE", "note.txt"}


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ([], {}),
        (["demo"], {"model": "demo"}),
        (["demo", "Hello"], {"model": "demo"}),
        (["small", "Hello"], {"model": "small"}),
        (["Demo", "Hello"], {}),
        (["demo?"], {}),
        (["demo Hello"], {}),
        (["Hello", "demo"], {}),
        (["my.gguf", "Hello"], {"llamafile": "my.gguf"}),
        (["/a/b.LLAMAFILE"], {"llamafile": "/a/b.LLAMAFILE"}),
        (["other.gguf", "?"], {}),
        (["note.txt", "?"], {}),
    ],
)
def test_the_model_of_a_question(words: list[str], options: dict[str, str]) -> None:
    """Issue 14.1: exactly a name, or a file that exists and is named as a model."""
    assert chat_options(words, NAMES, FILES.__contains__) == options
