"""The variables with which clients and coding agents find a server. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

from tasks.network.answers import parse_json

# Tokens of context that coding agents need. Source: receptron/mulmoterminal#692
AGENT_CONTEXT = 32_768
# commands and packages of agents that use a server by these variables or their settings
_AGENTS = (
    *("aider", "aider-chat", "claude", "claude-code", "cline", "codex", "crush"),
    *("goose", "opencode", "opencode-ai", "openhands", "qwen", "qwen-code"),
)
_RUNNERS = ("bunx", "npx", "pipx", "pnpm", "uv", "uvx")
_MAX_CONTEXT = 1 << 31


def client_variables(
    url: str, key: str, model: str, context: int | None
) -> dict[str, str]:
    """Return the variables that name a server to its clients.

    Source: the documentation of the clients, and `ollama launch` (cmd/launch/claude.go)
    for Claude Code, which sends ANTHROPIC_API_KEY if it is not empty.

    Args:
        url: of the server, without /v1.
        context: tokens; None if unknown.
    """
    base = f"{url}/v1"
    token = key or "none"
    variables = {
        "OPENAI_BASE_URL": base,
        "OPENAI_API_BASE": base,
        "OPENAI_API_BASE_URL": base,
        "OPENAI_API_KEY": token,
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_AUTH_TOKEN": token,
        "ANTHROPIC_API_KEY": "",
        "ANTHROPIC_DEFAULT_OPUS_MODEL": model,
        "ANTHROPIC_DEFAULT_SONNET_MODEL": model,
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": model,
        "CLAUDE_CODE_SUBAGENT_MODEL": model,
        "LLAMAFILE_URL": url,
        "LLAMAFILE_MODEL": model,
    }
    if context:
        variables["CLAUDE_CODE_AUTO_COMPACT_WINDOW"] = str(context)
    return variables


def agent_of(words: Sequence[str]) -> str:
    """Return the name of the coding agent that a command starts, or nothing."""
    names = [_program(word) for word in words]
    if names and names[0] in _RUNNERS:  # such as `npx --yes @openai/codex@latest`
        names = [name for name in names[1:4] if name not in ("run", "dlx", "tool")]
    else:
        names = names[:1]
    return next((name for name in names if name in _AGENTS), "")


def _program(word: str) -> str:
    """Return the name of a program or package, without folder, suffix and version."""
    name = posixpath.basename(word.replace("\\", "/")).lower()
    return name.partition("@")[0].removesuffix(".exe").removesuffix(".cmd")


def context_of_props(body: bytes) -> int | None:
    """Return the tokens of context of one request, from an answer of /props."""
    try:
        count = parse_json(body)["default_generation_settings"]["n_ctx"]
    except (ValueError, KeyError, TypeError):
        return None
    if type(count) is int and 0 < count < _MAX_CONTEXT:
        return count
    return None
