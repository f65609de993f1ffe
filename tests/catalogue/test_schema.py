"""models.yaml: every error at once, each with its line; and the JSON Schema for editors (R37)."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydantic
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tasks.catalogue.schema import compile_catalogue, json_schema
from tasks.catalogue.types import Catalogue
from tasks.errors import UsageError

from tests.support.catalogues import A64, BIG_URL, TINY_URL, VALID, WHERE, edited

NEEDS_PROGRAM = (
    "models.big.engine: llamafile serves it, so engines.llamafile needs url and version "
    "(or: engine: embedded)"
)

ROOT = Path(__file__).parents[2]
SCHEMA_FILE = ROOT / "models.schema.json"
NAME = "a name of letters, digits, '.', '_' and '-', 100 at most"
PYDANTIC = tuple(int(part) for part in pydantic.VERSION.split(".")[:2])
MODEL_KEYS = (
    "title, license, url, hf, file, revision, id, aliases, mirrors, sha256, size, parts, kind, mmproj, "
    "draft, lora, template, params, quant, ram, engine, engine_version, serve, variants, checks"
)


@functools.cache
def editor() -> Any:
    """The schema as an editor uses it. Imported here: the import takes seconds in every process."""
    from jsonschema import Draft202012Validator  # type: ignore[import-untyped,unused-ignore]

    return Draft202012Validator(json.loads(SCHEMA_FILE.read_text("utf-8")))


def problems(text: str) -> list[str]:
    """The error lines of a catalogue, without the file's name."""
    with pytest.raises(UsageError) as caught:
        compile_catalogue(text, WHERE)
    head, *lines = str(caught.value).splitlines()
    assert lines.pop() == f"  fix: edit {WHERE}"
    assert head == f"{WHERE} has {len(lines)} error{'s' * (len(lines) != 1)}:"
    return [line.removeprefix(f"  {WHERE}:") for line in lines]


def url_row(url: str, expected: str, name: str) -> Any:
    return pytest.param(TINY_URL, url, [f"14: models.tiny.url: {expected}"], id=name)


