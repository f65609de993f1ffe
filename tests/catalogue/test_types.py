"""Looking things up in a catalogue, and what the shipped one holds."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict, fields
from pathlib import Path

import pytest
from tasks.catalogue.constraints import ENGINES
from tasks.catalogue.schema import CatalogueFile, compile_catalogue
from tasks.catalogue.serve_options import ServeOptions
from tasks.catalogue.types import Catalogue, Engine, Model
from tasks.errors import UsageError
from tasks.urls import MODEL_ENDINGS, filename_of, is_local, url_error

from tests.support.catalogues import BIG_URL, WHERE, catalogue, edited

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "models.yaml").read_text("utf-8")
SHIPPED = Catalogue(compile_catalogue(TEXT, "models.yaml"), "models.yaml")
MODELS = [
    pytest.param(SHIPPED.model(name, variant), id=f"{name} {variant}".strip())
    for name in SHIPPED.names
    for variant in SHIPPED.variants(name) or ("",)
]


@pytest.mark.parametrize(
    ("word", "name"),
    [
        pytest.param("tiny", "tiny", id="a name"),
        pytest.param("TINY", "tiny", id="in another case"),
        pytest.param("small", "tiny", id="an alias"),
        pytest.param("Small", "tiny", id="an alias in another case"),
        pytest.param("big", "big", id="another model"),
    ],
)
def test_found_by_name_or_alias(word: str, name: str) -> None:
    """One word finds one model, in any case."""
    assert catalogue().name(word) == name
    assert catalogue().model(word).title == catalogue().model(name).title


@pytest.mark.parametrize(
    ("word", "fix"),
    [
        pytest.param("tinny", "did you mean tiny?", id="a name is near"),
        pytest.param("smal", "did you mean small?", id="an alias is near"),
        pytest.param("xyzzy", "`doit` shows the models", id="nothing is near"),
        pytest.param("", "`doit` shows the models", id="nothing"),
    ],
)
def test_unknown_model(word: str, fix: str) -> None:
    """The message has the catalogue's path and the nearest names."""
    with pytest.raises(UsageError) as caught:
        catalogue().model(word)
    assert caught.value.what == f"there is no model {word!r} in {WHERE}"
    assert caught.value.fix == fix


def test_entries() -> None:
    """Entries are whole: lists are tuples, what is not said has its default."""
    found = catalogue()
    big = found.model("big")
    assert found.names == ("tiny", "big")
    assert (big.url, big.mirrors, big.aliases) == (BIG_URL, ("https://example.net/big.gguf",), ())
    assert (big.sha256, big.size, big.engine, asdict(big.serve)) == (None, None, None, asdict(ServeOptions()))
    assert (found.model("tiny").serve.ctx_size, found.defaults.ctx_size) == (0, 4096)
    assert (found.engine("llamafile").version, found.engine("llamafile").mirrors) == ("0.10.5", ())
    assert found.by_filename("tiny.llamafile") == "tiny"
    assert found.by_filename("other.llamafile") is None


def test_engine_that_is_not_there() -> None:
    """The message says what to add."""
    with pytest.raises(UsageError, match=r"add engines\.embedded to it"):
        catalogue().engine("embedded")


def test_the_first_of_two_models_with_one_file_name() -> None:
    """`--llamafile tiny.llamafile` means the first entry whose file is called that."""
    text = edited(BIG_URL, "https://example.com/tiny.llamafile")
    assert catalogue(text).by_filename("tiny.llamafile") == "tiny"


