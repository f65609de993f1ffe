"""Insert an entry into the text of models.yaml; every other byte stays unchanged.

Pure. A library that rewrites YAML would keep comments, but not the layout.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tasks.errors import UsageError

_INDENT = 2  # columns, if the catalogue's own cannot be determined
# words with single spaces between them, or a URL: YAML reads these as text
_PLAIN = re.compile(
    r"[A-Za-z][\w./@%+-]*(?::(?=//)[\w./@%+:-]+)?(?: [\w.][\w./@%+-]*)*", re.ASCII
)
_KEYWORDS = ("null", "true", "false", "yes", "no", "on", "off", "y", "n")


def render_entry(
    name: str, entry: Mapping[str, Any], indent: int, step: int
) -> list[str]:
    """Return the lines of an entry.

    Args:
        indent: columns before its name.
        step: further columns before its keys.
    """
    inner = " " * (indent + step)
    lines = [f"{' ' * indent}{name}:"]
    for key, value in entry.items():
        if isinstance(value, dict):
            lines.append(f"{inner}{key}:")
            lines += [f"{inner}  {k}: {_scalar(v)}" for k, v in value.items()]
            continue
        if not isinstance(value, list):
            lines.append(f"{inner}{key}: {_scalar(value)}")
            continue
        lines.append(f"{inner}{key}:")
        for item in value:
            pairs = ", ".join(f"{k}: {_scalar(v)}" for k, v in item.items())
            lines.append(f"{inner}- {{{pairs}}}")
    return lines


def _scalar(value: Any) -> str:
    """Return a value in YAML: plain if YAML reads it back unchanged, else quoted."""
    text = str(value)
    if isinstance(value, int) or _is_unambiguous(text):
        return text
    import yaml  # costly, and rarely needed

    quoted = yaml.safe_dump(
        text, default_style='"', width=len(text) * 10 + 10, allow_unicode=True
    )
    return str(quoted).strip()


def _is_unambiguous(text: str) -> bool:
    if re.fullmatch("[0-9a-f]{40,64}", text):  # a digest that is not a number, as 1e5
        return not re.fullmatch("[0-9]+(e[0-9]+)?", text)
    if re.fullmatch(r"[0-9.]+[BM]", text):  # a number of parameters
        return True
    return bool(_PLAIN.fullmatch(text)) and text.lower() not in _KEYWORDS


def insert_entry(text: str, name: str, entry: Mapping[str, Any], where: str) -> str:
    """Return the text with one more entry, after the last one of `models:`.

    Args:
        text: a valid catalogue.
        where: the file's path, for messages.

    Raises:
        UsageError: it is written in braces; the message has the entry to paste.
    """
    import yaml

    root: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    models = next(value for key, value in root.value if key.value == "models")
    if models.flow_style or not models.value or root.flow_style:
        raise _no_place(name, entry, where)
    newline = "\r\n" if "\r\n" in text else "\n"
    key, last = models.value[-1]
    lines = text.splitlines(keepends=True)
    end = _last_line(last) + 1
    if not lines[end - 1].endswith(("\n", "\r")):
        lines[end - 1] += newline
    indent = key.start_mark.column
    new = [
        line + newline for line in render_entry(name, entry, indent, _step(key, last))
    ]
    line_before = key.start_mark.line - 1
    if not lines[line_before].strip():  # the entries are separated by a blank line
        new.insert(0, newline)
    return "".join((*lines[:end], *new, *lines[end:]))


def _no_place(name: str, entry: Mapping[str, Any], where: str) -> UsageError:
    return UsageError(
        f"{where} is written with braces, so no line can be inserted",
        [("entry", "\n".join(render_entry(name, entry, _INDENT, _INDENT)))],
        fix=f"put this entry under `models:` in {where}",
    )


def _step(key: Any, value: Any) -> int:
    """Return the columns between an entry's name and its keys."""
    if value.flow_style or not value.value:
        return _INDENT
    first_key = value.value[0][0]
    return int(first_key.start_mark.column - key.start_mark.column)


def _last_line(node: Any) -> int:
    """Return the line of a node's last character.

    YAML's own end mark of a mapping is the start of what follows it.
    """
    if isinstance(node.value, str) or node.flow_style:
        end = int(node.end_mark.line)
        if node.end_mark.column == 0 and end > node.start_mark.line:
            return end - 1
        return end
    children = (_last_line(child) for child in _children(node))
    return max((int(node.start_mark.line), *children))


def _children(node: Any) -> Iterator[Any]:
    for item in node.value:
        if isinstance(item, tuple):  # key and value of a mapping
            yield from item
        else:
            yield item
