"""Generate questions with their answers from corpus.yaml.

Deterministic: the same seed gives the same questions. Nothing here may read
heldback.yaml.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import yaml

FOLDER = Path(__file__).parent
# libyaml is ten times as fast
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
CHOICE = re.compile(r"\(([^()]*)\)|\{([a-z ]+)\}")  # the innermost (a|b) or {name}
LONGEST = 160  # characters of a question; the chat template replaces longer ones
UNKNOWN_SHARE = 0.25  # of the training samples are about other subjects
UNKNOWN_FACT = ("tiny demo", "doit serve")  # in every answer to an unknown question
KEYS = "asdfghjklqwertyuiopzxcvbnm"


@dataclass(frozen=True)
class Entry:
    """One answer, the texts that it must contain, and the questions for it."""

    answer: str
    fact: tuple[str, ...]
    ask: tuple[str, ...]

    def is_in(self, text: str) -> bool:
        """Whether a text contains the required facts."""
        return all(part.lower() in text.lower() for part in self.fact)


@dataclass(frozen=True)
class Corpus:
    """Everything that the demo learns."""

    known: tuple[Entry, ...]
    unknown: tuple[Entry, ...]
    words: dict[str, list[str]]
    synonyms: dict[str, list[str]]
    shorter: dict[str, str]
    before: list[str]
    after: list[str]
    ends: list[str]
    droppable: list[str]
    fillers: list[str]
    syllables: list[str]

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Return the known and the unknown entries."""
        return self.known + self.unknown


def load() -> Corpus:
    """Read the files of the corpus."""
    raw, elsewhere = (
        yaml.load((FOLDER / name).read_text("utf-8"), _LOADER)
        for name in ("corpus.yaml", "elsewhere.yaml")
    )
    known = tuple(
        Entry(e["answer"], tuple(e["fact"]), tuple(e["ask"]))
        for e in raw.pop("answers")
    )
    unknown = tuple(
        Entry(e["answer"], UNKNOWN_FACT, tuple(e["ask"])) for e in raw.pop("unknown")
    )
    return Corpus(known, unknown, raw.pop("words") | elsewhere, **raw)


def expand(text: str, corpus: Corpus, random: Random) -> str:
    """Return a random question of a template."""

    def choose(match: re.Match[str]) -> str:
        alternatives, name = match.groups()
        if alternatives is not None:
            word: str = random.choice(alternatives.split("|"))
        elif name in MADE:
            word = MADE[name](corpus, random)
        else:
            word = random.choice(corpus.words[name])
        return word

    while CHOICE.search(text):
        text = CHOICE.sub(choose, text, count=1)
    return " ".join(text.split())


def made_up(corpus: Corpus, random: Random) -> str:
    """Return a random word that is unlikely to exist."""
    return "".join(random.choices(corpus.syllables, k=random.randint(2, 4)))


def noise(corpus: Corpus, random: Random) -> str:
    """Return random key presses."""
    if random.random() < 0.4:
        return made_up(corpus, random)
    return "".join(random.choices(KEYS, k=random.randint(2, 9)))


def number(_: Corpus, random: Random) -> str:
    """Return a number of random length."""
    return str(random.randint(0, 10 ** random.randint(1, 4)))


def ramble(corpus: Corpus, random: Random) -> str:
    """Return a long text of random words, or of one repeated word."""
    nouns = corpus.words["noun"] + corpus.fillers
    words = random.choices(nouns, k=random.choice([1, 40]))
    return " ".join(words * 40)[: random.randint(50, LONGEST)]


MADE = {"madeup": made_up, "noise": noise, "number": number, "ramble": ramble}


def typo(word: str, random: Random) -> str:
    """Return the word with one typo."""
    at = random.randrange(len(word) - 1)
    slips = [
        word[:at] + word[at + 1] + word[at] + word[at + 2 :],
        word[:at] + word[at + 1 :],
        word[:at] + word[at] * 2 + word[at + 1 :],
        word[:at] + random.choice(KEYS) + word[at + 1 :],
    ]
    return random.choice(slips)


