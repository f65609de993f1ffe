"""Which server a command line means: the rules, as a table."""

from __future__ import annotations

import pytest
from tasks.errors import UsageError
from tasks.server.selection import Choice, check_unambiguous, parse_port
from tasks.server.server_record import Mode, ServerRecord
from tasks.system.process_id import ProcessId


def server(name: str, port: int, host: str = "127.0.0.1", path: str = "") -> ServerRecord:
    engine = ProcessId(pid=port + 1, started=1.0, boot="b", space="s")
    return ServerRecord(name, Mode.START, host, port, {}, ("e", "-m", path), "x.log", "0" * 16, engine=engine)


A1, A2, B3 = server("a", 1), server("a", 2), server("b", 3)
RUNNING = [A1, A2, B3]


@pytest.mark.parametrize(
    ("names", "port", "expected"),
    [
        ((), None, [A1, A2, B3]),
        (("a",), None, [A1, A2]),
        (("a", "b"), None, [A1, A2, B3]),
        (("a",), 2, [A2]),
        ((), 3, [B3]),
        (("b",), 2, []),
        (("c",), None, []),
    ],
)
def test_matching(names: tuple[str, ...], port: int | None, expected: list[ServerRecord]) -> None:
    """Name and port both have to match."""
    assert Choice(names, port).of(RUNNING) == expected


OWN1, OWN2 = server("own", 4, path="/x/own.gguf"), server("own", 5, path="/y/own.gguf")


@pytest.mark.parametrize(
    ("names", "files", "expected"),
    [
        (("own",), (), [OWN1, OWN2]),
        (("own",), (("own", "/y/own.gguf"),), [OWN2]),
        (("own",), (("own", "/z/own.gguf"),), []),
        (("own",), (("own", "/x/own.gguf"), ("own", "/y/own.gguf")), [OWN1, OWN2]),
        (("own", "b"), (("own", "/x/own.gguf"),), [B3, OWN1]),
    ],
)
def test_files(
    names: tuple[str, ...], files: tuple[tuple[str, str], ...], expected: list[ServerRecord]
) -> None:
    """A path means the server of that file, whatever others have its name."""
    assert Choice(names, files=files).of([B3, OWN1, OWN2]) == expected


@pytest.mark.parametrize(
    ("names", "servers", "several"),
    [
        ((), [], None),
        ((), [A1], None),
        ((), [A1, A2], [A1, A2]),
        ((), [A1, B3], [A1, B3]),
        (("b",), [B3], None),
        (("a",), [A1, A2], [A1, A2]),
        (("a", "b"), [A1, B3], None),
        (("b", "a"), [A1, A2, B3], [A1, A2]),
    ],
)
def test_ambiguous(
    names: tuple[str, ...], servers: list[ServerRecord], several: list[ServerRecord] | None
) -> None:
    """Never two for one: each of them is listed with the command that means it alone."""
    if several is None:
        check_unambiguous(servers, names, "stop")
        return
    with pytest.raises(UsageError) as caught:
        check_unambiguous(servers, names, "stop")
    assert caught.value.facts == tuple(
        (f"{one.name}, port {one.port}, pid {one.port + 1}", f"doit stop --port {one.port}")
        for one in several
    )


def test_one_port_on_two_addresses() -> None:
    """Then the command has the model, too."""
    with pytest.raises(UsageError) as caught:
        check_unambiguous([server("a", 1), server("b", 1, "127.0.0.2")], (), "logs")
    assert [command for _, command in caught.value.facts] == [
        "doit logs --model a --port 1",
        "doit logs --model b --port 1",
    ]


@pytest.mark.parametrize(("text", "port"), [(None, None), ("1", 1), ("65535", 65535)])
def test_ports(text: str | None, port: int | None) -> None:
    """A port that a server can have."""
    assert parse_port(text) == port


@pytest.mark.parametrize("text", ["", "0", "65536", "x", "-1", "1.5", "\u0663", "9" * 5000])
def test_no_ports(text: str) -> None:
    """Anything else is a usage error."""
    with pytest.raises(UsageError, match="--port: expected a port from 1 to 65535"):
        parse_port(text)
