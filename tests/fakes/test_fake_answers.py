"""The fake llamafile answers as the real one of its version does."""

from __future__ import annotations

import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.fakes.behaviour import Behaviour
from tests.fakes.llamafile import build
from tests.support.fake_engines import Start, health, ready, until

pytestmark = pytest.mark.once


# The llamafile: its answers

BOTH = pytest.mark.parametrize("version", ["0.9.3", "0.10.5"])
WORDS = "one two,  three\nfour ünï"
CHAT, COMPLETION = "/v1/chat/completions", "/completion"


def ask_chat(text: str = "hello there", **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": text}], **more}


def events(answer: requests.Response) -> list[Any]:
    """The events of a stream; strings where they are no JSON."""
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/event-stream")
    assert answer.headers["Transfer-Encoding"] == "chunked"
    text = answer.content.decode()
    assert text.endswith("\n\n")
    events = text[:-2].split("\n\n")
    assert all(event.startswith("data: ") for event in events)
    return [event[6:] if event == "data: [DONE]" else json.loads(event[6:]) for event in events]


def deltas(found: list[Any]) -> list[tuple[dict[str, Any], str | None]]:
    choices = [event["choices"][0] for event in found if event != "[DONE]" and event["choices"]]
    return [(choice["delta"], choice["finish_reason"]) for choice in choices]


@BOTH
def test_chat_streams_its_words(start: Start, odd: Path, version: str) -> None:
    _, url, _ = start(build(odd / "m", version=version, behaviour={"answer": WORDS}))
    ready(url)
    found = events(requests.post(f"{url}{CHAT}", json=ask_chat(stream=True), timeout=5))
    assert [event["object"] for event in found if event != "[DONE]"] == ["chat.completion.chunk"] * 7
    first, *words, last = deltas(found)
    role = {"role": "assistant"} if version == "0.9.3" else {"role": "assistant", "content": None}
    assert (first, last) == ((role, None), ({}, "stop"))
    assert [delta["content"] for delta, _ in words] == ["one", " two,", "  three", "\nfour", " ünï"]
    assert ("[DONE]" in found) == (version == "0.10.5")  # the old server only ends the body
    body = ask_chat(stream=True, max_tokens=2, stream_options={"include_usage": True})
    found = events(requests.post(f"{url}{CHAT}", json=body, timeout=5))
    assert [delta.get("content") for delta, _ in deltas(found)[1:]] == ["one", " two,", None]
    assert deltas(found)[-1] == ({}, "length")
    if version == "0.10.5":
        assert found[-2]["usage"] == {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4}
        assert found[-1] == "[DONE]"


@BOTH
def test_completion_answers_whole_and_streamed(start: Start, odd: Path, version: str) -> None:
    _, url, _ = start(build(odd / "m", version=version))
    ready(url)
    body = {"prompt": "a b c", "n_predict": 2}
    answer = requests.post(f"{url}{COMPLETION}", json=body, timeout=5).json()
    assert (answer["content"], answer["stop"], answer["tokens_predicted"]) == ("a b", True, 2)
    assert answer.get("stopped_limit", answer.get("stop_type")) == (version == "0.9.3" or "limit")
    found = events(requests.post(f"{url}{COMPLETION}", json={**body, "stream": True}, timeout=5))
    assert [(event["content"], event["stop"]) for event in found] == [("a", False), (" b", False), ("", True)]
    answer = requests.post(f"{url}{COMPLETION}", json={"prompt": "a b c"}, timeout=5).json()
    assert answer["content"] == "a b c"
    assert answer.get("stopped_eos", answer.get("stop_type")) == (version == "0.9.3" or "eos")


@pytest.mark.parametrize(("version", "given"), [("0.9.3", "1 2"), ("0.10.5", "1 2 3")])
def test_n_predict_is_a_cap_before_0_10_and_a_default_since(
    start: Start, odd: Path, version: str, given: str
) -> None:
    _, url, _ = start(build(odd / "m", version=version, behaviour={"answer": "1 2 3 4"}), "-n", "2")
    ready(url)
    for body, text in [(ask_chat(), "1 2"), (ask_chat(max_tokens=3), given), (ask_chat(max_tokens=1), "1")]:
        answer = requests.post(f"{url}{CHAT}", json=body, timeout=5).json()
        assert answer["choices"][0]["message"]["content"] == text
        assert answer["choices"][0]["finish_reason"] == "length"


def test_an_answer_may_be_empty(start: Start, odd: Path) -> None:
    _, url, _ = start(build(odd / "m", version="0.10.5", behaviour={"answer": ""}))
    ready(url)
    found = events(requests.post(f"{url}{CHAT}", json=ask_chat(stream=True), timeout=5))
    assert [reason for _, reason in deltas(found)] == [None, "stop"]
    answer = requests.post(f"{url}{CHAT}", json=ask_chat(), timeout=5).json()
    assert answer["choices"][0]["message"]["content"] == ""


def test_tokens_take_their_time(start: Start, odd: Path) -> None:
    mood: Behaviour = {"answer": "a b c", "token_seconds": 0.1}
    _, url, _ = start(build(odd / "m", version="0.10.5", behaviour=mood))
    ready(url)
    with requests.post(f"{url}{CHAT}", json=ask_chat(stream=True), stream=True, timeout=5) as answer:
        seen = [time.monotonic() for line in answer.iter_lines(chunk_size=1) if b'"content": "' in line]
    assert len(seen) == 3
    assert seen[-1] - seen[0] > 0.15


def busy_slots(url: str) -> int:
    slots = requests.get(f"{url}/slots", timeout=5).json()
    return sum(bool(slot.get("is_processing", slot.get("state"))) for slot in slots)


def wait_busy(url: str, count: int) -> None:
    until(lambda: busy_slots(url) == count, f"{count} busy slots")


def leave_early(url: str, body: dict[str, Any], wait_for: bytes = b"") -> None:
    """Ask, see the slot taken (and these bytes come), and hang up."""
    data = json.dumps(body).encode()
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=5) as client:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
        client.sendall(head.encode() + data)
        wait_busy(url, 1)
        got = b""
        while wait_for not in got:
            got += client.recv(65536)


