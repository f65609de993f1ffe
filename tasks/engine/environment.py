"""What an engine may see of the user's environment: it is a program of a third party. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

# Names, in upper case, of which an engine gets none: credentials, and what leads to them
_PREFIXES = (
    *("ACTIONS_", "ANTHROPIC_", "ARM_", "AWS_", "AZURE_", "CLOUDSDK_", "DOCKER_", "GCLOUD_", "GCP_", "GH_"),
    *("GIT_", "GITHUB_", "GITLAB_", "GOOGLE_", "GPG_", "HF_", "HUGGINGFACE_", "HUGGING_FACE_", "KUBE"),
    *("NPM_", "OPENAI_", "PIP_", "PYPI_", "SSH_", "TWINE_", "UV_", "VAULT_"),
)
_SECRET = re.compile(
    r"(TOKENS?|PASSWORDS?|PASSWD|PASSPHRASE|SECRETS?|CREDENTIALS?|APIKEYS?|(API|ACCESS|PRIVATE)_?KEYS?)(_|$)"
    r"|(^|_)(AUTH|AUTHORIZATION|COOKIE|PASS|PAT|PW|PWD)(_ID|_FILE|_PATH)?$"
    r"|(^|_)(BEARER|DSN|JWTS?|KEYS?|WEBHOOKS?)(_|$)"
)
_NOT_SECRET = ("PWD", "OLDPWD")  # directories
_PROXY = re.compile(r"_PROXY$")  # an engine needs none, and a proxy's password is in its URL
_USER_IN_URL = re.compile(r"://[^/@\s]+@")  # with a password, or with a token alone


def is_private(name: str, value: str) -> bool:
    """Whether a variable has a credential in it, or may have one."""
    upper = name.upper()  # Windows, curl and pip do not tell `https_proxy` from `HTTPS_PROXY`
    if upper in _NOT_SECRET:
        return False
    named = upper.startswith(_PREFIXES) or _SECRET.search(upper) or _PROXY.search(upper)
    return bool(named or _USER_IN_URL.search(value))


def engine_environment(env: Mapping[str, str], **more: str) -> dict[str, str]:
    """The environment of an engine, of its `--version` and of its keeper.

    Args:
        env: the user's.
        more: variables that the recipe sets itself; they are passed on as they are.
    """
    return {**{name: value for name, value in env.items() if not is_private(name, value)}, **more}
