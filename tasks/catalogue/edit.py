"""Writing an entry into the text of models.yaml, so that every other byte stays as it is.

Pure. A library that writes YAML anew would keep the comments, but not the columns.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tasks.errors import UsageError


def block(name: str, entry: Mapping[str, Any], indent: int, step: int) -> list[str]:
    """The lines of an entry.

    Args:
        indent: columns before its name; step: columns more before its keys.
    """
    inner = " " * (indent + step)
    lines = [f"{' ' * indent}{name}:"]
    for key, value in entry.items():
        if not isinstance(value, list):
            lines.append(f"{inner}{key}: {_scalar(value)}")
            continue
        lines.append(f"{inner}{key}:")
        for one in value:
            lines.append(f"{inner}- {{{', '.join(f'{k}: {_scalar(v)}' for k, v in one.items())}}}")
    return lines


def _scalar(value: Any) -> str:
    """Plain where YAML cannot take it for something else, else in quotes."""
    text = str(value)
    plain = re.fullmatch(r"[A-Za-z][\w./@%+-]*(?::(?=//)[\w./@%+:-]+)?(?: [\w.][\w./@%+-]*)*", text, re.ASCII)
    words = text.lower() in ("null", "true", "false", "yes", "no", "on", "off", "y", "n")
    digest = re.fullmatch("[0-9a-f]{40,64}", text) and not re.fullmatch("[0-9]+(e[0-9]+)?", text)
    count = re.fullmatch(r"[0-9.]+[BM]", text)  # of parameters
    if isinstance(value, int) or digest or count or (plain and not words):
        return text
    import yaml  # what is pure elsewhere stays cheap to import

    return str(yaml.safe_dump(text, default_style='"', width=len(text) * 10 + 10, allow_unicode=True)).strip()


def insert(text: str, name: str, entry: Mapping[str, Any], where: str) -> str:
    """The text with one more entry, behind the last of `models:`.

    Args:
        text: a valid catalogue.

    Raises UsageError: its form leaves no place for a line; the message has the entry to paste.
    """
    import yaml

    root: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    models = next(value for key, value in root.value if key.value == "models")
    newline = "\r\n" if "\r\n" in text else "\n"
    if models.flow_style or not models.value or root.flow_style:
        by_hand = "\n".join(block(name, entry, 2, 2))
        what = f"{where} is written with braces, which leave no place for a line"
        raise UsageError(what, [("entry", by_hand)], fix=f"put this entry under `models:` in {where}")
    key, last = models.value[-1]
    indent = key.start_mark.column
    step = last.value[0][0].start_mark.column - indent if not last.flow_style and last.value else 2
    lines = text.splitlines(keepends=True)
    end = _last_line(last) + 1
    if not lines[end - 1].endswith(("\n", "\r")):
        lines[end - 1] += newline
    new = [line + newline for line in block(name, entry, indent, step)]
    before = key.start_mark.line - 1
    if not lines[before].strip():  # entries have a blank line between them
        new.insert(0, newline)
    return "".join((*lines[:end], *new, *lines[end:]))


def _last_line(node: Any) -> int:
    """The line of a node's last character; behind a mapping, YAML's own mark is that of what follows."""
    if isinstance(node.value, str) or node.flow_style:
        behind = node.end_mark.column == 0 and node.end_mark.line > node.start_mark.line
        return int(node.end_mark.line) - int(behind)
    children = [one for item in node.value for one in (item if isinstance(item, tuple) else (item,))]
    return max([int(node.start_mark.line), *(_last_line(one) for one in children)])
