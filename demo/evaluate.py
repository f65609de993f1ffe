"""Evaluate the demo model through its real server and the `openai` client.

    pip install '.[embedded,test]' && python -m demo.evaluate [--missed]

The server is the recipe's embedded engine on a free port; it stops with this program.
The exit status is 1 if a goal is missed. Nothing here may fit the model to the
questions.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from openai import OpenAI

from demo import corpus
from demo.corpus import Entry

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "demo" / "demo.gguf"
UP_WITHIN = 30.0  # seconds; it takes 0.3
ANSWER_WITHIN = 300.0  # seconds; it takes 0.1, on a busy machine up to a minute
READY = "server is listening on "
EARLIER = [
    {
        "role": "system",
        "content": "You are a helpful assistant who answers in a friendly way.",
    },
    {"role": "user", "content": "Hello there!"},
    {"role": "assistant", "content": "Hello! What can I do for you?"},
]
Questions = list[tuple[str, Entry]]


@dataclass(frozen=True)
class Answer:
    """An answer of the model."""

    text: str
    finish: str


@contextmanager
def serving(model: Path = DEMO) -> Iterator[OpenAI]:
    """Serve a file; yield a client of that server."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        command = [
            sys.executable,
            "-m",
            "tasks.engine.embedded",
            "--server",
            "-m",
            model.resolve(),
            "--port",
            "0",
        ]
        # the model is so small that more threads would only wait for each other
        command += ["-t", "1"]
        with log.open("wb") as stderr:
            server = subprocess.Popen(
                [str(word) for word in command], cwd=ROOT, stderr=stderr
            )
        try:
            yield OpenAI(
                base_url=f"{listening(server, log)}/v1",
                api_key="none",
                max_retries=0,
                timeout=ANSWER_WITHIN,
            )
        finally:
            server.terminate()
            server.wait(UP_WITHIN)


def listening(server: subprocess.Popen[bytes], log: Path) -> str:
    """Return the address on which the server listens, from its log."""
    deadline = time.monotonic() + UP_WITHIN
    while time.monotonic() < deadline and server.poll() is None:
        for line in log.read_text("utf-8", errors="replace").splitlines():
            if line.startswith(READY):
                return line.removeprefix(READY).strip()
        time.sleep(0.02)
    raise RuntimeError(
        f"the server did not start:\n{log.read_text('utf-8', errors='replace')}"
    )


def ask(
    client: OpenAI,
    question: str,
    temperature: float = 0,
    earlier: list[Any] | None = None,
) -> Answer:
    """Ask one question, after the earlier conversation, if any."""
    choice = client.chat.completions.create(
        model="demo",
        messages=[*(earlier or []), {"role": "user", "content": question}],
        temperature=temperature,
        seed=1,
        max_tokens=128,
    ).choices[0]
    return Answer(choice.message.content or "", choice.finish_reason)


def held_back() -> tuple[Questions, Questions]:
    """Return the questions that are in no training sample.

    First those that the model can answer, then those that it cannot.
    """
    raw = yaml.safe_load((ROOT / "demo" / "heldback.yaml").read_text("utf-8"))
    known = [
        (question, Entry("", tuple(e["fact"]), ()))
        for e in raw["answers"]
        for question in e["ask"]
    ]
    return known, [
        (question, Entry("", corpus.UNKNOWN_FACT, ())) for question in raw["unknown"]
    ]


def main() -> int:
    """Print a table of the share of good answers."""
    parser = argparse.ArgumentParser(
        description="Evaluate the demo model through its server."
    )
    parser.add_argument(
        "--model", type=Path, default=DEMO, help="another file than demo.gguf"
    )
    parser.add_argument(
        "--missed", action="store_true", help="show what was answered wrongly"
    )
    options = parser.parse_args()
    source = corpus.load()
    texts = {entry.answer for entry in source.entries}
    training = corpus.plain_questions(source)
    known, unknown = held_back()
    sets: list[tuple[str, Questions, list[Any], float]] = [
        ("training questions", training, [], 0.95),
        ("held-back paraphrases", known, [], 0.80),
        ("held-back, unknown to it", unknown, [], 0.80),
        (
            "training questions as a second turn, with a system prompt",
            training[::5],
            EARLIER,
            0.95,
        ),
    ]
    good = True
    print(
        "| questions | number | temperature | right | word for word "
        "| stopped by itself |"
    )
    print("|---|---|---|---|---|---|")
    with serving(options.model) as client:
        for name, questions, earlier, goal in sets:
            for temperature in (0.0, 0.7):
                answers = [
                    (q, e, ask(client, q, temperature, earlier)) for q, e in questions
                ]
                missed = [(q, a) for q, e, a in answers if not e.is_in(a.text)]
                count = len(answers)
                shares = [
                    f"{100 * n / count:.1f} %"
                    for n in (
                        count - len(missed),
                        sum(a.text in texts for _, _, a in answers),
                        sum(a.finish == "stop" for _, _, a in answers),
                    )
                ]
                good = good and count - len(missed) >= goal * count
                print(
                    f"| {name} | {count} | {temperature:g} | {' | '.join(shares)} |",
                    flush=True,
                )
                for question, answer in missed if options.missed else []:
                    print(f"    {question}\n        {answer.text}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
