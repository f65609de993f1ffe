"""`kind:`, companions and the settings for them: what models.yaml may say, and what follows (issue 15.5)."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from tasks.catalogue.model_files import CompanionFile
from tasks.catalogue.resolve import resolve_entry
from tasks.catalogue.schema import compile_catalogue
from tasks.catalogue.serve_options import Sampling
from tasks.catalogue.settings import ServeSettings

from tests.catalogue.test_resolve import POSIX
from tests.catalogue.test_schema import editor, problems
from tests.support.catalogues import A64, B64, VALID, WHERE, catalogue, edited

PLACE = "    mirrors: [https://example.net/big.gguf]\n"  # of the model `big`, which begins in line 21
LINE = VALID[: VALID.index(PLACE)].count("\n") + 1


def entry(**keys: Any) -> str:
    """The catalogue, with these keys for the model `big`, each in a line of its own."""
    return edited(
        PLACE,
        "".join(
            f"    {key}: {yaml.safe_dump(keys[key], default_flow_style=True, width=9999).splitlines()[0]}\n"
            for key in keys
        ),
    )


@pytest.mark.parametrize(
    "keys",
    [
        {"kind": "embedding", "serve": {"pooling": "mean", "parallel": 4, "idle": 60, "metrics": True}},
        {"kind": "rerank"},
        {"kind": "chat", "draft": {"url": "d.gguf", "sha256": A64}, "template": {"url": "chat.jinja"}},
        {"lora": [{"url": "a.gguf", "scale": 0.5}, {"hf": "o/r", "file": "b.gguf", "sha256": B64}]},
        {"serve": {"reasoning": "auto"}},
        {"serve": {"reasoning": "off"}},
        {"serve": {"reasoning": False}},
        {"serve": {"reasoning": 512}},
        {"serve": {"sampling": {"temperature": 0, "top_p": 0.9, "min_p": 1, "seed": -1, "top_k": 40}}},
        {"serve": {"sampling": {"repeat_penalty": 1.1, "presence_penalty": -2, "frequency_penalty": 2}}},
    ],
)
def test_accepted(keys: dict[str, Any]) -> None:
    """What is right is right for editors, too."""
    text = entry(**keys)
    assert catalogue(text).model("big").kind == keys.get("kind", "chat")
    assert not list(editor().iter_errors(yaml.safe_load(text)))


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"kind": "vision"}, 'kind: expected one of chat, embedding, rerank, got "vision"'),
        ({"kind": "rerank", "draft": {"url": "d"}}, "draft: only for kind: chat, and this is kind: rerank"),
        ({"serve": {"pooling": "mean"}}, "serve.pooling: requires kind: embedding"),
        ({"draft": {"path": "d", "url": "d.gguf"}}, "draft.path: unknown key; the keys here are url, hf, "),
        ({"draft": "d.gguf"}, "draft: expected lines of `key: value`, got \"d.gguf\""),
        ({"lora": {"url": "a.gguf"}}, 'lora: expected a list, got {"url": "a.gguf"}'),
        ({"lora": [{"url": "a.gguf", "scale": "x"}]}, "lora.0.scale: "),
        ({"lora": [{"scale": 1}]}, "lora.0.url: this key is required (or hf and file instead)"),
        ({"template": {"url": "http://e.org/t.jinja"}}, "template.url: http://e.org/t.jinja: "),
        ({"serve": {"reasoning": True}}, "serve.reasoning: expected auto, off, or a whole number of tokens"),
        ({"serve": {"reasoning": -1}}, "serve.reasoning: expected auto, off, or a whole number of tokens"),
        ({"serve": {"sampling": {"temp": 1}}}, "serve.sampling.temp: unknown key; did you mean temperature?"),
        ({"serve": {"sampling": {"top_p": 2}}}, "serve.sampling.top_p: expected a number from 0 to 1, got 2"),
        ({"serve": {"parallel": 0}}, "serve.parallel: expected a whole number from 1 to 999,999,999, got 0"),
    ],
)  # fmt: skip
def test_refused(keys: dict[str, Any], expected: str) -> None:
    """Each error names its key and what it has to be."""
    [line] = dict.fromkeys(problems(entry(**keys)))
    assert line.partition(": models.big.")[2].startswith(expected)


def test_settings_are_merged_by_key() -> None:
    """`sampling:` of a model wins over that of `defaults:` for each of its own keys."""
    text = entry(serve={"sampling": {"top_k": 5}, "reasoning": False}).replace(
        "defaults: {ctx_size: 4096}", "defaults: {sampling: {top_k: 1, temperature: 0.5}, metrics: true}"
    )
    big, tiny = (resolve_entry(name, catalogue(text), POSIX).settings for name in ("big", "tiny"))
    assert sampled(big) == {"top_k": 5, "temperature": 0.5}
    assert sampled(tiny) == {"top_k": 1, "temperature": 0.5}
    assert (big.reasoning, big.metrics, tiny.reasoning) == (False, True, None)


def sampled(settings: ServeSettings) -> dict[str, float]:
    return (settings.sampling or Sampling()).given()


def test_files_of_a_model() -> None:
    """Each companion lies in the folder of its digest, named by its role; the order is that of the roles."""
    lora = [{"url": "a.gguf", "sha256": B64, "scale": 2}, {"url": "b.gguf", "sha256": B64}]
    text = entry(
        template={"url": "t.jinja", "sha256": A64}, lora=lora, draft={"url": "d.gguf", "sha256": A64}
    )
    found = resolve_entry("big", catalogue(text), POSIX)
    place_a, place_b = (f"/cache/models/{digest[:16]}" for digest in (A64, B64))
    assert found.companions == (
        CompanionFile("draft", f"{place_a}/d.gguf"),
        CompanionFile("lora", f"{place_b}/a.gguf", 2),
        CompanionFile("lora", f"{place_b}/b.gguf"),
        CompanionFile("template", f"{place_a}/t.jinja"),
    )
    labels = [file.label for file in found.extra_files]
    assert labels == ["big draft", "big lora", "big lora 2", "big template"]
    assert [file.is_text for file in found.extra_files] == [False, False, False, True]


def test_errors_name_the_line() -> None:
    """Also below a list."""
    with pytest.raises(Exception, match=rf"{WHERE}:{LINE}: models\.big\.lora\.0\.url: ftp"):
        compile_catalogue(entry(lora=[{"url": "ftp://e.org/a.gguf"}]), WHERE)
