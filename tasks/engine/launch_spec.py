"""Specify a server before it is started: what one command line asks for. Pure."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import NamedTuple

from tasks.catalogue.artifact import Artifact
from tasks.catalogue.resolve import ResolvedModel
from tasks.catalogue.settings import ServeSettings
from tasks.engine.command import Launch, serve_command
from tasks.engine.server_record import KEY_VARIABLE
from tasks.system.process_id import MARK_VARIABLE


class LaunchSpec(NamedTuple):
    """One server, completely described but for its port and the paths of its files."""

    name: str  # of the model
    launch: Launch
    files: tuple[Artifact, ...]  # all that the engine consists of, or reads
    settings: ServeSettings
    version: str  # of the engine, or empty
    key: str = ""  # API key
    extra: tuple[str, ...] = ()  # arguments for the engine, passed unchanged
    probe: bool = False  # ready only after it has generated a token
    require_gpu: bool = False  # do not fall back to the CPU
    variant: str = ""  # of the model

    @property
    def engine_title(self) -> str:
        """Return the engine's program and version, for people."""
        program = "llamafile"
        if self.launch.engine == "embedded":
            program = "embedded"
        return f"{program} {self.version}".strip()

    @property
    def reads_key_file(self) -> bool:
        """Return whether the engine reads its key from a file, not a variable."""
        return bool(self.key) and self.launch.engine != "embedded"

    def argv(self, port: int, key_file: str) -> list[str]:
        """Return the engine's command line.

        Raises:
            ServerError: the engine does not support a setting.
        """
        return serve_command(
            self.launch,
            replace(self.settings, port=port),
            version=self.version,
            extra=self.extra,
            key_file=key_file,
        )

    def variables(self, mark: str) -> dict[str, str]:
        """Return the recipe's own variables for the engine's environment.

        Args:
            mark: identifies the engine's processes.
        """
        variables = {MARK_VARIABLE: mark}
        if self.key and not self.reads_key_file:
            variables[KEY_VARIABLE] = self.key
        return variables

    def record_spec(self, port: int | None) -> dict[str, str]:
        """Return what is served and how, by option; equal for equal servers.

        Args:
            port: the requested one; None where any will do.
        """
        settings = self.settings
        launch = self.launch
        others = (launch.exe, launch.mmproj)
        models = [file for file in self.files if file.target not in others]
        spec = {
            "model": ",".join(file.sha256 or file.target for file in models),
            "--engine": f"{launch.engine} {self.version}".strip(),
            "--mmproj": launch.mmproj,
            "--variant": self.variant,
            "--host": settings.host,
            "--port": port,
            "--ctx-size": settings.ctx_size,
            "--n-predict": settings.n_predict,
            "--ngl": settings.ngl,
            "--gpu": settings.gpu,
            "--threads": settings.threads,
            "--": shlex.join((*settings.args, *self.extra)),
            "--api-key": "given" if self.key else "",
        }
        return {
            name: str(value) for name, value in spec.items() if value not in (None, "")
        }


def given_files(resolved: ResolvedModel) -> tuple[Artifact, ...]:
    """Return every file that the engine consists of, or reads."""
    if resolved.exe:
        return (*resolved.files, resolved.exe)
    return resolved.files


def launch_spec(
    resolved: ResolvedModel, launch: Launch, *, version: str, key: str
) -> LaunchSpec:
    """Return the specification of a job's server."""
    return LaunchSpec(
        name=resolved.name,
        launch=launch,
        files=given_files(resolved),
        settings=resolved.settings,
        version=version,
        key=key,
        extra=resolved.engine_args,
        probe=resolved.probe,
        require_gpu=resolved.require_gpu,
        variant=resolved.variant,
    )