# (text to replace, its replacement, the lines of the message); SEEN: the JSON Schema refuses it as well
SEEN = [
    # ---- unknown keys, at every level
    pytest.param(
        "default: tiny\n",
        "default: tiny\ndefalts: {}\n",
        ["3: defalts: unknown key; did you mean defaults, default, models?"],
        id="unknown key at the top",
    ),
    pytest.param(
        "    title: Tiny 1B",
        "    titel: Tiny 1B",
        [
            "11: models.tiny.title: this key is required",
            "12: models.tiny.titel: unknown key; did you mean title?",
        ],
        id="unknown key in a model, and so the right one is missing",
    ),
    pytest.param(
        "    size: 1000",
        "    xyzzy: 1000",
        [f"16: models.tiny.xyzzy: unknown key; the keys here are {MODEL_KEYS}"],
        id="unknown key that is near to none",
    ),
    pytest.param(
        "    license: Apache-2.0",
        "    license: MIT\n    mirror: []",
        ["10: engines.llamafile.mirror: unknown key; did you mean mirrors?"],
        id="unknown key in an engine",
    ),
    pytest.param(
        "{ctx_size: 4096}",
        "{ctx-size: 4096}",
        ["3: defaults.ctx-size: unknown key; did you mean ctx_size?"],
        id="unknown key in defaults",
    ),
    pytest.param(
        "{ctx_size: 0}",
        "\n      treads: 0",
        ["20: models.tiny.serve.treads: unknown key; did you mean threads?"],
        id="unknown key in serve, on its own line",
    ),
    # ---- wrong types
    pytest.param("version: 1", "version: 2", ["1: version: expected 1, got 2"], id="another format"),
    pytest.param(
        "version: 1",
        'version: "1"',
        ['1: version: expected a whole number, got "1"'],
        id="a number in quotes",
    ),
    pytest.param(
        '"0.8.6"',
        "0.10",
        ["18: models.tiny.engine_version: expected text, got 0.1; put it in quotes"],
        id="a version without quotes",
    ),
    pytest.param(
        '"0.10.5"',
        "0.9",
        ["7: engines.llamafile.version: expected text, got 0.9; put it in quotes"],
        id="an engine's version without quotes",
    ),
    pytest.param(
        '"0.8.6"',
        '"latest"',
        ['18: models.tiny.engine_version: expected a version in quotes, such as "0.9.3", got "latest"'],
        id="a word as version",
    ),
    pytest.param(
        '"0.8.6"',
        '"0.8.6.1"',
        ['18: models.tiny.engine_version: expected a version in quotes, such as "0.9.3", got "0.8.6.1"'],
        id="a version of four numbers",
    ),
    pytest.param(
        "[small]",
        "x" * 79,
        ['13: models.tiny.aliases: expected a list, got "' + "x" * 76 + "…"],
        id="a long value is cut to 78 characters",
    ),
    pytest.param(
        "Tiny 1B",
        "2024-05-14",
        ['12: models.tiny.title: expected text, got {"date": "2024-05-14"}; put it in quotes'],
        id="a date where text is expected",
    ),
    pytest.param(
        "size: 1000",
        "size: 1.5",
        ["16: models.tiny.size: expected a whole number, got 1.5"],
        id="a fraction of a byte",
    ),
    pytest.param(
        "size: 1000",
        "size: yes",
        ["16: models.tiny.size: expected a whole number, got true"],
        id="yes is no number",
    ),
    pytest.param(
        "size: 1000",
        "size: 0",
        ["16: models.tiny.size: expected a whole number of bytes above 0, got 0"],
        id="an empty file",
    ),
    pytest.param(
        "[small]", "small", ['13: models.tiny.aliases: expected a list, got "small"'], id="a word as list"
    ),
    pytest.param(
        "[small]",
        "[small, 7]",
        ["13: models.tiny.aliases.1: expected text, got 7; put it in quotes"],
        id="a number as alias",
    ),
    pytest.param(
        "{ctx_size: 0}",
        "{port: 70000, ctx_size: -1, n_predict: -2, ngl: -2, threads: 0, timeout: 0, gpu: cuda, args: [4]}",
        [
            "19: models.tiny.serve.args.0: expected text, got 4; put it in quotes",
            "19: models.tiny.serve.ctx_size: expected a whole number from 0 to 999,999,999, got -1",
            "19: models.tiny.serve.gpu: expected one of auto, disable, amd, apple, nvidia, vulkan,"
            ' got "cuda"',
            "19: models.tiny.serve.n_predict: expected a whole number from -1 to 999,999,999, got -2",
            "19: models.tiny.serve.ngl: expected a whole number from -1 to 999,999,999, got -2",
            "19: models.tiny.serve.port: expected a whole number from 0 to 65535, got 70000",
            "19: models.tiny.serve.threads: expected a whole number from 1 to 999,999,999, got 0",
            "19: models.tiny.serve.timeout: expected a whole number from 1 to 999,999,999, got 0",
        ],
        id="every setting out of its range, all at once",
    ),
    pytest.param(
        "    engine_version",
        "    ram: 0\n    engine: ollama\n    engine_version",
        [
            "18: models.tiny.ram: expected a whole number from 1 to 999,999,999, got 0",
            '19: models.tiny.engine: expected one of self, llamafile, embedded, llama-server, got "ollama"',
        ],
        id="an engine that there is not",
    ),
    pytest.param(
        "  tiny:\n",
        "  ti ny:\n",
        [
            "2: default: there is no model 'tiny'; did you mean ti ny?",
            f'11: models.ti ny: expected {NAME}, got "ti ny"',
        ],
        id="a name with a blank",
    ),
    pytest.param(
        "[small]",
        "[smäll]",
        [f'13: models.tiny.aliases.0: expected {NAME}, got "smäll"'],
        id="a name with a letter that is not ASCII",
    ),
    pytest.param(
        VALID[VALID.index("  big:") :],
        "  big: 9\n",
        ["20: models.big: expected lines of `key: value`, got 9"],
        id="an entry that is a number",
    ),
    pytest.param(
        VALID[VALID.index("  big:") :],
        f"  serve: {{title: S, url: '{BIG_URL}', license: MIT, arg: 1}}\n",
        [f"20: models.serve.arg: unknown key; the keys here are {MODEL_KEYS}"],
        id="a model called serve has a model's keys",
    ),
    # ---- digests
    pytest.param(
        A64,
        A64[1:],
        [f'15: models.tiny.sha256: expected 64 lower-case hexadecimal digits, got "{A64[1:]}"'],
        id="a digit too few",
    ),
    pytest.param(
        A64,
        A64.upper(),
        [f'15: models.tiny.sha256: expected 64 lower-case hexadecimal digits, got "{A64.upper()}"'],
        id="a digest in capitals",
    ),
    pytest.param(
        A64,
        "1" * 64,
        ["15: models.tiny.sha256: expected text, got " + "1" * 64 + "; put it in quotes"],
        id="a digest of digits alone, without quotes",
    ),
    # ---- folders of other programs' files
    pytest.param(
        "default: tiny\n",
        "default: tiny\nadopt_form: [a]\n",
        ["3: adopt_form: unknown key; did you mean adopt_from?"],
        id="adopt_from, misspelt",
    ),
    pytest.param(
        "default: tiny\n",
        "default: tiny\nadopt_from: /mnt/models\n",
        ['3: adopt_from: expected a list, got "/mnt/models"'],
        id="a folder without a list",
    ),
    pytest.param(
        "default: tiny\n",
        "default: tiny\nadopt_from:\n",
        ["3: adopt_from: expected a list, got null"],
        id="a list that was forgotten",
    ),
    pytest.param(
        "default: tiny\n",
        "default: tiny\nadopt_from:\n  - /mnt\n  - 7\n",
        ["5: adopt_from.1: expected text, got 7; put it in quotes"],
        id="a number as folder, on its own line",
    ),
    pytest.param(
        "    title: Tiny 1B\n",
        "    title: Tiny 1B\n    adopt_from: [/mnt]\n",
        [f"13: models.tiny.adopt_from: unknown key; the keys here are {MODEL_KEYS}"],
        id="adopt_from is of the whole catalogue, not of a model",
    ),
    # ---- all at once, in the order of the lines
    pytest.param(
        VALID[: VALID.index("models:")],
        "default: nowhere\nengines: []\n",
        [
            "1: default: there is no model 'nowhere'",
            "1: version: this key is required",
            "2: engines: expected lines of `key: value`, got []",
            f"13: {NEEDS_PROGRAM}",
        ],
        id="a top level with three faults",
    ),
]
UNSEEN = [
    # ---- URLs
    url_row(
        "ftp://h/x.gguf",
        "ftp://h/x.gguf: expected https://, http://, oci://, file:// or a path, got ftp:",
        "ftp",
    ),
    url_row("https:///x.gguf", "https:///x.gguf has no host", "no host"),
    url_row("https://h/", "https://h/ has no file name", "no file"),
    url_row("https://h/a/..", "https://h/a/.. has no file name", "a directory"),
    url_row(
        "https://u:p@h/x.gguf", "https://…@h: no user or password in a URL, it ends up in logs", "a password"
    ),
    url_row('""', "expected a URL, got ''", "nothing"),
    pytest.param(
        BIG_URL,
        "http://example.org/big.gguf",
        [
            "22: models.big.url: http://example.org/big.gguf: plain http is allowed only with a sha256,"
            " or from this machine"
        ],
        id="plain http without a digest",
    ),
    pytest.param(
        "[https://example.net/big.gguf]",
        "\n    - https://example.net/big.gguf\n    - http://example.com/big.gguf",
        [
            "25: models.big.mirrors.1: http://example.com/big.gguf: plain http is allowed only with a sha256,"
            " or from this machine"
        ],
        id="a mirror with plain http, on its own line",
    ),
    pytest.param(
        "https://example.org/llamafile-0.10.5",
        "gopher://h/x",
        [
            "8: engines.llamafile.url: gopher://h/x: expected https://, http://, oci://, file:// or a path,"
            " got gopher:"
        ],
        id="an engine's URL",
    ),
    # ---- names
    pytest.param(
        "  big:\n",
        "  big:\n    aliases: [large, SMALL]\n",
        ["21: models.big.aliases.1: the name 'SMALL' is taken by models.tiny"],
        id="an alias taken by an alias, in another case",
    ),
    pytest.param(
        "[small]",
        "[small, small]",
        ["13: models.tiny.aliases.1: the name 'small' is taken by models.tiny"],
        id="an alias twice",
    ),
    pytest.param(
        "  big:\n",
        "  TINY:\n",
        ["20: models.TINY: the name 'TINY' is taken by models.tiny"],
        id="two names that differ by case",
    ),
    pytest.param(
        "[small]",
        "[Big]",
        ["20: models.big: the name 'big' is taken by models.tiny"],
        id="an alias that is another model's name",
    ),
    pytest.param(
        "default: tiny",
        "default: tinny",
        ["2: default: there is no model 'tinny'; did you mean tiny?"],
        id="a default that is not there",
    ),
    pytest.param(
        "  llamafile:\n",
        "  llamafil:\n",
        ["5: engines.llamafil: unknown engine; did you mean llamafile?", f"20: {NEEDS_PROGRAM}"],
        id="an engine nobody knows",
    ),
    # ---- an engine that cannot serve the file
    pytest.param(
        "    engine_version",
        "    engine: embedded\n    engine_version",
        ["18: models.tiny.engine: the embedded engine reads .gguf files: expected self or llamafile"],
        id="embedded for a .llamafile",
    ),
    pytest.param(
        BIG_URL,
        "https://example.org/big.GGUF\n    engine: self",
        ["23: models.big.engine: a .gguf is not a program: expected llamafile or embedded"],
        id="F10: the ending in another case",
    ),
    pytest.param(
        BIG_URL,
        f"{BIG_URL}?download=true\n    engine: self",
        ["23: models.big.engine: a .gguf is not a program: expected llamafile or embedded"],
        id="F21: the query is not part of the name",
    ),
    # ---- what YAML makes of a text
    pytest.param(
        "    license: MIT\n",
        "    license: MIT\n    license: X\n",
        ["17: models.tiny.license: duplicate key: lines 17 and 18"],
        id="a key twice",
    ),
    pytest.param(
        "  big:\n", "  tiny:\n", ["11: models.tiny: duplicate key: lines 11 and 20"], id="a model twice"
    ),
    pytest.param(
        "  big:\n",
        "  9:\n",
        ["20: models.9: a key must be text; put it in quotes"],
        id="a name that YAML takes for a number",
    ),
    pytest.param(
        "  big:\n",
        "  no:\n",
        ["20: models.no: a key must be text; put it in quotes"],
        id="a name that YAML takes for false",
    ),
    pytest.param(
        "  big:\n",
        "  2024-05-14:\n",
        ["20: models.2024-05-14: a key must be text; put it in quotes"],
        id="a name that YAML takes for a date",
    ),
    pytest.param(
        VALID,
        "",
        ["1: (top level): expected lines of `key: value`, beginning with `version: 1`"],
        id="an empty file",
    ),
    pytest.param(
        VALID,
        "# nothing but a comment\n",
        ["1: (top level): expected lines of `key: value`, beginning with `version: 1`"],
        id="a comment",
    ),
    pytest.param(
        VALID,
        "- version: 1\n",
        ["1: (top level): expected lines of `key: value`, beginning with `version: 1`"],
        id="a list",
    ),
    pytest.param(
        "serve: {ctx_size: 0}",
        "serve: &it {args: *it}",
        ["1: (top level): an alias (*name) is inside the value that it names"],
        id="an alias inside itself",
    ),
]