@pytest.mark.parametrize(
    ("upper", "lower", "merged"),
    [
        pytest.param(
            ServeOptions(), ServeOptions(port=1), {"port": 1}, id="what is not said comes from below"
        ),
        pytest.param(ServeOptions(port=2), ServeOptions(port=1), {"port": 2}, id="what is said holds"),
        pytest.param(
            ServeOptions(port=0, ctx_size=0),
            ServeOptions(port=1, ctx_size=1),
            {"port": 0, "ctx_size": 0},
            id="0 is something said",
        ),
        pytest.param(
            ServeOptions(args=("b",)),
            ServeOptions(args=("a",)),
            {"args": ("a", "b")},
            id="args add up, the upper ones last",
        ),
    ],
)
def test_levels_of_settings(upper: ServeOptions, lower: ServeOptions, merged: dict[str, object]) -> None:
    """R17: every level says what it has to say."""
    assert asdict(upper.over(lower)) == {**asdict(ServeOptions()), **merged}


def test_default_is_the_reference_s_model() -> None:
    """R1, R11: the file, its settings, and a URL that cannot change."""
    assert SHIPPED.default == "mistral"
    model = SHIPPED.model(SHIPPED.default)
    assert filename_of(model.url) == "mistral-7b-instruct-v0.2.Q5_K_M.llamafile"
    assert (model.serve.ctx_size, model.serve.n_predict) == (0, 1024)
    assert any("/jartine/Mistral-7B-Instruct-v0.2-llamafile/" in url for url in model.mirrors)


def test_about_thirty_models_and_one_without_a_download() -> None:
    """R37: the catalogue is worth having, and the demo model is in the repository."""
    assert len(SHIPPED.names) >= 30
    local = [name for name in SHIPPED.names if is_local(SHIPPED.model(name).url)]
    assert local == ["demo"]
    assert (ROOT / SHIPPED.model("demo").url).stat().st_size == SHIPPED.model("demo").size


@pytest.mark.parametrize("model", MODELS)
def test_shipped_model(model: Model) -> None:
    """R1, R21, R33: pinned by digest, and by commit where a source has it; licensed, with a name to serve."""
    assert model.sha256
    assert model.license
    assert model.ram or not model.params  # an estimate needs the parameters
    revision = "[0-9a-f]{40}"
    if model.url.endswith(".gguf"):  # of the gallery, which states none
        revision = "main"
    assert filename_of(model.url).endswith(MODEL_ENDINGS)
    for url in (model.url, *model.mirrors):
        hub = rf"^https://huggingface\.co/[^/]+/[^/]+/resolve/{revision}/"
        assert is_local(url) or re.search(hub, url)
        assert not url_error(url, pinned=False)
        assert filename_of(url) == filename_of(model.url)


def test_no_file_is_listed_twice() -> None:
    """Two entries are two files; the one behind a file name is clear."""
    for values in (
        [SHIPPED.model(name).sha256 for name in SHIPPED.names],
        [filename_of(SHIPPED.model(name).url) for name in SHIPPED.names],
    ):
        assert [value for value, count in Counter(values).items() if count > 1] == []


def test_shipped_engines() -> None:
    """R9, R16, R33: the engine's version is data, and its program is pinned."""
    engine = SHIPPED.engine("llamafile")
    assert engine.url
    assert engine.url.endswith(f"/{engine.version}/llamafile-{engine.version}")
    assert engine.sha256
    assert engine.license == "Apache-2.0"
    assert SHIPPED.engine("embedded").license


@pytest.mark.parametrize("table", [CatalogueFile, Model, Engine, ServeOptions])
def test_comments_of_the_catalogue_explain_every_key(table: type) -> None:
    """models.yaml's comments are the reference of its keys, so none may be missing there."""
    comment = TEXT[: TEXT.index("\nversion: 1")]
    keys = {field.name for field in fields(table)}
    assert {
        key for key in keys if not re.search(rf"^#   [a-z0-9_, ]*\b{key}\b", comment, re.MULTILINE)
    } == set()


def test_engines_of_the_catalogue() -> None:
    """Every engine the code knows has an entry; `self` is in the model's own file."""
    assert {name for name in ENGINES if name != "self" and SHIPPED.engine(name).title} == {
        "llamafile",
        "embedded",
        "llama-server",
    }
