"""Clients that ask for answers all the time, half of them streams, and count what is lost."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

WHOLE = "whole"
CLIENTS = 8


class Answer(NamedTuple):
    """How a request ended: WHOLE, or in other words."""

    how: str
    seconds: float


def ask(url: str, number: int, tokens: int, key: str = "") -> str:
    """Ask once, every second time for a stream; return how it ended."""
    host = url.removeprefix("http://")
    body = {
        "messages": [{"role": "user", "content": f"Question {number}"}],
        "max_tokens": tokens,
        "ignore_eos": True,
        "stream": bool(number % 2),
    }
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    link = http.client.HTTPConnection(host, timeout=600)
    try:
        link.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        response = link.getresponse()
        text = response.read().decode()
    except http.client.IncompleteRead:
        return "a stream that was cut"
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__} {error}"
    finally:
        link.close()
    if response.status != 200:
        return f"status {response.status}"
    if body["stream"]:
        return WHOLE if text.endswith("data: [DONE]\n\n") else "a stream that was cut"
    return WHOLE if json.loads(text)["usage"]["completion_tokens"] == tokens else "a short answer"


@contextmanager
def load(
    url: str, requests: int, tokens: int, clients: int = CLIENTS, key: str = ""
) -> Iterator[list[Answer]]:
    """Ask all the time while the block runs, and at least `requests` times."""
    answers: list[Answer] = []
    numbers, lock, over = iter(range(10**9)), threading.Lock(), threading.Event()

    def client() -> None:
        while True:
            with lock:
                number = next(numbers)
            if over.is_set() and number >= requests:
                return
            start = time.monotonic()
            how = ask(url, number, tokens, key)
            with lock:
                answers.append(Answer(how, time.monotonic() - start))

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        over.set()
        for thread in threads:
            thread.join()