@pytest.mark.parametrize(("old", "new", "lines"), SEEN + UNSEEN)
def test_errors_with_line_path_and_remedy(old: str, new: str, lines: list[str]) -> None:
    """All errors at once, in the order of the file."""
    assert problems(edited(old, new)) == lines


@pytest.mark.once
@pytest.mark.parametrize(("old", "new", "lines"), SEEN)
def test_editors_see_it_too(old: str, new: str, lines: list[str]) -> None:
    """The JSON Schema refuses what a type, a range or a pattern can say."""
    data = yaml.safe_load(edited(old, new))
    assert not editor().is_valid(json.loads(json.dumps(data, default=lambda v: {"date": str(v)})))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("a: [1, 2", "did not find expected ',' or ']'", id="an open bracket"),
        pytest.param("a: b: c\n", "line 1, column 5: mapping values are not allowed", id="two colons"),
        pytest.param("a:\n\t- b\n", "line 2, column 1: ", id="a tab"),
        pytest.param("a: *b\n", "line 1, column 4: found undefined alias", id="an alias of nothing"),
        pytest.param("a: 1\n---\nb: 2\n", "line 2, column 1: but found another document", id="two documents"),
        pytest.param(
            "a: !!python/name:os.system x\n", "could not determine a constructor", id="a Python tag"
        ),
        pytest.param("a: \0\n", "characters are not allowed", id="a control character"),
        pytest.param("? [a]\n: b\n", "found unhashable key", id="a list as key"),
    ],
)
def test_not_yaml(text: str, message: str) -> None:
    """The parser's reason with its line and column, and no traceback."""
    with pytest.raises(UsageError, match=f"^{WHERE} is not YAML: ") as caught:
        compile_catalogue(text, WHERE)
    assert message.lower() in str(caught.value).lower()
    assert str(caught.value).endswith(f"fix: edit {WHERE}")


