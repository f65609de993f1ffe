"""Train a byte-level BPE tokenizer, which the GGUF names `gpt2` as llama.cpp does.

It must split texts exactly as llama.cpp does; tests/demo/test_model.py compares them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from functools import cache
from itertools import pairwise

START, END = "<|im_start|>", "<|im_end|>"  # of ChatML
SPLIT = re.compile(
    r"'(?:s|t|re|ve|m|ll|d)| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+"
)  # GPT-2's
Pair = tuple[str, str]


def byte_letters() -> list[str]:
    """Return GPT-2's printable letter for each byte."""
    kept = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    spare = iter(range(0x100, 0x200))
    return [chr(byte if byte in kept else next(spare)) for byte in range(256)]


LETTERS = byte_letters()


def spelled(text: str) -> str:
    """Return the text in the printable letters of its bytes."""
    return "".join(LETTERS[byte] for byte in text.encode())


class Tokenizer:
    """The merges in the order of their training, and the vocabulary."""

    def __init__(self, merges: list[Pair]) -> None:
        self.merges = merges
        self.texts = [*LETTERS, *(a + b for a, b in merges), START, END]
        self.ids = {text: i for i, text in enumerate(self.texts)}
        self.start, self.end = self.ids[START], self.ids[END]
        ranks = {pair: rank for rank, pair in enumerate(merges)}

        @cache
        def word(text: str) -> tuple[int, ...]:
            parts = list(text)
            while len(parts) > 1:
                pairs = pairwise(parts)
                best = min(pairs, key=lambda pair: ranks.get(pair, len(ranks)))
                if best not in ranks:
                    break
                parts = merged(parts, best)
            return tuple(self.ids[part] for part in parts)

        self._word = word

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text, without special tokens."""
        return [
            token for part in SPLIT.findall(text) for token in self._word(spelled(part))
        ]

    def chat(self, turns: Iterable[tuple[str, str]]) -> list[int]:
        """Return the tokens of a ChatML conversation, up to the assistant's answer."""
        tokens: list[int] = []
        line = self.encode("\n")
        for role, text in turns:
            tokens += [self.start, *self.encode(f"{role}\n{text}"), self.end, *line]
        return [*tokens, self.start, *self.encode("assistant\n")]


def merged(parts: list[str], pair: Pair) -> list[str]:
    """Return the parts with each occurrence of the pair joined."""
    out: list[str] = []
    for part in parts:
        if out and (out[-1], part) == pair:
            out[-1] += part
        else:
            out.append(part)
    return out


def learn(texts: Iterable[str], size: int) -> Tokenizer:
    """Train a tokenizer of `size` tokens on these texts."""
    counts = Counter(spelled(part) for text in texts for part in SPLIT.findall(text))
    words = [(list(word), count) for word, count in sorted(counts.items()) if count > 1]
    merges: list[Pair] = []
    pairs: Counter[Pair] = Counter()
    where: dict[Pair, set[int]] = {}
    for i, (parts, count) in enumerate(words):
        for pair in pairwise(parts):
            pairs[pair] += count
            where.setdefault(pair, set()).add(i)
    while len(merges) < size - len(LETTERS) - 2:
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        for i in where.pop(best):
            parts, count = words[i]
            for pair in pairwise(parts):
                pairs[pair] -= count
            parts = merged(parts, best)
            words[i] = (parts, count)
            for pair in pairwise(parts):
                pairs[pair] += count
                where.setdefault(pair, set()).add(i)
        del pairs[best]
    return Tokenizer(merges)
