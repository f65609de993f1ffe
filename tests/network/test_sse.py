"""Server-sent events, split anywhere and malformed (security 26, faults F11)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tasks.errors import ServerError
from tasks.network.sse import Delta, Event, Parser, delta

STREAMS = [
    pytest.param(b"", [], id="nothing"),
    pytest.param(b"data: a\n\n", [("a", "")], id="one event"),
    pytest.param(b"data:a\r\rdata:b\r\r", [("a", ""), ("b", "")], id="lines that end with CR"),
    pytest.param(b"data: a\r\n\r\n", [("a", "")], id="CR LF"),
    pytest.param(b"data: a\r\n\n", [("a", "")], id="mixed ends"),
    pytest.param(b"data: a\ndata: b\n\n", [("a\nb", "")], id="two data lines are one event"),
    pytest.param(b"data:  a \n\n", [(" a ", "")], id="one space is not data, the others are"),
    pytest.param(b"data\n\ndata\ndata\n\ndata:", [("", ""), ("\n", "")], id="example"),
    pytest.param(b"data:\n\n", [("", "")], id="an event with empty data"),
    pytest.param(b"data:test\n\ndata: test\n\n", [("test", "")] * 2, id="second example"),
    pytest.param(b"event: x\n\ndata: a\n\n", [("a", "")], id="no data resets the name"),
    pytest.param(b"event: x\nevent: y\ndata: a\n\n", [("a", "y")], id="the last name counts"),
    pytest.param(b"data: a: b\n\n", [("a: b", "")], id="the first colon"),
    pytest.param(b" data: a\nDATA: a\ndata : a\n\n", [], id="a field's name is exact"),
    pytest.param(b"data: a\ndata: b\rdata: c\r\n\r", [("a\nb\nc", "")], id="mixed"),
    pytest.param(b"id\nid: \0\nretry: x\n\n", [], id="fields alone are no event"),
    pytest.param(b": ping\n\ndata: a\n: x\n\n", [("a", "")], id="comments"),
    pytest.param(b"event: error\ndata: a\n\ndata: b\n\n", [("a", "error"), ("b", "")], id="an event's name"),
    pytest.param(b"id: 5\nretry: 5\nother: 5\ndata: a\n\n", [("a", "")], id="fields of no interest"),
    pytest.param(b"\xef\xbb\xbfdata: a\n\n", [("a", "")], id="a byte order mark"),
    pytest.param(b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [("a", "")], id="it is not at the start"),
    pytest.param(b"data: \xe2\x98\x83\xe2\x98\n\n", [("\u2603\ufffd", "")], id="cut UTF-8"),
    pytest.param(b"\n\n\n\n", [], id="blank lines"),
    pytest.param(b"data: a\n\ndata: b", [("a", "")], id="cut in a line"),
    pytest.param(b"data: a\n\ndata: b\n", [("a", "")], id="cut before the blank line"),
    pytest.param(b"data: \xff\xfe\n\n", [("\ufffd\ufffd", "")], id="not UTF-8"),
    pytest.param(b"data: a\0b\x1b[2J\n\n", [("a\0b\x1b[2J", "")], id="control characters"),
    pytest.param(b"error: gone\n\n", [("gone", "error")], id="llama.cpp's own field"),
    pytest.param(b"HTTP/1.1 200 OK\n\n<html>\n\n", [], id="something else"),
]  # fmt: skip


@pytest.mark.parametrize("size", [1, 2, 3, 10_000])
@pytest.mark.parametrize(("stream", "events"), STREAMS)
def test_streams(stream: bytes, events: list[tuple[str, str]], size: int) -> None:
    """Where the pieces are cut makes no difference."""
    parser = Parser()
    found = [event for at in range(0, len(stream), size) for event in parser.feed(stream[at : at + size])]
    assert found == [Event(*one) for one in events]


@given(
    st.lists(st.sampled_from([b"data", b":", b" ", b"\n", b"\r", b"x", b"event", b"\xff", b"error"])),
    st.data(),
)
def test_any_stream(words: list[bytes], data: st.DataObject) -> None:
    """Two ways to cut the same bytes give the same events."""
    stream = b"".join(words)
    cut = data.draw(st.integers(0, len(stream)))
    whole, halves = Parser(), Parser()
    assert whole.feed(stream) == [*halves.feed(stream[:cut]), *halves.feed(stream[cut:])]


def test_an_event_of_a_megabyte() -> None:
    """Nothing below the limit is cut (F11)."""
    text = "x" * 1_000_000
    parser, stream = Parser(), f"data: {text}\n\n".encode()
    found = [one for at in range(0, len(stream), 65536) for one in parser.feed(stream[at : at + 65536])]
    assert found == [Event(text)]


@pytest.mark.parametrize("line", [b"data: " + b"x" * 90, b"data: xxxxxxxx\n" * 20])
def test_an_event_without_an_end(line: bytes) -> None:
    """In one line or in many, it is refused at the limit."""
    with pytest.raises(ServerError, match="an event of more than 64 bytes"):
        Parser(64).feed(line)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ('{"choices": [{"delta": {"content": "a"}}]}', Delta("a")),
        ('{"choices": [{"delta": {}, "finish_reason": "stop"}]}', Delta("", True)),
        ('{"choices": [{"finish_reason": "length"}]}', Delta("", True, is_cut=True)),
        ('{"choices": [{"delta": {"reasoning_content": "a"}}]}', Delta(reasoning="a")),
        ('{"choices": [{"delta": {"reasoning": "a"}}]}', Delta(reasoning="a")),
        ('{"choices": [{"delta": {"reasoning_content": null, "reasoning": "a"}}]}', Delta(reasoning="a")),
        ('{"choices": [{"delta": {"reasoning_content": "a", "reasoning": "a"}}]}', Delta(reasoning="a")),
        ('{"choices": [{"delta": {"content": "a", "reasoning_content": ""}}]}', Delta("a")),
        ('{"choices": [{"delta": {"content": "", "reasoning_content": "a"}}]}', Delta(reasoning="a")),
        ("[DONE]", Delta("", True, True)),
        (" [DONE] ", Delta("", True, True)),
        *(
            (text, Delta())
            for text in (
                "", " \n", '{"choices": [{"delta": {"reasoning": {"a": 1}}}]}',
                "{}", '{"choices": []}', '{"choices": null}', '{"choices": 5}', '{"choices": [5]}',
                '{"choices": [{"delta": null}]}', '{"choices": [{"delta": []}]}', '{"error": null}',
                '{"choices": [{"delta": {"content": null}}]}', '{"choices": [{"delta": {"content": 5}}]}',
                '{"choices": {"0": 1}}', '{"usage": {}}', '{"choices": [{"delta": {"content": ["a"]}}]}',
            )
        ),
    ],
)  # fmt: skip
def test_events(data: str, expected: Delta) -> None:
    """What has another form adds nothing."""
    assert delta(Event(data)) == expected


@pytest.mark.parametrize(
    ("event", "says"),
    [
        (Event("nope"), "is not JSON"),
        (Event('{"choices": ['), "is not JSON"),
        (Event("[" * 500_000), "is not JSON (nested too deeply)"),
        (Event("9" * 5000), "is not JSON"),
        (Event("null"), "is not a JSON object\n  event: 'null'"),
        (Event("[1]"), "is not a JSON object"),
        (Event('"\\ud800"'), "is not a JSON object"),
        (Event('{"error": "text"}'), "cannot answer\n  answer: text"),
        (Event('{"error": {"message": "text"}}'), "cannot answer\n  answer: text"),
        (Event('{"error": ["text"]}'), "cannot answer\n  answer: ['text']"),
        (Event('{"error": {"code": 5}}'), "cannot answer\n  answer: {'code': 5}"),
        (Event("text", "error"), "cannot answer\n  answer: text"),
        (Event('{"message": "text"}', "error"), "cannot answer\n  answer: text"),
        (Event('{"error": {"message": "text"}}', "error"), "cannot answer\n  answer: text"),
    ],
)
def test_errors(event: Event, says: str) -> None:
    """The server's words, or what is wrong with them."""
    with pytest.raises(ServerError) as caught:
        delta(event)
    assert says in str(caught.value)


@given(st.text())
def test_whatever_a_server_sends(data: str) -> None:
    """A ServerError at most."""
    for name in ("", "error"):
        try:
            delta(Event(data, name))
        except ServerError:
            continue
