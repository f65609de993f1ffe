"""Filter the user's environment for an engine, a third party's program. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

# upper-case names of variables with credentials, or with paths to them
_PREFIXES = (
    *("ACTIONS_", "ANTHROPIC_", "ARM_", "AWS_", "AZURE_", "CLOUDSDK_", "DOCKER_"),
    *("GCLOUD_", "GCP_", "GH_", "GIT_", "GITHUB_", "GITLAB_", "GOOGLE_", "GPG_"),
    *("HF_", "HUGGINGFACE_", "HUGGING_FACE_", "KUBE", "NPM_", "OPENAI_", "PIP_"),
    *("PYPI_", "SSH_", "TWINE_", "UV_", "VAULT_"),
)
_SECRET = re.compile(
    r"(TOKENS?|PASSWORDS?|PASSWD|PASSPHRASE|SECRETS?|CREDENTIALS?|APIKEYS?"
    r"|(API|ACCESS|PRIVATE)_?KEYS?)(_|$)"
    r"|(^|_)(AUTH|AUTHORIZATION|COOKIE|PASS|PAT|PW|PWD)(_ID|_FILE|_PATH)?$"
    r"|(^|_)(BEARER|DSN|JWTS?|KEYS?|WEBHOOKS?)(_|$)"
)
_NOT_SECRET = ("PWD", "OLDPWD")  # directories
# an engine needs no proxy, and the URL of a proxy may contain a password
_PROXY = re.compile(r"_PROXY$")
_USER_IN_URL = re.compile(r"://[^/@\s]+@")  # with a password, or a token alone


def is_private(name: str, value: str) -> bool:
    """Return whether a variable contains a credential, or may contain one."""
    # Windows, curl and pip treat `https_proxy` and `HTTPS_PROXY` alike
    upper = name.upper()
    if upper in _NOT_SECRET:
        return False
    if upper.startswith(_PREFIXES) or _SECRET.search(upper) or _PROXY.search(upper):
        return True
    return _USER_IN_URL.search(value) is not None


def engine_environment(env: Mapping[str, str], **more: str) -> dict[str, str]:
    """Return the environment for an engine, its `--version` and its supervisor.

    Args:
        env: the user's.
        more: variables that the recipe sets; they are not filtered.
    """
    public = {name: value for name, value in env.items() if not is_private(name, value)}
    return {**public, **more}
