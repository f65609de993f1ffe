"""Judge whether the models of an endpoint fit together, before it is started."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from tasks.catalogue.endpoints import GB, ResolvedEndpoint
from tasks.catalogue.engine_choice import LLAMA_SERVER_MISSING, LLAMA_SERVER_SOURCES
from tasks.catalogue.variants import budget
from tasks.console import formatting
from tasks.errors import ServerError
from tasks.planning import endpoint_budget, estimate
from tasks.planning.estimate import FilePlan, MemoryEstimate

if TYPE_CHECKING:
    from tasks.planning.endpoint_budget import Verdict

Problem = tuple[str, str]  # what, and its fix


class EndpointPlan(NamedTuple):
    """What an endpoint needs, and how many of its models may be loaded at once."""

    name: str
    models: tuple[str, ...]
    keep: tuple[str, ...]
    needs: Mapping[str, int | None]  # bytes of memory of each model
    budget: int  # bytes
    is_declared: bool  # `memory:` says it, not this machine
    models_max: int
    problems: tuple[Problem, ...] = ()


def plan_endpoint(
    endpoint: ResolvedEndpoint, plans: Sequence[FilePlan], here: int
) -> EndpointPlan:
    """Return what an endpoint needs.

    Args:
        plans: of all files of its models.
        here: bytes of memory of this machine.
    """
    takes = [estimate.estimate_memory(one, list(plans)) for one in endpoint.members]
    needs = {take.model: take.needed for take in takes}
    limit = endpoint.memory
    if limit is None:
        limit = budget(here)
    problems = [*_unknown(endpoint, needs), *_above_machine(endpoint, takes, here)]
    verdict = None
    if not problems:
        verdict = _verdict(endpoint, needs, limit)
    if verdict and verdict.problem:
        problems.append((f"{endpoint.name}: {verdict.problem}", _fix(verdict)))
    return EndpointPlan(
        name=endpoint.name,
        models=endpoint.names,
        keep=endpoint.keep,
        needs=needs,
        budget=limit,
        is_declared=endpoint.memory is not None,
        models_max=verdict.models_max if verdict else 0,
        problems=tuple(problems),
    )


def plan_here(cache: str, endpoint: ResolvedEndpoint, here: int) -> EndpointPlan:
    """Return what an endpoint needs whose files are on this machine."""
    files = dict.fromkeys(file for one in endpoint.members for file in one.files)
    plans = [estimate.plan_file(cache, file) for file in files]
    return plan_endpoint(endpoint, plans, here)


def engine_problem(endpoint: ResolvedEndpoint) -> list[Problem]:
    """Return the problem of a llama-server that is not here."""
    if endpoint.program is not None:
        return []
    what = f"{endpoint.name}: {LLAMA_SERVER_MISSING}, which alone serves several models"
    return [(what, LLAMA_SERVER_SOURCES)]


def check_engine(endpoint: ResolvedEndpoint) -> None:
    """Check that llama-server is here.

    Raises:
        ServerError: it is not.
    """
    for what, fix in engine_problem(endpoint):
        raise ServerError(what, fix=fix)


def text(plan: EndpointPlan) -> str:
    """Return one line: the models, how many are loaded at once, and the memory."""
    size = formatting.format_size(plan.budget)
    limit = f"{size} (`memory:` in models.yaml)"
    if not plan.is_declared:
        limit = f"{size} (7/8 of this machine's memory)"
    models = ", ".join(_model_text(plan, name) for name in plan.models)
    if not plan.models_max or len(plan.models) == 1:
        return f"{plan.name}: {models}; {limit}"
    return f"{plan.name}: {models}; at most {plan.models_max} loaded in {limit}"


def _model_text(plan: EndpointPlan, name: str) -> str:
    needed = formatting.format_size(plan.needs[name])
    if name in plan.keep:
        return f"{name} {needed} (kept)"
    return f"{name} {needed}"


def _verdict(
    endpoint: ResolvedEndpoint, needs: Mapping[str, int | None], limit: int
) -> Verdict:
    sizes = {name: (needed or 0) / GB for name, needed in needs.items()}
    return endpoint_budget.judge(sizes, endpoint.keep, limit / GB)


def _fix(verdict: Verdict) -> str:
    return f"{verdict.fix} of the endpoint in models.yaml"


def _unknown(
    endpoint: ResolvedEndpoint, needs: Mapping[str, int | None]
) -> list[Problem]:
    """Return a problem for each model whose memory is not known."""
    fix = "`doit lock` records it, or set `ram:` of the model in models.yaml"
    what = "the memory of {} is not known, so what fits together is not"
    return [
        (f"{endpoint.name}: {what.format(name)}", fix)
        for name, needed in needs.items()
        if needed is None
    ]


def _above_machine(
    endpoint: ResolvedEndpoint, takes: Sequence[MemoryEstimate], here: int
) -> list[Problem]:
    """Return the problem of a declared memory that this machine does not have.

    Memory of a GPU is not known here.
    """
    limit = endpoint.memory
    if limit is None or limit <= here or any(take.gpu for take in takes):
        return []
    sizes = formatting.format_size(limit), formatting.format_size(here)
    what = "{}: its models may take {} (`memory:`), and {} are here"
    fix = f"set `memory:` of endpoints.{endpoint.name} to at most {here / GB:.1f}"
    return [(what.format(endpoint.name, *sizes), fix)]
