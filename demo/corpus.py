"""Turn corpus.yaml into questions with their answers, as many as are wanted.

Pure but for reading the two files: the same random numbers give the same questions. Nothing here
may read heldback.yaml.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import yaml

FOLDER = Path(__file__).parent
CHOICE = re.compile(r"\(([^()]*)\)|\{([a-z ]+)\}")  # the innermost (a|b) or {name}
UNKNOWN_SHARE = 0.3  # of the training: the world is larger than the recipe

BEFORE = [
    *("hi, ", "hello, ", "hey, ", "hi! ", "hello! ", "please, ", "please ", "ok, ", "ok ", "so, ", "so ", "and "),
    *("but ", "well, ", "excuse me, ", "sorry, ", "sorry but ", "quick question: ", "one question: ", "now, "),
    *("can you tell me ", "could you tell me ", "please tell me ", "i wonder ", "i want to know ", "tell me, "),
    *("do you know ", "i have a question: ", "i'd like to know ", "just ", "by the way, ", "actually, ", "oh, "),
    *("can you explain ", "could you explain to me ", "let me ask: ", "good morning, ", "demo, ", "dear demo, "),
    *("thanks! ", "great, ", "i am new here. ", "i do not understand: ", "maybe you know ", "question: ", "then "),
]  # fmt: skip
AFTER = [
    *(" please", ", please", " now", " then", " exactly", " again", ", thanks", " thanks", " thank you", " today"),
    *(" actually", ", i am new here", " if i may ask", " in short", " in one sentence", ", can you tell me", " ok"),
    *(", do you know", ", any idea", " or not", " at all", ", i wonder", " really", " by the way", " anyway"),
]  # fmt: skip
ENDS = ["?"] * 12 + [""] * 6 + [".", "!", "??", " ?", "...", "?!"]
SHORTER = {
    **{"what is": "what's", "where is": "where's", "who is": "who's", "how is": "how's", "do not": "don't"},
    **{"does not": "doesn't", "i am": "i'm", "you are": "you're", "is not": "isn't", "i would": "i'd"},
    **{"i have": "i've", "it is": "it's", "that is": "that's", "cannot": "can't", "can not": "can't"},
    **{"did not": "didn't", "could not": "couldn't", "will not": "won't", "are not": "aren't"},
}  # fmt: skip
DROPPABLE = {"the", "a", "an", "do", "is", "to", "my", "of", "it", "does", "in", "me", "i"}
SYLLABLES = "ba be bi bo bra cha co cu da de dro el en fa fi fla ga ger gi go gra ha hi ho il in ja ka ki la li lo ma \
me mi mo na ne ni no or pa pe po pra qua ra re ri ro sa se sha si so sta ta te ti to tra tu ul um va ve vi wa wi xo ya \
za zo ct st nt ck sh th ing er ion ly ous ism ist ment able ology".split()
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

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Known and unknown."""
        return self.known + self.unknown


def load() -> Corpus:
    """Read the files."""
    main, elsewhere = (
        yaml.safe_load((FOLDER / name).read_text("utf-8")) for name in ("corpus.yaml", "elsewhere.yaml")
    )

    def entries(raw: list[dict[str, Any]], fact: list[str] | None = None) -> tuple[Entry, ...]:
        return tuple(Entry(e["answer"], tuple(fact or e["fact"]), tuple(map(str, e["ask"]))) for e in raw)

    unknown = entries(main["unknown"], UNKNOWN_FACT)
    return Corpus(entries(main["answers"]), unknown, main["words"] | elsewhere, main["synonyms"])


UNKNOWN_FACT = ["tiny demo", "doit serve"]  # what every answer to a question it cannot answer contains


def expand(text: str, corpus: Corpus, random: Random) -> str:
    """Make one question of a template."""

    def choose(match: re.Match[str]) -> str:
        alternatives, name = match.groups()
        if alternatives is not None:
            return random.choice(alternatives.split("|"))
        if name in MADE:
            return MADE[name](random)
        return random.choice(corpus.words[name])

    while CHOICE.search(text):
        text = CHOICE.sub(choose, text, count=1)
    return " ".join(text.split())


def made_up(random: Random) -> str:
    """A word that does not exist, or hardly."""
    return "".join(random.choices(SYLLABLES, k=random.randint(2, 4)))


def noise(random: Random) -> str:
    """What a cat types."""
    if random.random() < 0.4:
        return made_up(random)
    return "".join(random.choices(KEYS, k=random.randint(2, 9)))


def number(random: Random) -> str:
    """A number of any length."""
    return str(random.randint(0, 10 ** random.randint(1, 4)))


MADE = {"madeup": made_up, "noise": noise, "number": number}


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


def reword(text: str, corpus: Corpus, random: Random) -> str:
    """Say the same with a few other words, contractions, and without some small ones."""
    words = []
    for word in text.split():
        if word in corpus.synonyms and random.random() < 0.12:
            word = random.choice(corpus.synonyms[word])
        if not (word in DROPPABLE and random.random() < 0.04):
            words.append(word)
    text = " ".join(words) or text
    for long, short in SHORTER.items():
        if random.random() < 0.3:
            text = re.sub(rf"\b{long}\b", random.choice([short, short.replace("'", "")]), text)
    return text


def vary(text: str, corpus: Corpus, random: Random) -> str:
    """Ask as people do: politely, hastily, with typos."""
    text = reword(text, corpus, random)
    if random.random() < 0.12:
        words = text.split(" ")
        at = random.randrange(len(words))
        if len(words[at]) >= 4:
            words[at] = typo(words[at], random)
        text = " ".join(words)
    if random.random() < 0.25:
        text = random.choice(BEFORE) + text
    if random.random() < 0.12:
        text += random.choice(AFTER)
    text += random.choice(ENDS)
    chance = random.random()  # the chat template makes small letters, but not every engine runs it
    return text.capitalize() if chance < 0.1 else text.upper() if chance < 0.12 else text


def sample(corpus: Corpus, random: Random) -> tuple[str, str]:
    """Return a question and its answer for the training."""
    pool = corpus.unknown if random.random() < UNKNOWN_SHARE else corpus.known
    entry = random.choices(pool, weights=[len(e.ask) ** 0.5 for e in pool])[0]
    return vary(expand(random.choice(entry.ask), corpus, random), corpus, random), entry.answer


def plain_questions(corpus: Corpus, seed: int = 0) -> list[tuple[str, Entry]]:
    """Return one question for every line of the corpus: what evaluate.py asks of the training."""
    random = Random(seed)
    return [(expand(line, corpus, random) + "?", entry) for entry in corpus.entries for line in entry.ask]


def pattern(text: str, corpus: Corpus) -> str:
    """Return the regular expression of everything that a template can become."""
    pieces = re.split(r"(\(|\)|\||\{[a-z ]+\})", text)
    out = ""
    for piece in pieces:
        if piece in ("(", ")", "|"):
            out += "(?:" if piece == "(" else piece
        elif piece.startswith("{"):
            name = piece[1:-1]
            words = [r"\w+"] if name in MADE else [pattern(w, corpus) for w in corpus.words[name]]
            out += "(?:" + "|".join(words) + ")"
        else:
            out += re.escape(piece).replace(r"\ ", r"\s*")
    return out