@pytest.mark.parametrize(
    ("old", "new", "check"),
    [
        pytest.param("", "", lambda c: c.default == "tiny", id="as it is"),
        pytest.param("default: tiny", "default: SMALL", lambda c: c.default == "tiny", id="default by alias"),
        pytest.param(
            "[small]", "[t-1, 9.b_]", lambda c: c.name("9.B_") == "tiny", id="names of all characters"
        ),
        pytest.param("size: 1000", "size: 1", lambda c: c.model("tiny").size == 1, id="the smallest file"),
        pytest.param("default: tiny", "default: Big", lambda c: c.default == "big", id="in another case"),
        pytest.param("defaults: {ctx_size: 4096}\n", "", lambda c: c.defaults.args == (), id="no defaults"),
        pytest.param("", "", lambda c: c.adopt_from == (), id="no folders"),
        pytest.param(
            "default: tiny\n",
            "default: tiny\nadopt_from: []\n",
            lambda c: c.adopt_from == (),
            id="a list of no folders",
        ),
        pytest.param(
            "default: tiny\n",
            "default: tiny\nadopt_from: [../models, /mnt/m, ~/m, 'D:\\m']\n",
            lambda c: c.adopt_from == ("../models", "/mnt/m", "~/m", "D:\\m"),
            id="folders as they are written",
        ),
        pytest.param(
            "  big:\n    title: Big 9B\n",
            "  big:\n    <<: {title: Big 9B, params: 9B}\n",
            lambda c: c.model("big").params == "9B",
            id="a YAML merge key",
        ),
        pytest.param(
            "license: MIT",
            "license: !!str 2024-05-14",
            lambda c: c.model("tiny").license == "2024-05-14",
            id="a date as text",
        ),
        pytest.param(
            TINY_URL,
            "https://h/tiny?FilePath=x.gguf\n    engine: self",
            lambda c: c.model("tiny").engine == "self",
            id="F21: an ending in the query is not that of the file",
        ),
        pytest.param(
            TINY_URL,
            f"http://localhost/tiny.llamafile\n    mirrors: ['file:///srv/tiny', {TINY_URL}, models/tiny]",
            lambda c: len(c.model("tiny").mirrors) == 3,
            id="every kind of source",
        ),
    ],
)
def test_accepted(old: str, new: str, check: Callable[[Catalogue], bool]) -> None:
    """What may be written in more than one way means the same."""
    plain = compile_catalogue(edited(old, new), WHERE)
    assert json.loads(json.dumps(plain)) == plain  # it is kept as JSON, where a tuple would be a list
    assert check(Catalogue(plain, WHERE))


