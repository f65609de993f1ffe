"""Cases that have shown a defect, as small as they could be made; each with what happened."""

from __future__ import annotations

from tests.fuzz.case import FIFO, LINK, Case

DOWNLOAD = (("download:half",),)
ONLINE = {"LLAMAFILE_OFFLINE": ""}


def aliases(depth: int) -> bytes:
    """YAML in which each anchor has the one before it ten times."""
    rows = ["a0: &a0 [x]"]
    for level in range(depth):
        rows.append(f"a{level + 1}: &a{level + 1} [{', '.join([f'*a{level}'] * 10)}]")
    return "\n".join(rows).encode()


CASES: dict[str, Case] = {
    # before issue 11 was done
    "a partial that is a link: its end was overwritten": Case(
        DOWNLOAD, {"cache/models/*/half.llamafile.partial": LINK + "@WORLD@/victim/precious"}, ONLINE
    ),
    "a key that is a control character reached the terminal": Case(
        (("plan",),), {"project/models.lock": b'{"version": 1, "a\\u001b[2J": 1}'}
    ),
    "a command that is a control character reached the terminal": Case(
        (
            *(("stop", "\x1b[2J"), ("with:t", "\x1b[2J"), ("verify:plain", "\x1b[2J")),
            *(("-a", "\x1b[2J", "exe"), ("list", "\x1b[2J"), ("forget", "\x1b[2J")),
        )
    ),
    "a status line of a server reached the terminal": Case(
        (("download", "--llamafile-url", "http://127.0.0.1:@HOSTILE@/m.gguf"),),
        env=ONLINE,
        answer=b"HTTP/1.1 99\0\x1b[2J\r\n\r\n",
    ),
    "a compiled catalogue with a model that is a number": Case(
        (("plan",), ("prune", "--dry-run")),
        {"cache/catalogue/*.json": b'{"models": {"tool": 5}}'},
        reread=True,
    ),
    "a root that is a pipe": Case((("prune", "--dry-run"),), {"cache/roots/*.json": FIFO}),
    "aliases of aliases that grow to a billion values": Case(
        (("catalogue",),), {"project/models.yaml": aliases(9)}
    ),
}
