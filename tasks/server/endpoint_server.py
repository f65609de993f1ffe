"""Specify the server of an endpoint, once the files of its models are here."""

from __future__ import annotations

from tasks.catalogue.endpoints import ResolvedEndpoint
from tasks.catalogue.environment import Environment
from tasks.catalogue.types import Catalogue
from tasks.engine.command import Launch
from tasks.engine.file_format import native_program
from tasks.engine.launch_spec import LaunchSpec, given_files
from tasks.engine.router_launch import ENGINE, Router
from tasks.engine.router_preset import render
from tasks.engine.version import engine_version
from tasks.planning import endpoint_plan
from tasks.server import preset_file
from tasks.system import memory


def specify(
    environment: Environment, catalogue: Catalogue, endpoint: ResolvedEndpoint, key: str
) -> LaunchSpec:
    """Return the specification of an endpoint's server; write its preset file.

    Args:
        key: API key, or empty.

    Raises:
        UsageError: the preset file cannot express an option.
        ServerError: llama-server is not here, or the file cannot be written.
    """
    endpoint_plan.check_engine(endpoint)
    program = endpoint.program
    assert program  # checked
    cache = environment.cache
    members = preset_file.members_of(environment, catalogue, endpoint)
    path = preset_file.write(cache, catalogue, endpoint.name, render(members))
    plan = endpoint_plan.plan_here(cache, endpoint, memory.total())
    chats = [one.name for one in endpoint.members if one.model.kind == "chat"]
    # with --force, models that do not fit are tried
    models_max = plan.models_max or max(1, len(endpoint.keep))
    native = bool(native_program(program.target))
    return LaunchSpec(
        name=endpoint.name,
        launch=Launch(
            ENGINE,
            environment.platform,
            "",
            program.target,
            kind=endpoint.default.model.kind,
            native=native,
        ),
        files=given_files(endpoint),
        settings=endpoint.settings,
        version=engine_version(cache, catalogue, endpoint.default),
        key=key,
        probe=endpoint.probe,
        drain=endpoint.drain,
        model_id=endpoint.default.name,
        router=Router(path, models_max, members, tuple(chats)),
    )
