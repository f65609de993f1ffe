"""Describe how a program ended. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class ProcessExit(NamedTuple):
    """The end of a program, as far as an error message needs it."""

    command: Sequence[str]
    status: int | None  # negative for a signal; None while the program still runs
    output: str  # the last lines that it printed
    log: str = ""


# names in POSIX systems (macOS differs in four) and in Windows (ntstatus.h)
_SIGNALS = {1: "HUP", 2: "INT", 3: "QUIT", 4: "ILL", 5: "TRAP", 6: "ABRT", 7: "BUS"}
_SIGNALS |= {8: "FPE", 9: "KILL", 11: "SEGV", 13: "PIPE", 15: "TERM", 31: "SYS"}
_MACOS_SIGNALS = {**_SIGNALS, 7: "EMT", 10: "BUS", 12: "SYS", 31: "USR2"}
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
    """Return the exit status or the signal of a program as text.

    Examples: `exit status 1`, `signal 9 (SIGKILL)`,
    `exit status 0xC0000135 (STATUS_DLL_NOT_FOUND)`.
    """
    if status is None:
        return "still running"
    ntstatus = status & 0xFFFFFFFF  # Python reports it unsigned, a Windows shell signed
    if ntstatus in _NTSTATUS:
        return f"exit status 0x{ntstatus:08X} ({_NTSTATUS[ntstatus]})"
    if status >= 0xC0000000:
        return f"exit status 0x{ntstatus:08X}"
    if platform == "win32" and 0 < status < 0x10000 and status % 0x100 == 0:
        # on Windows, exit(1) of an APE is 256; Source: exit.c:92 of jart/cosmopolitan
        status >>= 8
    if status >= 0:
        return f"exit status {status}"
    return _signal_text(-status, platform)


def _signal_text(number: int, platform: str) -> str:
    names = _MACOS_SIGNALS if platform == "darwin" else _SIGNALS
    if number not in names:
        return f"signal {number}"
    return f"signal {number} (SIG{names[number]})"
