"""What a command of `doit with` is told: tables of commands and answers."""

from __future__ import annotations

import pytest
from tasks.server.client_environment import agent_of, client_variables, context_of_props

pytestmark = pytest.mark.once

COMMANDS: tuple[tuple[list[str], str], ...] = (
    (["claude"], "claude"),
    (["/usr/local/bin/claude", "-p", "hi"], "claude"),
    (["C:\\bin\\Codex.EXE"], "codex"),
    (["npx", "@anthropic-ai/claude-code@latest"], "claude-code"),
    (["npx", "--yes", "@openai/codex"], "codex"),
    (["uvx", "aider-chat"], "aider-chat"),
    (["pipx", "run", "aider-chat"], "aider-chat"),
    (["pytest", "claude"], ""),
    (["sh", "-c", "claude"], ""),
    (["npx", "http-server"], ""),
    ([], ""),
)


@pytest.mark.parametrize(("words", "agent"), COMMANDS)
def test_agents(words: list[str], agent: str) -> None:
    """Issue 15.8: by the program, or by the package of a runner."""
    assert agent_of(words) == agent


ANSWERS = (
    (b'{"default_generation_settings": {"n_ctx": 4096}}', 4096),
    (b'{"default_generation_settings": {"n_ctx": "4096"}}', None),
    (b'{"default_generation_settings": {"n_ctx": -1}}', None),
    (b'{"default_generation_settings": null}', None),
    (b"[]", None),
    (b"<html>", None),
)


@pytest.mark.parametrize(("body", "context"), ANSWERS)
def test_context(body: bytes, context: int | None) -> None:
    """Issue 15.8: what a server says of its context, if it does."""
    assert context_of_props(body) == context


def test_a_context_that_is_not_known() -> None:
    """Issue 15.8: Claude Code is told nothing then."""
    found = [client_variables("http://h:1", "", "m", context) for context in (None, 8192)]
    name = "CLAUDE_CODE_AUTO_COMPACT_WINDOW"
    assert [variables.get(name) for variables in found] == [None, "8192"]