def _places(tree: Any, seen: frozenset[int] = frozenset()) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) below a tree."""
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys if id(tree) not in seen else ():
        yield tree, key
        yield from _places(tree[key], seen | {id(tree)})


_WORDS = st.sampled_from(
    ["tiny", "TINY", "small", "self", "é", "0.²", A64, TINY_URL, "https://h/..", "title"]
)
_KEYS = _WORDS | st.text(max_size=5) | st.integers() | st.booleans() | st.none() | st.dates()
_VALUES = st.recursive(
    _KEYS | st.floats() | st.binary() | st.datetimes() | st.sets(st.text(max_size=3), max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_KEYS, inner, max_size=2),
    max_leaves=4,
)


@st.composite
def mutants(draw: st.DrawFn) -> str:
    """The valid catalogue with up to three keys dropped, renamed, retyped or doubled."""
    tree: Any = {"": yaml.safe_load(VALID + "adopt_from: [/mnt, ~/models]\n")}
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(tree))
        box, key = places[draw(st.integers(0, len(places) - 1))]
        act = draw(st.sampled_from(["drop", "rename", "retype", "share"]))
        if act == "drop" and box is not tree:
            del box[key]
        elif act == "rename" and isinstance(box, dict) and box is not tree:
            box[draw(_KEYS)] = box.pop(key)
        elif act == "share":
            box[key] = places[draw(st.integers(0, len(places) - 1))][0]  # an alias, maybe of itself
        else:
            box[key] = draw(_VALUES)
    return yaml.safe_dump(tree[""], sort_keys=False, allow_unicode=True)


@given(mutants())
def test_any_catalogue_is_taken_or_explained(text: str) -> None:
    """Nothing but UsageError; what is taken can be looked up, survives JSON, and no editor objects to it."""
    try:
        plain = compile_catalogue(text, WHERE)
    except UsageError:
        return
    assert json.loads(json.dumps(plain)) == plain
    found = Catalogue(plain, WHERE)
    for name in (found.default, *found.names):
        assert found.model(name).title is not None
        assert found.model(name.upper()).url == found.model(name).url
    assert editor().is_valid(yaml.safe_load(text))


@given(st.text() | st.text("{}[]:-*&!|>'\" \n\tab01%#?,"))
def test_any_text_is_taken_or_explained(text: str) -> None:
    """Not one of these can be a catalogue, and none gives a traceback."""
    with pytest.raises(UsageError, match=f"^{WHERE} "):
        compile_catalogue(text, WHERE)


@pytest.mark.skipif(PYDANTIC < (2, 13), reason="older ones say the same in other words")
def test_schema_in_the_repository() -> None:
    """models.schema.json is what the types say."""
    write = (
        "python -c 'import json; from tasks.catalogue.schema import json_schema;"
        " print(json.dumps(json_schema(), indent=1))' > models.schema.json"
    )
    assert SCHEMA_FILE.read_text("utf-8") == json.dumps(json_schema(), indent=1) + "\n", f"run: {write}"


def test_schema_takes_the_shipped_catalogue() -> None:
    """Editors find it by the first line of models.yaml, and have nothing to say about the rest."""
    editor().check_schema(editor().schema)
    shipped = (ROOT / "models.yaml").read_text("utf-8")
    assert shipped.startswith(f"# yaml-language-server: $schema=./{SCHEMA_FILE.name}\n")
    for text in (shipped, VALID):
        assert [e.message for e in editor().iter_errors(yaml.safe_load(text))] == []


def test_schema_explains_every_key() -> None:
    """An editor shows each key's meaning."""
    tables = [
        editor().schema["$defs"][name]["properties"]
        for name in ("Model", "Engine", "ServeOptions", "Sampling", "Adapter")
    ]
    described = {key: "description" in field for table in tables for key, field in table.items()}
    assert all(described.values()), described
    assert "description" in editor().schema["properties"]["adopt_from"]
