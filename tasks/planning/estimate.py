"""What a command line will need, before anything is done: bytes, disk, memory; and whether that can work.

Pure: what lies where, and what this machine has, are arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from tasks.console import formatting
from tasks.network.response import SPACE_MARGIN

OVERHEAD = 300 * 10**6  # bytes an engine takes beside weights and cache: its code, and buffers to compute in
UNKNOWN = "?"


class Need(NamedTuple):
    """One file."""

    label: str
    path: str
    state: str  # have, changed, resume, adopt, copy, fetch, nowhere
    source: str  # where it will come from
    size: int | None  # bytes of the whole
    taken: int = 0  # bytes of it that are here, and stay

    @property
    def to_fetch(self) -> int | None:
        """Bytes that go over the network; None where nobody says how many."""
        if self.state not in ("fetch", "resume"):
            return 0
        return None if self.size is None else max(0, self.size - self.taken)

    @property
    def to_write(self) -> int | None:
        """Bytes of the disk that it will take; None where nobody says how many."""
        return (self.size if self.state in ("adopt", "copy") else self.to_fetch) or self.to_fetch

    def where(self) -> str:
        """The state in words."""
        if self.state == "resume":
            return f"resume from {formatting.percent(self.taken, self.size) or formatting.size(self.taken)}"
        return self.state


class Memory(NamedTuple):
    """What serving one model takes, in bytes."""

    model: str
    weights: int | None
    cache: int | None  # the KV cache for the asked context
    context: int  # tokens, 0: as trained
    exact: bool  # from the file's own metadata; else a rule of thumb
    gpu: bool  # layers were asked onto a GPU, whose memory is not known here
    said: int | None = None  # all of it, as the catalogue has it

    @property
    def needed(self) -> int | None:
        """All of it; None where that is not known."""
        if self.weights is None or self.cache is None:
            return self.said
        return self.weights + self.cache + OVERHEAD


def total(values: Sequence[int | None]) -> tuple[int, bool]:
    """(sum of those that are known, whether all are)."""
    return sum(value or 0 for value in values), None not in values


def problems(needs: Sequence[Need], free: int, memory: Sequence[Memory], here: int) -> list[tuple[str, str]]:
    """Why it cannot work: (what, remedy) for each reason.

    Args:
        free: bytes of the disk; here: bytes of memory this process may use.
    """
    found = []
    write = total([need.to_write for need in needs])[0]
    if write and write + SPACE_MARGIN > free:
        what = f"the disk has {formatting.size(free)} free, and {formatting.size(write)} come"
        found.append((what, "doit prune, or LLAMAFILE_CACHE on another disk"))
    for one in memory:
        if one.needed and one.needed > here and not one.gpu:
            less = "a smaller --ctx-size, or " if (one.cache or 0) > OVERHEAD else ""
            what = f"{one.model} needs {formatting.size(one.needed)} of memory, and {formatting.size(here)} are here"
            found.append((what, f"{less}a smaller model (`doit` shows them)"))
    return found


def as_json(need: Need) -> dict[str, Any]:
    """A file for programs; sizes in bytes, null where they are not known."""
    return {
        "file": need.label,
        "path": need.path,
        "state": need.state,
        "source": need.source,
        "size": need.size,
        "here": need.size if need.state == "have" else need.taken,
        "to_fetch": need.to_fetch,
    }
