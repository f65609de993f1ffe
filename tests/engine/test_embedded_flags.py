"""The embedded engine's flags: each has an attribute of the installed version (issue 15.5)."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tasks.engine import embedded_values
from tasks.engine.embedded import IGNORED, OPTIONS
from tasks.engine.embedded_flags import FLAGS, suggestion

# a value of each type that is not the default of any flag
VALUES = {
    "int": "7", "float": "0.25", "text": "x", "path": "/x", "bit": "1", "prio": "2", "flash": "on",
    "rope": "yarn", "inverse": "2", "cache": "q8_0", "load": "dio", "lazy": "on", "numa": "isolate",
    "split": "row", "floats": "3,1", "onoff": "off", "mebibytes": "512", "lora": '"a,b",c',
    "scaled": "C:\\a:0.5",
    "seed": "5", "spec": "draft-simple,ngram-mod", "sampling": "probabilistic", "layers": "all", "more": "x",
    "names": "a, b", "json": '{"a": true}', "format": "none", "reasoning": "off", "pooling": "last",
    "list": "a,b", "mask": "0x5", "range": "1-2", "grammar": 'root ::= "a"',
}  # fmt: skip
# xllamacpp checks these against the devices and buffers of the machine
OF_THE_MACHINE = ("tensor_buft_overrides", "devices", "mmproj_device", "samplers")

# flags of llama-server whose parameter CommonParams does not have, or that another engine's user needs
ABSENT = {
    *("--help", "--version", "--cache-list", "--completion-bash", "--list-devices"),
    *("--defrag-thold", "--rpc", "--device"),
    *("--cpu-moe", "--n-cpu-moe", "--moe-cache-mib", "--n-cpu-ffn", "--override-kv", "--control-vector"),
    *("--control-vector-scaled", "--control-vector-layer-range", "--model-url", "--docker-repo"),
    *("--hf-repo", "--hf-file", "--hf-token", "--log-disable", "--log-file", "--log-colors"),
    *("--log-prefix", "--log-timestamps", "--sampler-seq", "--top-nsigma", "--dry-sequence-breaker"),
    *("--logit-bias", "--json-schema", "--json-schema-file", "--spec-draft-hf"),
    "--spec-draft-cpu-moe",
    *("--spec-draft-n-cpu-moe", "--spec-draft-n-ubatch", "--draft", "--draft-min"),
    *("--spec-ngram-size-n", "--spec-ngram-size-m", "--spec-ngram-min-hits", "--spm-infill"),
    *("--mmproj-url", "--agent", "--api-key-file", "--models-dir", "--models-preset", "--models-max"),
    *("--models-autoload", "--reasoning-effort", "--reasoning-preserve", "--embd-gemma-default"),
    "--spec-default",
}  # fmt: skip
PRESETS = ("--fim-", "--gpt-oss-", "--vision-")  # of models that are downloaded


def params() -> Any:
    return pytest.importorskip("xllamacpp").CommonParams()


def attribute(params: Any, path: str) -> Any:
    for name in path.split("."):
        params = getattr(params, name)
    return params


@pytest.mark.parametrize("name", FLAGS)
def test_a_flag_sets_its_attribute(name: str, tmp_path: Path) -> None:
    """Each row of the table fits the installed package."""
    flag, changed = FLAGS[name], params()
    if flag.attributes[0].endswith(OF_THE_MACHINE):
        assert isinstance(attribute(changed, flag.attributes[0]), str)
        return
    file = tmp_path / "text"
    file.write_text('root ::= "a"')
    value = str(file) if flag.kind in ("file", "grammars") else VALUES.get(flag.kind, "")
    embedded_values.apply(pytest.importorskip("xllamacpp"), changed, [(name, value)])
    for path in flag.attributes:
        after = attribute(changed, path)
        if flag.kind in ("set", "unset"):
            assert after is (flag.kind == "set")
        else:
            assert repr(after) != repr(attribute(params(), path)), path


def test_the_last_one_wins_and_lists_grow() -> None:
    """As llama-server reads them; a sampling parameter is marked as the user's."""
    engine, changed = pytest.importorskip("xllamacpp"), params()
    words = [
        ("--temp", "1"),
        ("--temp", "0.5"),
        ("--lora", "a"),
        ("--lora-scaled", "b:c:2"),
        ("--rerank", ""),
    ]
    embedded_values.apply(engine, changed, words)
    assert changed.sampling.temp == 0.5
    mark = engine.common_params_sampling_config.COMMON_PARAMS_SAMPLING_CONFIG_TEMP
    assert changed.sampling.user_sampling_config == int(mark)
    assert [(one.path, one.scale) for one in changed.lora_adapters] == [("a", 1.0), ("b:c", 2.0)]
    assert changed.embedding is True


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("--top-k", "x", "--top-k: 'x' is not valid (invalid literal"),
        ("--pooling", "men", "--pooling: 'men' is not valid (an unknown name)"),
        ("--reasoning", "maybe", "--reasoning: 'maybe' is not valid (expected one of on, off, auto)"),
        ("--lora-scaled", "a", "--lora-scaled: 'a' is not valid (expected FILE:SCALE)"),
        ("--chat-template-file", "/nope", "--chat-template-file: '/nope' is not valid ([Errno 2]"),
        (
            "--chat-template-kwargs",
            "[]",
            "--chat-template-kwargs: '[]' is not valid (expected a JSON object)",
        ),
        ("--n-parallel", "", "; did you mean --parallel?"),
        ("--embeding", "", "; did you mean --embedding?"),
        ("--zzz", "", ""),
    ],
)
def test_a_wrong_one(name: str, value: str, said: str) -> None:
    """An error names the flag, its value and what is expected; an unknown flag the nearest."""
    if name not in FLAGS:
        assert suggestion(name, [*OPTIONS]) == said
        return
    with pytest.raises(ValueError, match="is not valid") as caught:
        embedded_values.apply(pytest.importorskip("xllamacpp"), params(), [(name, value)])
    assert str(caught.value).startswith(said)


def test_no_flag_of_llama_server_is_forgotten(llama_server: Path) -> None:
    """What `llama-server --help` lists is in the table, or named here as one without an attribute."""
    text = subprocess.run([llama_server, "--help"], capture_output=True, text=True, check=True).stdout
    lines = [line for line in text.splitlines() if re.match("--?[a-zA-Z]", line)]
    known = {*FLAGS, *OPTIONS, *IGNORED, *ABSENT}
    forgotten = []
    for line in lines:
        names = re.findall(r"(?:^|, *)(--?[a-zA-Z][\w.-]*)", line)
        if not known & set(names) and not names[-1].startswith(PRESETS):
            forgotten.append(names)
    assert not forgotten
