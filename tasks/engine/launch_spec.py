"""Specify a server before it is started: what one command line asks for. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import NamedTuple

from tasks.catalogue.artifact import Artifact
from tasks.catalogue.endpoints import ResolvedEndpoint, Servable
from tasks.catalogue.engine_choice import alternatives
from tasks.catalogue.resolve import ResolvedModel
from tasks.catalogue.settings import ServeSettings
from tasks.engine.command import Launch, serve_command
from tasks.engine.isolation import isolation_options
from tasks.engine.router_launch import Router
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
    alternatives: str = ""  # other engines, for the error of one that fails
    model_id: str = ""  # the model's name in the API
    aliases: tuple[str, ...] = ()  # its other names there
    variant: str = ""  # of the model
    router: Router | None = None  # of an endpoint
    drain: int = 0  # most seconds for answers in progress at a stop

    @property
    def engine_title(self) -> str:
        """Return the engine's program and version, for people."""
        program = "llamafile"
        if self.launch.engine in ("embedded", "llama-server"):
            program = self.launch.engine
        return f"{program} {self.version}".strip()

    @property
    def probed_model(self) -> str:
        """Return the name of the model that answers a probe."""
        return self.model_id if self.router else self.name

    def argv(self, port: int, key_file: str) -> list[str]:
        """Return the engine's command line.

        Raises:
            ServerError: the engine does not support a setting.
        """
        if self.router:
            isolated = isolation_options(
                self.launch.engine, self.version, self.settings, ""
            )
            return self.router.argv(
                self.launch, self.settings, port, isolated, key_file
            )
        isolated = isolation_options(
            self.launch.engine, self.version, self.settings, self.model_id, self.aliases
        )
        return serve_command(
            self.launch,
            replace(self.settings, port=port),
            version=self.version,
            more=isolated,
            extra=self.extra,
            key_file=key_file,
        )

    def variables(self, mark: str) -> dict[str, str]:
        """Return the variables of models.yaml and the recipe's own.

        Args:
            mark: identifies the engine's processes.
        """
        variables = {**self.settings.env, MARK_VARIABLE: mark}
        if self.router and self.key:
            # the processes of the models listen on ports of their own
            variables[KEY_VARIABLE] = self.key
        return variables

    def record_spec(self, port: int | None) -> dict[str, str]:
        """Return what is served and how, by option; equal for equal servers.

        Args:
            port: the requested one; None where any will do.
        """
        settings = self.settings
        launch = self.launch
        if self.router:
            return self._endpoint_spec(self.router, port)
        others = (launch.exe, *(one.path for one in launch.companions))
        models = [
            file
            for file in self.files
            if file.target not in others and not file.unpacked
        ]
        spec = {
            "model": ",".join(file.sha256 or file.target for file in models),
            "--engine": f"{launch.engine} {self.version}".strip(),
            **_companions(launch),
            "--variant": self.variant,
            "--host": settings.host,
            "--port": port,
            "--ctx-size": settings.ctx_size,
            "--n-predict": settings.n_predict,
            "--ngl": settings.ngl,
            "--gpu": settings.gpu,
            "--threads": settings.threads,
            "--alias": self.model_id,
            "cors": settings.cors,
            "env": shlex.join(f"{name}={text}" for name, text in settings.env.items()),
            **_features(launch, settings),
            "--": shlex.join((*settings.args, *self.extra)),
            "--api-key": "given" if self.key else "",
        }
        return _given(spec)

    def _endpoint_spec(self, router: Router, port: int | None) -> dict[str, str]:
        settings = self.settings
        models = [
            file
            for file in self.files
            if file.target != self.launch.exe and not file.unpacked
        ]
        spec = {
            **router.record_values(file.sha256 or file.target for file in models),
            "--engine": f"{self.launch.engine} {self.version}".strip(),
            "--host": settings.host,
            "--port": port,
            "--alias": self.model_id,
            "cors": settings.cors,
            "env": shlex.join(f"{name}={text}" for name, text in settings.env.items()),
            "metrics": str(settings.metrics or "").lower(),
            "--api-key": "given" if self.key else "",
        }
        return _given(spec)


def _given(spec: Mapping[str, object]) -> dict[str, str]:
    """Return the values that are set, as text."""
    return {name: str(value) for name, value in spec.items() if value not in (None, "")}


def _companions(launch: Launch) -> dict[str, str]:
    """Return the paths of the companions, by their key; an adapter with its scale."""
    values: dict[str, str] = {"--mmproj": ""}
    for one in launch.companions:
        key = one.role
        text = one.path
        if one.role == "mmproj":
            key = "--mmproj"
        if one.scale is not None:
            text += f" (scale {one.scale:g})"
        values[key] = ", ".join(filter(None, [values.get(key), text]))
    return values


def _features(launch: Launch, settings: ServeSettings) -> dict[str, str]:
    """Return the kind and the settings that only models.yaml has, by their key."""
    values = {}
    if launch.kind != "chat":
        values["kind"] = launch.kind
    for key in ("parallel", "idle", "metrics", "reasoning", "pooling"):
        value = getattr(settings, key)
        if value is not None:
            values[key] = str(value).lower()
    if settings.sampling:
        given = settings.sampling.given()
        values["sampling"] = ", ".join(f"{key} {given[key]:g}" for key in given)
    return values


def given_files(resolved: Servable) -> tuple[Artifact, ...]:
    """Return every file that the engine consists of, or reads."""
    if isinstance(resolved, ResolvedEndpoint):
        every = (file for one in resolved.members for file in given_files(one))
        return tuple(dict.fromkeys(every))
    # of a release, the archive stands for all of its files
    program = resolved.exe or resolved.program
    return (*resolved.files, *filter(None, [program]))


def launch_spec(
    resolved: ResolvedModel,
    launch: Launch,
    *,
    version: str,
    key: str,
    installed: Collection[str] = (),
) -> LaunchSpec:
    """Return the specification of a job's server.

    Args:
        installed: engines that are on this machine.
    """
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
        model_id=resolved.model.id or resolved.name,
        aliases=(resolved.name, *resolved.model.aliases),
        alternatives=alternatives(resolved.engine, installed, is_gguf=resolved.is_gguf),
        variant=resolved.variant,
        drain=resolved.drain,
    )
