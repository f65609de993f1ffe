"""The report of `doit plan`: text for people, and JSON."""

from __future__ import annotations

import os
from typing import Any

from tasks.catalogue.file_specs import parse_hub_url, parse_release_url
from tasks.catalogue.rule_of_thumb import RAM_CONTEXT
from tasks.catalogue.variants import Choice
from tasks.console import formatting
from tasks.console.report import Column, Fact, Report, Row
from tasks.network import huggingface
from tasks.planning import endpoint_plan, estimate
from tasks.planning.estimate import FilePlan, MemoryEstimate
from tasks.urls import host_of


def plan_report(
    models: list[str],
    needs: list[FilePlan],
    takes: list[MemoryEstimate],
    facts: dict[str, Any],
    problems: list[tuple[str, str]],
) -> Report:
    """Return the report.

    Args:
        models: their names.
        needs: what has to be done for each file.
        takes: the memory of each model.
        facts: about this machine and the models.
        problems: why it cannot work, each with its fix.
    """
    data = _data(models, needs, takes, facts, problems)
    rows = [estimate.as_json(file_plan) for file_plan in needs]
    return Report(COLUMNS, rows, _text(needs, takes, facts, problems), data=data)


def _title(engine: dict[str, str]) -> str:
    """Return an engine and its version; a llamafile's own engine is `self`."""
    return f"{engine['engine']} {engine['version']}".strip()


def _text(
    needs: list[FilePlan],
    takes: list[MemoryEstimate],
    facts: dict[str, Any],
    problems: list[Any],
) -> list[Fact | str]:
    """Return what people read below the table of the files."""
    write, all_known = estimate.total([file_plan.to_write for file_plan in needs])
    free = facts["free"]
    disk = f"{formatting.format_size(free)} free, {_afterwards(free, write, all_known)}"
    lines: list[Fact | str] = [
        "",
        Fact("network  ", _fetched(needs)),
        Fact("disk     ", disk),
    ]
    lines += [
        Fact("engine   ", f"{one['model']}: {_title(one)} ({one['reason']})")
        for one in facts["engines"]
    ]
    lines += [Fact("memory   ", _memory_line(one, facts["memory"])) for one in takes]
    lines += [Fact("endpoint ", endpoint_plan.text(one)) for one in facts["endpoints"]]
    for name, choice in facts["variants"].items():
        lines += [Fact("variant  ", f"{name} {line}") for line in variant_lines(choice)]
    lines += [Fact("note     ", note) for note in facts["notes"]]
    for what, fix in problems:
        lines.append(Fact("cannot work: ", what))
        lines += [f"  fix: {line}" for line in fix.splitlines()]
    return lines


def state_text(row: Row) -> str:
    """Return the state; of a partial download also how much of it is here."""
    if row["state"] != "resume":
        return str(row["state"])
    here, size = row["here"], row["size"]
    done = formatting.format_percent(here, size) or formatting.format_size(here)
    return f"resume from {done}"


def _style(row: Row) -> str:
    colours = {"have": "green", "fetch": "yellow", "nowhere": "red"}
    return colours.get(row["state"], "")


def _short(source: str) -> str:
    """Return where a file comes from, in few words; --json has the URL."""
    if file := parse_hub_url(source):
        host = host_of(huggingface.rewrite_to_endpoint(source, os.environ))
        return f"{host} {file.repo}@{file.revision[:8]}"
    if asset := parse_release_url(source):
        return f"{host_of(source)} {asset.repo} {asset.tag}"
    return source


def _fetched(needs: list[FilePlan]) -> str:
    fetch, all_known = estimate.total([file_plan.to_fetch for file_plan in needs])
    if all_known:
        return formatting.format_size(fetch)
    if fetch:
        return f"at least {formatting.format_size(fetch)}"
    return "not known"


def _afterwards(free: int, write: int, all_known: bool) -> str:
    """Return what a disk has after `write` bytes, or that these do not fit.

    Args:
        all_known: whether the size of every file is known.
    """
    if write > free:
        return f"too little for {formatting.format_size(write)}"
    if not all_known:
        return "not known afterwards"
    return f"{formatting.format_size(free - write)} afterwards"