@BOTH
def test_client_that_leaves_ends_its_request(start: Start, odd: Path, version: str) -> None:
    mood: Behaviour = {"answer": "word " * 1000, "token_seconds": 0.02}
    _, url, _ = start(build(odd / "m", version=version, behaviour=mood))
    ready(url)
    leave_early(url, ask_chat(stream=True), b'"content": " word"')
    wait_busy(url, 0)
    leave_early(url, ask_chat())
    if version == "0.10.5":
        wait_busy(url, 0)
    else:  # it generates to the end for nobody
        time.sleep(0.3)
        assert busy_slots(url) == 1


@BOTH
def test_slots_and_health_count_what_is_in_flight(start: Start, odd: Path, version: str) -> None:
    mood: Behaviour = {"answer": "a b", "token_seconds": 1}
    _, url, _ = start(build(odd / "m", version=version, behaviour=mood), "--parallel", "2")
    ready(url)
    slots = requests.get(f"{url}/slots", timeout=5).json()
    key, idle, busy = ("state", 0, 1) if version == "0.9.3" else ("is_processing", False, True)
    assert [(slot["id"], slot[key]) for slot in slots] == [(0, idle), (1, idle)]
    threads = []
    for count in (1, 2, 3):  # the third waits for a slot
        body = ask_chat(stream=count == 1)
        threads.append(
            threading.Thread(
                target=requests.post, args=(f"{url}{CHAT}",), kwargs={"json": body, "timeout": 9}
            )
        )
        threads[-1].start()
        wait_busy(url, min(count, 2))
        slots = requests.get(f"{url}/slots", timeout=5).json()
        assert [slot[key] for slot in slots] == [busy, busy if count > 1 else idle]
        if version == "0.9.3":
            status = "ok" if count == 1 else "no slot available"
            counts = {"slots_idle": max(0, 2 - count), "slots_processing": min(2, count)}
            assert health(url) == (200, {"status": status, **counts})
        else:
            assert health(url) == (200, {"status": "ok"})
    for thread in threads:
        thread.join()
    assert busy_slots(url) == 0


def test_default_slots(start: Start, odd: Path) -> None:
    for version, count in [("0.8.6", 1), ("0.10.5", 4)]:
        _, url, _ = start(build(odd / version, version=version))
        ready(url)
        assert len(requests.get(f"{url}/slots", timeout=5).json()) == count


