"""An engine, a third party's program, gets no credential of the user."""

from __future__ import annotations

import pytest
from tasks.engine.environment import engine_environment, is_private


@pytest.mark.parametrize(
    "name",
    [
        *("HF_TOKEN", "HF_HOME", "HUGGING_FACE_HUB_TOKEN", "GITHUB_TOKEN", "GH_TOKEN", "GITHUB_ENV"),
        *("CI_JOB_TOKEN", "CI_REGISTRY_PASSWORD", "ACTIONS_ID_TOKEN_REQUEST_URL", "NPM_CONFIG__AUTH"),
        *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "GOOGLE_APPLICATION_CREDENTIALS"),
        *("AZURE_CLIENT_SECRET", "OPENAI_API_KEY", "LLAMA_API_KEY", "LLAMA_ARG_API_KEY", "MY_APIKEY"),
        *("DB_PASSWORD", "PGPASSWORD", "MYSQL_PWD", "VAULT_ADDR", "SSH_AUTH_SOCK", "TOKEN", "my_token"),
        *("SIGNING_KEY", "SIGNING_KEY_FILE", "X_PRIVATE_KEY", "GPG_PASSPHRASE", "DOCKER_AUTH_CONFIG"),
        *("HTTP_PROXY", "https_proxy", "ALL_PROXY", "NO_PROXY", "Ftp_Proxy", "PIP_INDEX_URL", "KUBECONFIG"),
        *("SECRET_ONE", "APP_SECRETS", "BASIC_AUTH", "SESSION_COOKIE", "Hf_Token"),
        *("SIGNING_KEY_BASE64", "CI_JOB_JWT_V2", "SENTRY_DSN", "SLACK_WEBHOOK_URL", "BEARER", "SSH_KEYS_1"),
    ],
)
def test_what_an_engine_does_not_see(name: str) -> None:
    """Finding 22: a variable is private by its name, in upper or lower case."""
    assert is_private(name, "x")
    assert engine_environment({name: "x", "PATH": "/bin"}) == {"PATH": "/bin"}


@pytest.mark.parametrize(
    "value",
    [
        "https://user:pw@proxy.example:3128",
        "postgres://app:pw@db/app",
        "a redis://:pw@cache:6379 b",
        "https://token@host/1",
    ],
)
def test_a_password_in_a_url(value: str) -> None:
    """Finding 22: a URL with credentials is private under any name."""
    assert is_private("DATABASE_URL", value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, "1") for name in ("PATH", "HOME", "LANG", "TMPDIR", "TERM", "PWD", "OLDPWD", "SYSTEMROOT")),
        *((name, "1") for name in ("LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")),
        *((name, "1") for name in ("GGML_VK_VISIBLE_DEVICES", "LLAMA_ARG_THREADS", "OMP_NUM_THREADS")),
        *((name, "1") for name in ("LLAMAFILE_CACHE", "TOKENIZERS_PARALLELISM", "KEYBOARD")),
        *((name, "1") for name in ("CI", "DISPLAY", "COMPASS", "PATTERN", "HF", "VIRTUAL_ENV")),
        ("DOCS", "https://example.org/a:b"),
        ("MAIL", "user@example.org"),
    ],
)
def test_what_an_engine_sees(name: str, value: str) -> None:
    """Finding 22: variables for libraries, devices and threads are kept."""
    assert not is_private(name, value)
    assert engine_environment({name: value}) == {name: value}


def test_what_the_recipe_sets_itself() -> None:
    """Variables that the recipe sets are kept: the embedded engine reads its key there."""
    env = {"LLAMA_API_KEY": "old", "A": "1"}
    assert engine_environment(env, LLAMA_API_KEY="new") == {"A": "1", "LLAMA_API_KEY": "new"}
    assert engine_environment(env, PYTHONPATH="/root") == {"A": "1", "PYTHONPATH": "/root"}
