"""Causes of failed engines that several entries of the table have in common. Pure."""

from __future__ import annotations

MEMORY = (
    "memory is short: use a smaller --ctx-size, or a smaller model (`doit` shows what "
    "each needs)"
)
KILLED = "it was killed, most often because " + MEMORY
BROKEN = "the file is truncated or its disk failed: delete it and run the command again"
NOT_SENT = (
    "the file is a web page or a Git LFS pointer, not the file: "
    "delete it and check its URL"
)
NOEXEC = (
    "a noexec file system: set LLAMAFILE_CACHE to another disk, "
    "or mount -o remount,exec"
)
NO_AVX = (
    "this CPU, or the virtual machine's, lacks AVX or another extension that the "
    "engine needs: use another machine"
)
ROSETTA = (
    "it runs under Rosetta, which lacks AVX: use an arm64 shell and an arm64 Python "
    "(arch -arm64 zsh)"
)
WSL = (
    "sudo sh -c 'echo -1 > /proc/sys/fs/binfmt_misc/WSLInterop' "
    "(on newer WSL: WSLInterop-late)"
)
SCANNER = (
    "a virus scanner blocks it, for a llamafile most often by mistake: update its "
    "definitions, or add an exception for the cache (LLAMAFILE_CACHE)"
)
CRASHED = (
    "the engine crashed: check the limits (ulimit -a) and the free memory; on a "
    "machine with a GPU, try --gpu disable"
)
SANDBOX = (
    "a sandbox forbids a system call: `doit serve -- --unsecure` turns off "
    "llamafile's own; to rule out the container's, try docker run --security-opt "
    "seccomp=unconfined"
)
