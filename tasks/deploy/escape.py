"""Write texts so that the formats of engines read them back unchanged. Pure.

YAML and JSON are written by their libraries.

Source: systemd.exec(5), systemd.unit(5) and systemd's env-file.c; the Compose
specification (interpolation); HAProxy's configuration manual 2.2 (quoting and
escaping).
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any

import yaml


class Template(string.Template):
    """Text in which @name is replaced; @@ is one @. `$` is the engines' own."""

    delimiter = "@"


def comment(text: str) -> str:
    """Return a text for a comment line of any format: one line, without backslashes.

    systemd joins a line that ends in a backslash with the next one.
    """
    return " ".join(
        "".join(c if c.isprintable() and c != "\\" else " " for c in text).split()
    )


def systemd(text: str) -> str:
    """Return a value of a unit in quotes, without specifiers (%)."""
    return _quoted(text, '"\\').replace("%", "%%")


def environment(text: str) -> str:
    """Return a value of systemd's EnvironmentFile=, in quotes."""
    return _quoted(text, '"\\$`')


def _quoted(text: str, special: str) -> str:
    """Return a text in double quotes; control characters are removed."""
    shown = (c for c in text if c.isprintable())
    return '"' + "".join(f"\\{c}" if c in special else c for c in shown) + '"'


def compose(value: Any) -> Any:
    """Return data in which Compose replaces no variable: each $ becomes $$."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, Mapping):
        return {key: compose(one) for key, one in value.items()}
    if isinstance(value, list):
        return [compose(one) for one in value]
    return value


def yaml_text(*documents: Any, header: str) -> str:
    """Return YAML documents below a comment; the same bytes with every PyYAML."""
    texts = [
        yaml.dump(
            one, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000
        )
        for one in documents
    ]
    return f"# {header}\n" + "---\n".join(texts)


class _Dumper(yaml.SafeDumper):
    """Write lists indented, and every value again instead of an alias (*name)."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Indent the items of a list below its key."""
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        """Return True: kubectl reads aliases, people do not."""
        return True
