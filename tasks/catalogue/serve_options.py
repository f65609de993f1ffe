"""The settings for serving a model, as models.yaml has them. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Annotated, Any, ClassVar

from tasks.catalogue.constraints import (
    CORS,
    GPUS,
    HOST,
    POOLINGS,
    PORT,
    REASONING,
    Constraint,
    EnvName,
    at_least,
    between,
    one_of,
)


class Strict:
    """Configuration that pydantic reads: no unknown keys, no type coercion.

    The types are dataclasses because pydantic and JSON Schema support them. They have
    no eq and no repr, because each generated method costs 0.5 ms a class in every run.
    Treat them as frozen.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "strict": True}


@dataclass(eq=False, repr=False)
class Sampling(Strict):
    """`sampling:`: how a token is chosen, unless a request says otherwise."""

    temperature: Annotated[float | None, between(0, 10, "0: the likeliest token")] = (
        None
    )
    top_k: Annotated[
        int | None, at_least(0, "choose among the K likeliest tokens, 0: all")
    ] = None
    top_p: Annotated[
        float | None, between(0, 1, "choose among the likeliest, up to this sum")
    ] = None
    min_p: Annotated[
        float | None, between(0, 1, "lowest probability, relative to the likeliest")
    ] = None
    repeat_penalty: Annotated[
        float | None, between(0, 10, "penalty of repeated tokens, 1: none")
    ] = None
    presence_penalty: Annotated[
        float | None, between(-2, 2, "penalty of tokens that occurred, 0: none")
    ] = None
    frequency_penalty: Annotated[
        float | None, between(-2, 2, "penalty for each occurrence, 0: none")
    ] = None
    seed: Annotated[
        int | None, at_least(-1, "start of the random numbers, -1: random")
    ] = None

    def over(self, below: Sampling | None) -> Sampling:
        """Merge: values set here win over `below`."""
        lower = vars(below or Sampling())
        upper = {key: value for key, value in vars(self).items() if value is not None}
        return Sampling(**{**lower, **upper})

    def given(self) -> dict[str, float]:
        """Return the values that are set, by key."""
        return {key: value for key, value in vars(self).items() if value is not None}


@dataclass(eq=False, repr=False)
class ServerOptions(Strict):
    """Settings of a server, whatever it serves; null: not set here."""

    host: Annotated[str | None, HOST] = None
    port: Annotated[int | None, PORT] = None
    timeout: Annotated[
        int | None, at_least(1, "seconds until the server must be ready")
    ] = None
    cors: Annotated[str | None, CORS] = None
    env: Annotated[
        dict[EnvName, str],
        Constraint("variables of the engine's environment: name → text"),
    ] = field(default_factory=dict)
    metrics: Annotated[
        bool | None, Constraint("serve /metrics for Prometheus [false]")
    ] = None


@dataclass(eq=False, repr=False)
class ServeOptions(ServerOptions):
    """Settings for serving a model; null: not set here."""

    ctx_size: Annotated[
        int | None, at_least(0, "context size in tokens, 0: as trained")
    ] = None
    n_predict: Annotated[
        int | None, at_least(-1, "maximum tokens of an answer, -1: no limit")
    ] = None
    ngl: Annotated[int | None, at_least(-1, "layers on the GPU, 9999: all")] = None
    gpu: Annotated[str | None, one_of(GPUS, "kind of GPU")] = None
    threads: Annotated[int | None, at_least(1, "CPU threads")] = None
    parallel: Annotated[
        int | None, at_least(1, "requests that are answered at the same time")
    ] = None
    idle: Annotated[
        int | None, at_least(1, "seconds without a request until it frees its memory")
    ] = None
    reasoning: Annotated[bool | int | str | None, REASONING] = None
    pooling: Annotated[
        str | None, one_of(POOLINGS, "how an embedding is made of the tokens' vectors")
    ] = None
    sampling: Annotated[
        Sampling | None, Constraint("how a token is chosen, unless a request says it")
    ] = None
    args: Annotated[
        tuple[str, ...], Constraint("more arguments for the engine, passed unchanged")
    ] = ()

    def over(self, below: ServeOptions) -> ServeOptions:
        """Merge: values set here win over `below`; `args` are concatenated.

        The variables of both are set; those set here win.
        """
        merged: dict[str, Any] = {}
        for one in fields(self):
            value = getattr(self, one.name)
            if value is None:
                value = getattr(below, one.name)
            merged[one.name] = value
        merged["env"] = {**below.env, **self.env}
        if self.sampling is not None:
            merged["sampling"] = self.sampling.over(below.sampling)
        return ServeOptions(**{**merged, "args": (*below.args, *self.args)})


@dataclass(eq=False, repr=False)
class EndpointOptions(ServerOptions):
    """Settings of an endpoint's one server; those of its models are the models' own."""

    def over(self, below: ServeOptions) -> ServeOptions:
        """Merge: values set here win over `below`."""
        return ServeOptions(**vars(self)).over(below)
