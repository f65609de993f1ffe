"""What the demo model is taught is true, and what it is examined with it was not taught."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import yaml
from demo.corpus import Entry
from demo.tokenizer import SPLIT, Tokenizer, learn

from demo import corpus
from tests.catalogue.test_types import SHIPPED
from tests.support.command_lines import VERBS, parse

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MANUAL = "\n".join(page.read_text("utf-8") for page in PAGES)
DEMO = ROOT / "demo" / "demo.gguf"
pytestmark = pytest.mark.once
CORPUS = corpus.load()
HELD_BACK = yaml.safe_load((ROOT / "demo" / "heldback.yaml").read_text("utf-8"))
ENTRIES = [pytest.param(entry, id=entry.answer[:40]) for entry in CORPUS.entries]
ANSWERS = "\n".join(entry.answer for entry in CORPUS.entries)

# The file


def test_demo_is_small() -> None:
    """A clone should not notice it: 3 MB is the limit that was set."""
    assert DEMO.read_bytes()[:4] == b"GGUF"
    assert DEMO.stat().st_size <= 3_000_000


@pytest.mark.parametrize("name", ["models.yaml", "docs/models.md"])
def test_demo_is_the_one_that_is_pinned(name: str) -> None:
    """R21: whoever trains it again has to say so."""
    assert f"sha256: {hashlib.sha256(DEMO.read_bytes()).hexdigest()}" in (ROOT / name).read_text("utf-8")


# What it is taught


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_fact_tells_its_answer_from_all_others(entry: Entry) -> None:
    """Else an evaluation would count wrong answers as right."""
    alike = [other for other in CORPUS.entries if entry.is_in(other.answer)]
    assert alike == (list(CORPUS.unknown) if entry in CORPUS.unknown else [entry])


@pytest.mark.parametrize("command", sorted(set(re.findall(r"`(doit[^`]*)`", ANSWERS))))
def test_commands_in_answers_exist(command: str) -> None:
    """The newcomer types what the demo says: verbs, options and models are real."""
    args = parse(command.split()[1:])
    for name in [name for request in args.tasks for name in request.models]:
        assert name in ("A", "B", "M", "NAME") or SHIPPED.model(name)


def test_options_and_variables_in_answers_exist() -> None:
    """R17: also those outside commands."""
    known = {"--" + o["long"] for verb in VERBS.values() for o in verb.params}
    assert set(re.findall(r"--[a-z][a-z0-9-]+", ANSWERS)) <= known | {"--version", "--parallel"}
    for variable in re.findall(r"\b[A-Z]+_[A-Z_]+\b", ANSWERS):
        assert variable in MANUAL


@pytest.mark.parametrize(
    ("name", "said"),
    [
        pytest.param("mistral", "Mistral 7B Instruct v0.2, a file of 5.16 GB", id="the default's size"),
        pytest.param("tinyllama-q2", "downloads 468 MB", id="the smallest's size"),
    ],
)
def test_sizes_in_answers_are_the_catalogue_s(name: str, said: str) -> None:
    """Numbers in sentences are the ones that grow old."""
    size = SHIPPED.model(name).size or 0
    assert said in ANSWERS
    assert f"{size / 1e9:.2f} GB" in said or f"{size / 1e6:.0f} MB" in said
    assert SHIPPED.default == "mistral"
    real = [m.size or 1e12 for m in map(SHIPPED.model, SHIPPED.names) if not m.url.startswith("demo/")]
    assert min(real) == SHIPPED.model("tinyllama-q2").size


def test_paths_in_answers_exist() -> None:
    """Files that an answer names are in the repository."""
    for path in re.findall(r"\b(?:demo|docs|tasks)/[a-z_.]*", ANSWERS):
        assert (ROOT / path.rstrip(".")).exists(), path


def test_the_same_seed_gives_the_same_questions() -> None:
    """The training can be repeated."""
    first, second = ([corpus.sample(CORPUS, Random(seed)) for _ in range(50)] for seed in (3, 3))
    assert first == second
    assert [corpus.sample(CORPUS, Random(4)) for _ in range(50)] != first


def test_every_line_of_the_corpus_becomes_a_question() -> None:
    """No bracket or name is left over."""
    questions = corpus.plain_questions(CORPUS)
    assert len(questions) > 1200
    assert not [question for question, _ in questions if re.search(r"[{}|()]", question)]


def test_words_are_words() -> None:
    """YAML reads a bare `on` or `no` as something else."""
    lists = [CORPUS.before, CORPUS.after, CORPUS.ends, CORPUS.fillers, CORPUS.droppable, CORPUS.syllables]
    for words in [*lists, *CORPUS.words.values(), *CORPUS.synonyms.values()]:
        assert {type(word) for word in words} == {str}


# What it is examined with


def plain(text: str) -> str:
    """Small letters, no contractions."""
    text = text.lower()
    for long, short in CORPUS.shorter.items():
        text = re.sub(rf"\b{short}\b", long, text)
    return text


def around(texts: list[str]) -> str:
    """Any number of them, whatever punctuation they have."""
    words = sorted({re.escape(text.strip(" ,:!.")) for text in texts}, key=len, reverse=True)
    return rf"(?:\W*(?:{'|'.join(words)})(?=\W|$))*\W*"


def bare(text: str, before: re.Pattern[str], after: re.Pattern[str]) -> set[str]:
    """A text without courtesies around it, in any reading."""
    starts = [
        i for i in range(len(text) + 1) if before.fullmatch(text[:i]) and not text[i - 1 : i + 1].isalnum()
    ]
    ends = [i for i in range(len(text) + 1) if after.fullmatch(text[i:])]
    return {text[start:end] for start in {0, *starts} for end in ends if start < end}


def taught(questions: list[str]) -> set[str]:
    """Those of the questions that the corpus can make, in any reading and with any courtesies around."""
    before, after = re.compile(around(CORPUS.before)), re.compile(around(CORPUS.after))
    texts = {question: bare(plain(question), before, after) for question in questions}
    loose = replace(CORPUS, words={name: ["\0"] for name in CORPUS.words})  # any words for those listed
    found: set[str] = set()
    for line in [line for entry in CORPUS.entries for line in entry.ask]:
        roughly = re.compile(plain(corpus.pattern(line, loose)).replace(re.escape("\0"), ".*"))
        alike = [question for question, ways in texts.items() if any(map(roughly.fullmatch, ways))]
        if alike and not re.search("{noise}|{ramble}", line):  # the whole expression takes long to compile
            exactly = re.compile(plain(corpus.pattern(line, CORPUS)))
            found |= {question for question in alike if any(map(exactly.fullmatch, texts[question]))}
    return found


def test_held_back_questions_are_not_in_the_training() -> None:
    """While what the corpus does make is recognised, or this could not fail."""
    held = [q for e in HELD_BACK["answers"] for q in e["ask"]] + HELD_BACK["unknown"]
    assert len(held) == len(set(held)) >= 100
    made = [question for question, _ in corpus.plain_questions(CORPUS)[:600:100]]
    made += [f"Hi, {question}" for question in made] + [
        f"OK, so {question} please, thanks!" for question in made
    ]
    assert taught(held + made) == set(made)


# How it spells


def test_splitting_loses_nothing() -> None:
    """Every letter of any text is in one part."""
    text = "Don't  panic,\n\nit's 2026: naïve_日本 😀  !\t`doit`"
    assert "".join(SPLIT.findall(text)) == text


def test_merges_are_learned_by_frequency() -> None:
    """The commonest pair is joined first, and a word that was learned whole is one token."""
    tokenizer = learn(["low low low lower"] * 3, 262)
    assert tokenizer.merges[0] in [("l", "o"), ("o", "w")]
    assert len(tokenizer.texts) == 262
    assert len(tokenizer.encode("low")) == 1
    assert tokenizer.chat([("user", "low")])[0] == tokenizer.start


def test_a_tokenizer_spells_every_byte() -> None:
    """Without any merge, each byte is a token."""
    assert len(Tokenizer([]).encode("é")) == 2