def _amount(count: int) -> str:
    if not count:
        return "-"
    return formatting.format_size(count)


def _memory_line(need: MemoryEstimate, total: int) -> str:
    """Return what memory a model needs, and what this machine has."""
    here = f"{formatting.format_size(total)} installed"
    tokens = "the model's full context"
    if need.context:
        tokens = f"{need.context} tokens"
    if need.needed is None:
        return f"{need.model}: not known for {tokens}; {here}"
    if need.is_declared:
        needed = formatting.format_size(need.needed)
        source = _declared_source(need, tokens)
        return f"{need.model} needs about {needed} ({source}); {here}"
    about = "about "
    if need.exact:
        about = ""
    weights, cache = (
        formatting.format_size(need.weights),
        formatting.format_size(need.cache),
    )
    parts = f"(weights {weights}, {about}{cache} for {tokens})"
    if need.source == estimate.LOCK:
        parts = f"{parts[:-1]}; from {need.source})"
    if need.gpu:
        parts += ", part of it on the GPU"
    needed = formatting.format_size(need.needed)
    return f"{need.model} needs {about}{needed} {parts}; {here}"


def _declared_source(need: MemoryEstimate, tokens: str) -> str:
    """Return what the memory of models.yaml includes."""
    if need.beyond:
        ram, beyond = map(formatting.format_size, (need.declared, need.beyond))
        return f"{ram} in models.yaml, about {beyond} beyond {RAM_CONTEXT} tokens"
    if 0 < need.context <= RAM_CONTEXT:
        return "models.yaml"
    return f"models.yaml; more at {tokens}"


def variant_lines(choice: Choice) -> list[str]:
    """Return a line for each variant: what it takes, and why it is used or not."""
    lines = []
    limit = formatting.format_size(choice.budget)
    for need in choice.needs:
        line = f"{need.name} needs {formatting.format_size(need.needed)} of memory"
        if need.needed is None:
            line = f"{need.name} has no memory stated in models.yaml or models.lock"
        elif choice.fits(need):
            line += f", fits in {limit}"
        else:
            line += f", does not fit in {limit}"
        if need.name == choice.name:
            line += f": used, {choice.reason}"
        lines.append(line)
    return lines


def _choice(choice: Choice) -> dict[str, Any]:
    rows = [{**need._asdict(), "fits": choice.fits(need)} for need in choice.needs]
    return {
        "used": choice.name,
        "reason": choice.reason,
        "budget": choice.budget,
        "all": rows,
    }


def _as_json(file_plan: FilePlan) -> dict[str, Any]:
    """Return a file's row, with the URL that is asked: that of HF_ENDPOINT."""
    source = huggingface.rewrite_to_endpoint(file_plan.source, os.environ)
    return estimate.as_json(file_plan._replace(source=source))


def _data(
    models: list[str],
    needs: list[FilePlan],
    takes: list[MemoryEstimate],
    facts: dict[str, Any],
    problems: list[Any],
) -> dict[str, Any]:
    fetch, known = estimate.total([file_plan.to_fetch for file_plan in needs])
    write, _ = estimate.total([file_plan.to_write for file_plan in needs])
    return {
        "models": models,
        "files": [_as_json(file_plan) for file_plan in needs],
        "to_fetch": fetch,
        "to_fetch_is_exact": known,
        "disk": {"free": facts["free"], "afterwards": max(0, facts["free"] - write)},
        "memory": {
            "here": facts["memory"],
            "models": [{**one._asdict(), "needed": one.needed} for one in takes],
        },
        "engines": facts["engines"],
        "endpoints": [one._asdict() for one in facts["endpoints"]],
        "variants": {name: _choice(one) for name, one in facts["variants"].items()},
        "notes": facts["notes"],
        "problems": [{"what": what, "fix": fix} for what, fix in problems],
        "works": not problems,
    }


COLUMNS = (
    Column("file", "file", least=12),
    Column("state", "state", describe=state_text, style=_style),
    Column("size", ">size", formatting.format_size, unknown=estimate.UNKNOWN),
    Column("to_fetch", ">to fetch", _amount, unknown=estimate.UNKNOWN),
    Column("source", "from", _short, least=10),
)
