"""The section `auth:` of models.yaml: which variables have credentials. Pure.

It has the names of the variables for a host, never their values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from tasks.catalogue.constraints import Constraint
from tasks.catalogue.serve_options import Strict

_HOST = r"(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:]+\])(?::[0-9]{1,5})?"
# in upper case, so that hardly any secret is a valid name
_VARIABLE = r"[A-Z_][A-Z0-9_]{0,99}"
_USER = r"[!-9;-~][ -9;-~]{0,199}"


def _matching(pattern: str, about: str, expected: str) -> Constraint:
    """Return the constraint of a text that matches a pattern as a whole."""

    def test(value: Any) -> bool:
        return re.fullmatch(pattern, value) is not None

    return Constraint(about, expected, test, {"pattern": f"^{pattern}$"})


AUTH_HOST = _matching(
    _HOST,
    "host, with its port if the URL has one",
    "a host in lower case, such as registry.example.org or 192.0.2.7:5000",
)
_NAME = "the name of an environment variable, in upper case"
_TOKEN = _matching(_VARIABLE, "variable with a token, sent as Bearer", _NAME)
_PASSWORD = _matching(_VARIABLE, "variable with the password of the user", _NAME)
_USER_NAME = _matching(_USER, "name of a user", "a name in ASCII without ':'")


@dataclass(eq=False, repr=False)
class HostAuth(Strict):
    """One entry of `auth:`: a token, or a user with a password."""

    token: Annotated[str | None, _TOKEN] = None
    user: Annotated[str | None, _USER_NAME] = None
    password: Annotated[str | None, _PASSWORD] = None


def auth_errors(plain: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the entries of `auth:` that have too many keys, or too few."""
    table = plain.get("auth")
    if not isinstance(table, dict):
        return
    for host, entry in table.items():
        if not isinstance(entry, dict):
            continue
        given = {key for key in ("token", "user", "password") if entry.get(key)}
        if given not in ({"token"}, {"user", "password"}):
            yield ("auth", str(host)), "expected token, or user and password"


def is_auth(plain: Any) -> bool:
    """Whether this is `auth:` in a compiled catalogue."""
    keys = set(HostAuth.__dataclass_fields__)
    return all(
        entry.keys() <= keys
        and all(isinstance(value, (str, type(None))) for value in entry.values())
        for entry in plain.values()
    )