def reword(text: str, corpus: Corpus, random: Random, variation: float) -> str:
    """Replace words by synonyms and contractions, and change the function words.

    Word order and function words vary so much that the model has to learn the others.
    """
    words: list[str] = []
    drop, fill = (
        random.choice([(0.1, 0.1), (0.4, 0.1)])
        if random.random() < 0.4 * variation
        else (0.03, 0.0)
    )
    for word in text.split():
        if random.random() < fill:
            words.append(random.choice(corpus.fillers))
        if word in corpus.synonyms and random.random() < 0.18 * variation:
            word = random.choice(corpus.synonyms[word])
        if not (word in corpus.droppable and random.random() < drop):
            words.append(word)
    if fill and len(words) > 2 and random.random() < 0.2:
        at = random.randrange(1, len(words))
        words = words[at:] + words[:at]
    text = " ".join(words) or text
    for long, short in corpus.shorter.items():
        if random.random() < 0.3:
            text = re.sub(
                rf"\b{long}\b", random.choice([short, short.replace("'", "")]), text
            )
    return text


def vary(text: str, corpus: Corpus, random: Random, variation: float) -> str:
    """Vary a question as users do: polite, short, with typos."""
    text = reword(text, corpus, random, variation)
    if random.random() < 0.12 * variation:
        words = text.split(" ")
        at = random.randrange(len(words))
        if len(words[at]) >= 4:
            words[at] = typo(words[at], random)
        text = " ".join(words)
    while random.random() < 0.25 * variation:
        text = f"{random.choice(corpus.before)} {text}"
    if random.random() < 0.12 * variation:
        after = random.choice(corpus.after)
        text += after if after.startswith(",") else f" {after}"
    text = (text + random.choice(corpus.ends))[:LONGEST]
    chance = (
        random.random()
    )  # the chat template converts to lower case, but not every engine runs it
    return (
        text.capitalize() if chance < 0.1 else text.upper() if chance < 0.12 else text
    )


def sample(corpus: Corpus, random: Random, variation: float = 1.0) -> tuple[str, str]:
    """Return a question and its answer for the training.

    Less `variation` gives a plainer question.
    """
    pool, power = (
        (corpus.unknown, 0.8)
        if random.random() < UNKNOWN_SHARE
        else (corpus.known, 0.5)
    )
    entry = random.choices(
        pool, weights=[sum(map(ways, e.ask)) ** power for e in pool]
    )[0]
    line = random.choices(entry.ask, weights=[ways(line) ** 0.5 for line in entry.ask])[
        0
    ]
    return vary(expand(line, corpus, random), corpus, random, variation), entry.answer


@cache
def ways(line: str) -> int:
    """Estimate the number of variants of a template: a sum, not the product."""
    return line.count("|") + 10 * line.count("{") + 1


def plain_questions(corpus: Corpus, seed: int = 0) -> list[tuple[str, Entry]]:
    """Return one question for each line of the corpus, for evaluate.py."""
    random = Random(seed)
    return [
        (expand(line, corpus, random) + "?", entry)
        for entry in corpus.entries
        for line in entry.ask
    ]


def pattern(text: str, corpus: Corpus) -> str:
    """Return the regular expression of all questions of a template."""
    pieces = re.split(r"(\(|\)|\||\{[a-z ]+\})", text)
    out = ""
    for piece in pieces:
        if piece in ("(", ")", "|"):
            out += "(?:" if piece == "(" else piece
        elif piece.startswith("{"):
            name = piece[1:-1]
            words = (
                [r"\w+"]
                if name in MADE
                else sorted({pattern(w, corpus) for w in corpus.words[name]})
            )
            out += "(?:" + "|".join(words) + ")"
        else:
            out += re.escape(piece).replace(r"\ ", r"\s*")
    return out
