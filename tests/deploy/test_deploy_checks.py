"""`deploy:` of models.yaml: each error with its line, and what is right."""

from __future__ import annotations

import pytest
from tasks.catalogue import schema

from tests.catalogue.test_schema import editor, problems
from tests.support.catalogues import VALID, WHERE

pytestmark = pytest.mark.once
FIRST = 1 + VALID.count("\n")  # the line of `deploy:`
HOST = "a host name or an IP address"
IMAGE = "an image, such as registry.example.org/llamafile-recipe:2026.11"
MODEL_IMAGE = "an image, such as registry.example.org/models/chat:1"
PATH = "an absolute path of letters, digits, '.', '_' and '-'"
RESOLVER = "an IP address, such as 192.0.2.53"
MIRROR = "http:// and a host, such as http://mirror.lan:8080"
METRICS = "requires `metrics: true` in the model's serve: it scales by them"
QUANTS = "  many:\n    title: M\n    license: MIT\n    variants: {q4: {url: 'https://h/q4.gguf'}}\n"

# the section in one line, the key and the text of the error; the JSON Schema refuses these, too
SEEN = [
    ("{}", "models", "this key is required"),
    ("{models: {}}", "models", "expected one model or more, got {}"),
    ("{models: [tiny]}", "models", 'expected lines of `key: value`, got ["tiny"]'),
    ("{models: {tiny: {replicas: 0}}}", "models.tiny.replicas", "expected a number from 1 to 100, got 0"),
    ("{models: {tiny: {replica: 2}}}", "models.tiny.replica",
     "unknown key; did you mean replicas, max_replicas?"),
    ("{models: {tiny: {port: 0}}}", "models.tiny.port", "expected a number from 1 to 65535, got 0"),
    ("{models: {tiny: {}}, image: 'a b'}", "image", f'expected {IMAGE}, got "a b"'),
    ("{models: {tiny: {model_image: 'a b'}}}", "models.tiny.model_image",
     f'expected {MODEL_IMAGE}, got "a b"'),
    ("{models: {tiny: {}}, image: 'a$b'}", "image", f'expected {IMAGE}, got "a$b"'),
    ("{models: {tiny: {}}, hosts: [a;b]}", "hosts.0", f'expected {HOST}, got "a;b"'),
    ("{models: {tiny: {}}, node_cache: /a/../b}", "node_cache", f'expected {PATH}, got "/a/../b"'),
    ("{models: {tiny: {}}, node_cache: '/a b'}", "node_cache", f'expected {PATH}, got "/a b"'),
    ("{models: {tiny: {}}, mirror: {url: 'http://m', resolver: dns}}", "mirror.resolver",
     f'expected {RESOLVER}, got "dns"'),
    ("{models: {tiny: {}}, mirror: {url: 'http://m/x', resolver: 1.1.1.1}}", "mirror.url",
     f'expected {MIRROR}, got "http://m/x"'),
    ("{models: {tiny: {}}, mirror: {url: 'http://m;', resolver: 1.1.1.1}}", "mirror.url",
     f'expected {MIRROR}, got "http://m;"'),
]  # fmt: skip
UNSEEN = [
    ("{models: {tini: {}}}", "models.tini", "there is no model or endpoint 'tini'; did you mean tiny?"),
    ("{models: {tiny: {variant: q4}}}", "models.tiny.variant",
     "there is no variant 'q4'; the model has none"),
    ("{models: {tiny: {}, big: {}}}", "models.big.port",
     "deploy.models.tiny has port 8080 already; give it another port"),
    ("{models: {tiny: {port: 80, replicas: 3}, big: {port: 82}}}", "models.big.port",
     "deploy.models.tiny has port 82 already; give it another port"),
    ("{models: {tiny: {replicas: 2, balance: 8081}}}", "models.tiny.balance",
     "deploy.models.tiny has port 8081 already; give it another port"),
    ("{models: {tiny: {max_replicas: 2}}}", "models.tiny.max_replicas", METRICS),
    ("{models: {tiny: {slow: 9}}}", "models.tiny.slow", "requires `metrics: true` in the model's serve"),
]  # fmt: skip
OFFICE = "  one: {title: O, license: MIT, url: 'https://h/one.gguf'}\nendpoints:\n  office: {%s}\n"
SEVERAL = "endpoints.office has several models: remove this key"
ENDPOINTS = [  # the endpoint, how it is deployed, the key and the text of the error
    ("models: [one]", "", "", "requires `memory:` in endpoints.office: another machine has other memory"),
    ("models: [one], memory: 4", "variant: q4", ".variant", SEVERAL),
    ("models: [one], memory: 4", "max_replicas: 4", ".max_replicas", SEVERAL),
    ("models: [one], memory: 4", "model_image: i", ".model_image", SEVERAL),
    ("models: [many], memory: 4", "", "", "many of endpoints.office has variants: name an entry without"),
]  # fmt: skip
RIGHT = [
    "{models: {tiny: {}}}",
    "{models: {tiny: {replicas: 2, balance: 9000}, big: {port: 8090, gpus: 1}}, hosts: [a, '::1', 10.0.0.1]}",
    "{models: {tiny: {}}, mirror: {url: 'http://[::1]:80', resolver: '[::1]:53', size: 9}, node_cache: /a}",
    "{models: {tiny: {}}, image: 'localhost:5000/a/b@sha256:0', drain: 5, node_memory: 8}",
]


def with_section(section: str, more: str = "") -> str:
    return f"{VALID}{more}deploy: {section}\n"


@pytest.mark.parametrize(("section", "key", "text"), SEEN + UNSEEN)
def test_errors(section: str, key: str, text: str) -> None:
    """Each names its key."""
    assert problems(with_section(section)) == [f"{FIRST}: deploy.{key}: {text}"]


@pytest.mark.parametrize("section", [row[0] for row in SEEN])
def test_an_editor_sees_it(section: str) -> None:
    import yaml

    assert not editor().is_valid(yaml.safe_load(with_section(section)))


@pytest.mark.parametrize("section", RIGHT)
def test_what_is_right(section: str) -> None:
    """Also for an editor."""
    import yaml

    plain = schema.read_catalogue(with_section(section), WHERE)
    assert schema.deploy_options(plain) is not None
    assert editor().is_valid(yaml.safe_load(with_section(section)))


def test_a_model_with_variants_needs_one() -> None:
    """The machine that writes the files must not decide."""
    line = FIRST + QUANTS.count("\n")
    found = problems(with_section("{models: {many: {}}}", QUANTS))
    assert found == [f"{line}: deploy.models.many.variant: this key is required: q4"]
    assert schema.read_catalogue(with_section("{models: {many: {variant: q4}}}", QUANTS), WHERE)


@pytest.mark.parametrize(("endpoint", "deployed", "key", "text"), ENDPOINTS)
def test_an_endpoint(endpoint: str, deployed: str, key: str, text: str) -> None:
    """It is named like a model; nothing of it depends on the machine."""
    more = QUANTS + OFFICE % endpoint
    found = problems(with_section(f"{{models: {{office: {{{deployed}}}}}}}", more))
    assert f"{FIRST + more.count(chr(10))}: deploy.models.office{key}: {text}" in found


def test_an_endpoint_and_a_model() -> None:
    """Side by side, each with its ports."""
    more = OFFICE % "models: [one], memory: 4"
    assert schema.read_catalogue(
        with_section("{models: {office: {replicas: 2}, tiny: {port: 80}}}", more), WHERE
    )
