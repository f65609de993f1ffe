"""Plain data that should be a catalogue."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tasks.catalogue.compiled_form import KINDS, is_catalogue
from tasks.catalogue.schema import compile_catalogue
from tasks.catalogue.serve_options import Sampling, ServeOptions
from tasks.catalogue.types import Catalogue, Engine, FileSpec, Model

from tests.support.catalogues import VALID, WHERE

SPLIT = "big-00001-of-00002.gguf"
PLAIN = json.loads(
    json.dumps(compile_catalogue(VALID.replace("big.gguf", SPLIT) + "adopt_from: [/srv]\n", WHERE))
)


@pytest.mark.parametrize("kind", [Model, Engine, ServeOptions, Sampling])
def test_every_field_has_a_type(kind: Any) -> None:
    """A new key of models.yaml needs one here; the rows of `more` have as many fields as they are checked."""
    assert set(kind.__dataclass_fields__) <= set(KINDS)
    assert len(FileSpec("").as_row()) == 6


def test_what_is_compiled_fits() -> None:
    """Parts, mirrors, settings, engines and all."""
    assert PLAIN["models"]["big"]["more"]
    assert is_catalogue(PLAIN)


_ANY = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text()) | st.just({"a": 1})


def _paths(plain: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value in it."""
    inner: Any = plain.items() if isinstance(plain, dict) else enumerate(plain)
    found = []
    for key, value in inner:
        found.append((*here, key))
        if isinstance(value, (dict, list)):
            found += _paths(value, (*here, key))
    return found


@given(st.sampled_from(_paths(PLAIN)), _ANY)
def test_any_value_anywhere(path: tuple[Any, ...], value: Any) -> None:
    """What passes is used without an exception, whatever stands in one place of it."""
    plain = json.loads(json.dumps(PLAIN))
    place = plain
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    if not is_catalogue(plain):
        return
    catalogue = Catalogue(plain, WHERE)
    for name in catalogue.names:
        model = catalogue.model(name)
        assert model.serve.over(catalogue.defaults).args == (*catalogue.defaults.args, *model.serve.args)
        assert all(isinstance(file.url, str) for file in catalogue.extra_files(name))
    assert catalogue.name(catalogue.default) in catalogue.names
    if catalogue.has_engine("llamafile"):
        assert isinstance(catalogue.engine("llamafile").mirrors, tuple)


@pytest.mark.parametrize("plain", [None, [], {}, "text", 5, {"models": {}}])
def test_another_thing(plain: Any) -> None:
    assert not is_catalogue(plain)