@BOTH
@pytest.mark.parametrize("path", [CHAT, COMPLETION])
def test_chat_can_fail_while_health_is_well(start: Start, odd: Path, version: str, path: str) -> None:
    _, url, _ = start(build(odd / "m", version=version, behaviour={"chat_status": 500}))
    ready(url)
    answer = requests.post(f"{url}{path}", json={**ask_chat(stream=True), "prompt": "p"}, timeout=5)
    assert answer.status_code == 500
    if version == "0.9.3":
        assert answer.text.startswith("500 Internal Server Error\n")
    else:
        assert (answer.json()["error"]["code"], answer.json()["error"]["type"]) == (500, "server_error")
    assert health(url)[0] == 200


@BOTH
@pytest.mark.parametrize("stream", [False, True])
def test_chat_can_hang(start: Start, odd: Path, version: str, stream: bool) -> None:
    _, url, _ = start(build(odd / "m", version=version, behaviour={"chat_hang": True}))
    ready(url)
    # Of another class when the body is late: the old server sends the head of a stream at once.
    with pytest.raises(requests.RequestException, match="timed out") as caught:
        requests.post(f"{url}{CHAT}", json=ask_chat(stream=stream), timeout=0.5)
    assert isinstance(caught.value, requests.Timeout) != (stream and version == "0.9.3")
    assert health(url)[0] == 200
    if version == "0.10.5":
        wait_busy(url, 0)
    else:
        assert busy_slots(url) == 1


@BOTH
@pytest.mark.parametrize("way", ["flag", "file", "environment"])
def test_ways_to_give_a_key(start: Start, odd: Path, version: str, way: str) -> None:
    (odd / "keys").write_text("other key\n\nsecret-key\n")
    args = {"flag": ["--api-key", "secret-key"], "file": ["--api-key-file", "keys"]}.get(way, [])
    env = {"LLAMA_API_KEY": "secret-key"} if way == "environment" else {}
    old = version == "0.9.3"
    _, url, log = start(build(odd / "m", version=version), *args, **env)
    ready(url)

    def status(path: str, key: str | None = None, name: str = "Authorization") -> int:
        headers = {name: key} if key else {}
        if path in (CHAT, COMPLETION):
            body = {**ask_chat(), "prompt": "p"}
            return requests.post(url + path, json=body, headers=headers, timeout=5).status_code
        return requests.get(url + path, headers=headers, timeout=5).status_code

    shut = 200 if old and way == "environment" else 401  # the old server knows no such variable
    assert [status("/health"), status("/v1/models"), status("/")] == [200, 200, 200]
    assert [status(CHAT), status(COMPLETION), status(CHAT, "Bearer nope")] == [shut] * 3
    assert status("/slots") == (200 if old else 401)
    for path in (CHAT, COMPLETION, "/slots"):
        assert status(path, "Bearer secret-key") == 200
    assert status(CHAT, "secret-key", "X-Api-Key") == (shut if old else 200)
    assert "secret" not in log.read_text()
    if way == "flag":
        assert "api_key: ****-key" in log.read_text() or "api_keys: ****-key" in log.read_text()


def test_what_is_said_of_a_wrong_key_and_path(start: Start, odd: Path) -> None:
    _, url, _ = start(build(odd / "new", version="0.10.5"), "--api-key", "secret-key")
    ready(url)
    error = {"code": 401, "message": "Invalid API Key", "type": "authentication_error"}
    assert requests.get(f"{url}/slots", timeout=5).json() == {"error": error}
    assert requests.get(f"{url}/none", timeout=5).status_code == 401
    _, url, _ = start(build(odd / "old", version="0.9.3"), "--api-key", "secret-key")
    ready(url)
    assert requests.post(f"{url}{CHAT}", json=ask_chat(), timeout=5).text == "Unauthorized"
    assert requests.get(f"{url}/none", timeout=5).text == "File Not Found"


def test_openai_client_reads_the_stream(start: Start, odd: Path) -> None:
    openai = pytest.importorskip("openai")
    for version in ("0.9.3", "0.10.5"):
        _, url, _ = start(build(odd / version, version=version, behaviour={"answer": WORDS}))
        ready(url)
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            stream = client.chat.completions.create(model="m", messages=ask_chat()["messages"], stream=True)
            assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == WORDS
