"""Say how the server of an endpoint is started: llama-server as a router. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from tasks.errors import UsageError, did_you_mean

if TYPE_CHECKING:  # a supervisor, which imports this, needs none of it
    from tasks.catalogue.settings import ServeSettings
    from tasks.engine.command import Launch
    from tasks.engine.router_preset import Member

ENGINE = "llama-server"
MODEL_KEY = "models."  # begins the keys of a record that describe one model
KEEP_KEY = "keep"
CHAT_KEY = "chat models"
ALIAS_KEY = "aliases"


class Router(NamedTuple):
    """The server of an endpoint, but for its address and its key."""

    preset: str  # path of the preset file
    models_max: int  # how many models may be loaded at once
    members: tuple[Member, ...]
    chats: tuple[str, ...] = ()  # names of the models that hold a conversation

    @property
    def keep(self) -> tuple[str, ...]:
        """The names of the models that stay loaded."""
        return tuple(member.name for member in self.members if member.keep)

    def argv(
        self,
        launch: Launch,
        settings: ServeSettings,
        port: int,
        isolated: Sequence[str],
        key_file: str,
    ) -> list[str]:
        """Return the command line.

        An option here overrides that of every section of the preset file, so that these
        are only those of the one server.

        Args:
            isolated: see `isolation.isolation_options`.
        """
        words = [*launch.program(), "--models-preset", self.preset]
        words += ["--models-max", str(self.models_max)]
        words += ["--host", settings.host, "--port", str(port)]
        if key_file:
            words += ["--api-key-file", key_file]
        # counts the requests of a model without keeping it in memory
        return [*words, "--metrics", *isolated]

    def record_values(self, digests: Iterable[str]) -> dict[str, str]:
        """Return what a server record says about the models.

        Args:
            digests: of all files, or their paths.
        """
        values = {
            "model": ",".join(digests),
            "--models-max": str(self.models_max),
            KEEP_KEY: ", ".join(self.keep),
            CHAT_KEY: ", ".join(self.chats),
        }
        names = [
            f"{alias}={member.name}"
            for member in self.members
            for alias in member.aliases
        ]
        values[ALIAS_KEY] = ", ".join(names)
        for member in self.members:
            text = shlex.join(member.options)
            if member.idle is not None and not member.keep:
                text += f", idle {member.idle}"
            values[f"{MODEL_KEY}{member.name}"] = text
        return values


def recorded_names(values: Iterable[str]) -> list[str]:
    """Return the names of an endpoint's models from its record; empty for a model."""
    keys = (key for key in values if key.startswith(MODEL_KEY))
    return [key.removeprefix(MODEL_KEY) for key in keys]


def recorded_chat(values: Mapping[str, str], server: str, word: str) -> str:
    """Return the model that `doit chat --as WORD` means, from a server record.

    Args:
        word: a name or an alias; empty for the first model that chats.

    Returns:
        The model's name; empty if the server has one model.

    Raises:
        UsageError: the server has one model, or none of that name that chats.
    """
    names = recorded_names(values)
    chats = [name for name in values.get(CHAT_KEY, "").split(", ") if name]
    if not names:
        if word:
            raise one_model_error(server)
        return ""
    pairs = (pair.split("=") for pair in values.get(ALIAS_KEY, "").split(", ") if pair)
    known = {alias.lower(): name for alias, name in pairs}
    known |= {name.lower(): name for name in names}
    chosen = known.get(word.lower(), "")
    if not word and chats:
        return chats[0]
    if chosen in chats:
        return chosen
    raise member_error(server, word, chosen, chats)


def recorded_context(values: Mapping[str, str]) -> int | None:
    """Return the context of an endpoint's default model, in tokens; None if unknown."""
    options = values.get(f"{MODEL_KEY}{values.get('--alias', '')}", "")
    sizes = re.findall(r"--ctx-size (\d+)", options)
    if not sizes:
        return None
    return int(sizes[-1]) or None


def one_model_error(server: str) -> UsageError:
    """Return the error for --as where there is no choice."""
    what = f"--as chooses a model of an endpoint, and {server} is one model"
    return UsageError(what, fix="remove --as")


def member_error(
    server: str, word: str, found: str, chats: Sequence[str]
) -> UsageError:
    """Return the error for a word that names none of the models that chat.

    Args:
        found: the model that it names; empty if it names none.
    """
    what = f"{server} has no model {word!r}"
    if found or not word:
        what = f"{found or server} does not chat"
    fix = did_you_mean(word, chats)
    if chats and not fix:
        fix = f"--as {chats[0]}"
    return UsageError(what, [("models that chat", ", ".join(chats) or "none")], fix=fix)
