"""The demo model through its real server: a fast part of what `python -m demo.evaluate` asks."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from demo.corpus import Corpus, Entry
from demo.tokenizer import Tokenizer
from tasks.catalogue.locked_memory import locked_memory
from tasks.planning.estimate import metadata

from demo import corpus
from tests.support.project import REPO

pytestmark = pytest.mark.once


# Loaded by the tests, not by the import: every process of a test run collects this file.


@functools.cache
def evaluate() -> Any:
    """The module demo.evaluate, which imports the openai client: that takes a second."""
    pytest.importorskip("xllamacpp", reason="the embedded engine is not installed")
    pytest.importorskip("openai", reason="the openai client is not installed")
    return importlib.import_module("demo.evaluate")


@functools.cache
def taught() -> Corpus:
    """What the model was trained on."""
    return corpus.load()


@functools.cache
def questions_of(kind: str) -> list[tuple[str, Entry]]:
    """Questions, each with the fact that its answer has to hold."""
    if kind == "training":
        return corpus.plain_questions(taught(), seed=1)[::18]  # not the ones that evaluate.py asks
    known, unknown = evaluate().held_back()
    if kind == "held-back":
        return list(known)
    return list(unknown)


def ask(client: Any, question: Any, **more: Any) -> Any:
    """Ask the model, as evaluate.py does."""
    return evaluate().ask(client, question, **more)


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """A client of a server for these tests."""
    with evaluate().serving() as found:
        yield found


def missed(client: Any, questions: list[tuple[str, Entry]], **more: Any) -> list[tuple[str, str]]:
    """The questions that were not answered with the wanted fact, and what came instead."""
    answers = [(question, entry, ask(client, question, **more).text) for question, entry in questions]
    return [(question, text) for question, entry, text in answers if not entry.is_in(text)]


@pytest.mark.parametrize(
    ("kind", "goal"), [("training", 0.95), ("held-back", 0.80), ("what it cannot know", 0.80)]
)
def test_answers_hold_the_wanted_fact(client: Any, kind: str, goal: float) -> None:
    """Greedy, as evaluate.py measures it for the model card."""
    questions = questions_of(kind)
    wrong = missed(client, questions)
    assert len(wrong) <= (1 - goal) * len(questions), wrong


def test_wrong_facts_are_not_found(client: Any) -> None:
    """The measure can fail: with the facts of other questions nothing is right."""
    entries = list(taught().known)
    shifted = dict(zip(entries, entries[1:] + entries[:1], strict=True))
    known = [(question, entry) for question, entry in questions_of("training") if entry in shifted]
    questions = [(question, shifted[entry]) for question, entry in known][::3]
    assert len(missed(client, questions)) >= 0.9 * len(questions)


def test_a_warm_model_still_speaks_english(client: Any) -> None:
    """At temperature 0.7 the answers are whole sentences, word for word those that it was taught."""
    texts = {entry.answer for entry in taught().entries}
    questions = questions_of("held-back")[::3] + questions_of("what it cannot know")[::3]
    answers = [ask(client, question, temperature=0.7) for question, _ in questions]
    assert sum(answer.text in texts for answer in answers) >= 0.9 * len(answers)
    assert {answer.finish for answer in answers} == {"stop"}


@pytest.mark.parametrize("question", ["What are you?", "WHAT ARE YOU", "what are you", "Hi! What are you??"])
def test_the_question_of_the_readme(client: Any, question: str) -> None:
    """However it is typed."""
    assert "tiny demo model" in ask(client, question).text


def test_a_second_turn_and_a_system_prompt(client: Any) -> None:
    """The chat template passes on the last question alone, so that nothing before it disturbs."""
    alone = ask(client, "How do I stop the server?", earlier=[])
    after = ask(client, "How do I stop the server?", earlier=evaluate().EARLIER)
    assert alone == after
    assert "Ctrl-C" in after.text


def test_parts_of_a_message(client: Any) -> None:
    """Clients may send text as a list of parts."""
    parts: Any = [{"type": "text", "text": "How do I stop "}, {"type": "text", "text": "the server?"}]
    assert "Ctrl-C" in ask(client, parts).text


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("How do I stop the server?", id="plain"),
        pytest.param("don't we'll it's I'M", id="contractions"),
        pytest.param("  two  blanks \n\n lines\tand tabs ", id="white space"),
        pytest.param("doit serve --model tinyllama-q2, 468 MB; 12345.6 a_b [x] `y`", id="signs and numbers"),
        pytest.param("naïve 日本語 😀 Größe ß", id="other scripts"),
    ],
)
def test_our_tokenizer_is_the_engine_s(client: Any, text: str) -> None:
    """What was trained is what the engine reads."""
    gguf = pytest.importorskip("gguf")
    merges = gguf.GGUFReader(evaluate().DEMO).fields["tokenizer.ggml.merges"].contents()
    tokenizer = Tokenizer([tuple(merge.split(" ")) for merge in merges])
    url = str(client.base_url).removesuffix("v1/") + "tokenize"
    assert client.post(url, body={"content": text}, cast_to=object)["tokens"] == tokenizer.encode(text)


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    """The evaluation fails with the engine's own words, and leaves no process behind."""
    model = tmp_path / "x.gguf"
    model.write_text("no model")
    with pytest.raises(RuntimeError, match="not GGUF"), evaluate().serving(model):
        sys.exit("it started")


def test_models_lock_states_what_its_memory_depends_on() -> None:
    """Issue 15.6: `doit lock --upgrade --model demo` has read it from the file, without a network."""
    head = metadata(str(REPO / "demo" / "demo.gguf"))
    assert head
    lock = yaml.safe_load((REPO / "models.lock").read_text("utf-8"))
    assert lock["models"]["demo"][0]["memory"] == locked_memory(head).as_plain()
