"""Say how the server of an endpoint is started: llama-server as a router. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tasks.catalogue.settings import ServeSettings
from tasks.engine.command import Launch
from tasks.engine.router_preset import Member

ENGINE = "llama-server"
MODEL_KEY = "models."  # begins the keys of a record that describe one model
KEEP_KEY = "keep"
CHAT_KEY = "chat models"


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
        if settings.metrics:
            words.append("--metrics")
        return [*words, *isolated]

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
        for member in self.members:
            names = [f"alias {alias}" for alias in member.aliases]
            if member.idle is not None and not member.keep:
                names.append(f"idle {member.idle}")
            text = shlex.join(member.options)
            values[f"{MODEL_KEY}{member.name}"] = ", ".join([text, *names])
        return values


def recorded_names(values: dict[str, str] | Iterable[str]) -> list[str]:
    """Return the names of an endpoint's models from its record; empty for a model."""
    keys = (key for key in values if key.startswith(MODEL_KEY))
    return [key.removeprefix(MODEL_KEY) for key in keys]
