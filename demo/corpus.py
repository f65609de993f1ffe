"""Turn corpus.yaml into questions with their answers, as many as are wanted.

Pure but for reading the two files: the same random numbers give the same questions. Nothing here
may read heldback.yaml.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

import yaml

FOLDER = Path(__file__).parent
CHOICE = re.compile(r"\(([^()]*)\)|\{([a-z ]+)\}")  # the innermost (a|b) or {name}
LONGEST = 160  # letters of a question; the chat template passes on no longer one
UNKNOWN_SHARE = 0.25  # of the training: the world is larger than the recipe
UNKNOWN_FACT = ("tiny demo", "doit serve")  # in every answer to what it cannot answer
KEYS = "asdfghjklqwertyuiopzxcvbnm"


@dataclass(frozen=True)
class Entry:
    """One answer, the texts that it must contain, and how it is asked for."""

    answer: str
    fact: tuple[str, ...]
    ask: tuple[str, ...]

    def is_in(self, text: str) -> bool:
        """Whether an answer contains the wanted fact."""
        return all(part.lower() in text.lower() for part in self.fact)


@dataclass(frozen=True)
class Corpus:
    """All that the demo learns."""

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
        """Known and unknown."""
        return self.known + self.unknown


def load() -> Corpus:
    """Read the files."""
    raw, elsewhere = (
        yaml.safe_load((FOLDER / name).read_text("utf-8"))
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
    """Make one question of a template."""

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
    """A word that does not exist, or hardly."""
    return "".join(random.choices(corpus.syllables, k=random.randint(2, 4)))


def noise(corpus: Corpus, random: Random) -> str:
    """What a cat types."""
    if random.random() < 0.4:
        return made_up(corpus, random)
    return "".join(random.choices(KEYS, k=random.randint(2, 9)))


def number(_: Corpus, random: Random) -> str:
    """A number of any length."""
    return str(random.randint(0, 10 ** random.randint(1, 4)))


def ramble(corpus: Corpus, random: Random) -> str:
    """Words without end, or one word again and again."""
    nouns = corpus.words["noun"] + corpus.fillers
    words = random.choices(nouns, k=random.choice([1, 40]))
    return " ".join(words * 40)[: random.randint(50, LONGEST)]


MADE = {"madeup": made_up, "noise": noise, "number": number, "ramble": ramble}


def typo(word: str, random: Random) -> str:
    """Slip once."""
    at = random.randrange(len(word) - 1)
    slips = [
        word[:at] + word[at + 1] + word[at] + word[at + 2 :],
        word[:at] + word[at + 1 :],
        word[:at] + word[at] * 2 + word[at + 1 :],
        word[:at] + random.choice(KEYS) + word[at + 1 :],
    ]
    return random.choice(slips)


def reword(text: str, corpus: Corpus, random: Random, variation: float) -> str:
    """Say the same with other words, in contractions, and with other small words in between.

    Word order and small words change so often that the model has to listen to the others.
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
    """Ask as people do: politely, hastily, with typos."""
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
    )  # the chat template makes small letters, but not every engine runs it
    return (
        text.capitalize() if chance < 0.1 else text.upper() if chance < 0.12 else text
    )


def sample(corpus: Corpus, random: Random, variation: float = 1.0) -> tuple[str, str]:
    """Return a question and its answer for the training; less `variation` is a plainer question."""
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
    """About how many different questions a template makes, but not their product."""
    return line.count("|") + 10 * line.count("{") + 1


def plain_questions(corpus: Corpus, seed: int = 0) -> list[tuple[str, Entry]]:
    """Return one question for every line of the corpus: what evaluate.py asks of the training."""
    random = Random(seed)
    return [
        (expand(line, corpus, random) + "?", entry)
        for entry in corpus.entries
        for line in entry.ask
    ]


def pattern(text: str, corpus: Corpus) -> str:
    """Return the regular expression of everything that a template can become."""
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
