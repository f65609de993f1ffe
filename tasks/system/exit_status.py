"""How a program ended, in words. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Ending(NamedTuple):
    """How a program ended: what explains it to its user."""

    command: Sequence[str]
    status: int | None  # exit status, negative for a signal; None where it was still running
    output: str  # the last lines it printed
    log: str = ""


# how a POSIX system and Windows (ntstatus.h) call the ends of a program; macOS has numbers of its own for two
_SIGNALS = {1: "HUP", 2: "INT", 3: "QUIT", 4: "ILL", 5: "TRAP", 6: "ABRT", 7: "BUS", 8: "FPE", 9: "KILL",
            11: "SEGV", 13: "PIPE", 15: "TERM", 31: "SYS"}  # fmt: skip
_SIGNALS_OF_MACOS = {7: "EMT", 10: "BUS", 12: "SYS", 31: "USR2"}
_NTSTATUS = {
    0xC0000005: "STATUS_ACCESS_VIOLATION",
    0xC0000017: "STATUS_NO_MEMORY",
    0xC000001D: "STATUS_ILLEGAL_INSTRUCTION",
    0xC000007B: "STATUS_INVALID_IMAGE_FORMAT",
    0xC00000FD: "STATUS_STACK_OVERFLOW",
    0xC0000135: "STATUS_DLL_NOT_FOUND",
    0xC000013A: "STATUS_CONTROL_C_EXIT",
    0xC0000142: "STATUS_DLL_INIT_FAILED",
    0xC0000374: "STATUS_HEAP_CORRUPTION",
    0xC0000409: "STATUS_STACK_BUFFER_OVERRUN",
}


def status_text(status: int | None, platform: str = "linux") -> str:
    """`exit status 1`, `signal 9 (SIGKILL)`, `exit status 0xC0000135 (STATUS_DLL_NOT_FOUND)`."""
    if status is None:
        return "still running"
    nt = status & 0xFFFFFFFF  # Python gives it unsigned, a shell of Windows signed
    if nt in _NTSTATUS or status >= 0xC0000000:
        return f"exit status 0x{nt:08X}" + (f" ({_NTSTATUS[nt]})" if nt in _NTSTATUS else "")
    if platform == "win32" and 0 < status < 0x10000 and status % 0x100 == 0:
        status >>= 8  # an APE's exit(1) is 256 there (exit.c:92 of jart/cosmopolitan)
    if status >= 0:
        return f"exit status {status}"
    names = {**_SIGNALS, **(_SIGNALS_OF_MACOS if platform == "darwin" else {})}
    return f"signal {-status}" + (f" (SIG{names[-status]})" if -status in names else "")
