"""Build files that are to the launcher what a llamafile is: a shell script, a zip, not an ELF.

POSIX runs one as ["/bin/sh", ABSOLUTE_PATH, ...], anything with a Python as [PYTHON, PATH, ...].
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import py_compile
import shlex
import struct
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import Any

from tests.fakes.behaviour import VARIABLE, Behaviour, Crash, check_keys

__all__ = ["MAGIC", "VARIABLE", "Behaviour", "Crash", "build", "build_exe", "build_gguf", "gguf"]

MAGIC = b"MZqFpD='"  # cosmopolitan ape/specification.md
ALIGNMENT = 65536  # of the model in the zip (zipalign.c:49)
LOCAL_HEADER = 30  # bytes before a member's name
PERIOD = 1_000_003  # bytes after which noise repeats itself
EPOCH = (1980, 1, 1, 0, 0, 0)  # the same input builds the same bytes
HERE = Path(__file__).parent
# Beside engine.py:
PACKED = ["__init__.py", "behaviour.py", "engine_args.py", "engine_chat.py", "engine_http.py"]
# Every byte a shell may read between single quotes.
JUNK = bytes(n for n in range(1, 256) if n != ord("'")) * 4
NO_SLASH = "ape error: : not found (maybe chmod +x or ./ needed)"


def build(
    path: Path,
    *,
    version: str = "0.8.6",
    python: str = sys.executable,
    gguf: bytes | None = None,
    args: Sequence[str] = (),
    behaviour: Behaviour | None = None,
    pad: int = 0,
) -> Path:
    """Write a llamafile with its model inside; `pad` bytes make the model larger.

    `.args` is `-m model.gguf`, then `args`, then `...` unless `args` says where.
    """
    model = (_header() if gguf is None else gguf) + _noise(pad)
    lines = ["-m", "model.gguf", *args, *([] if "..." in args else ["..."])]
    stored = "".join(f"{line}\n" for line in lines).encode()
    members = {"model.gguf": model, ".args": stored}
    return _write(path, python, {"version": version, **(behaviour or {})}, members)


def build_exe(
    path: Path,
    *,
    version: str = "0.10.5",
    python: str = sys.executable,
    behaviour: Behaviour | None = None,
    pad: int = 0,
) -> Path:
    """Write the engine without a model; `pad` bytes of a member nobody reads make it larger."""
    members = {"ggml-cuda.so": _noise(pad)}
    return _write(path, python, {"version": version, **(behaviour or {})}, members)


def build_gguf(path: Path, *, size: int = 4096) -> Path:
    """Write a valid GGUF file of exactly `size` bytes (24 at least)."""
    path.write_bytes(gguf(size))
    return path


def gguf(size: int = 24) -> bytes:
    """Return a GGUF file: version 3, no tensors, no metadata, then noise up to `size`."""
    return _header() + _noise(max(0, size - len(_header())))


def noise(seed: bytes, size: int) -> bytes:
    """Return bytes that begin as a llamafile does, and go on with noise."""
    return MAGIC + _repeated(seed, size - len(MAGIC))


def _header() -> bytes:
    return struct.pack("<4sIQQ", b"GGUF", 3, 0, 0)


def _noise(size: int) -> bytes:
    # Not zeros: bytes written at a wrong offset must show.
    return _repeated(b"llamafile", size)


def _repeated(seed: bytes, size: int) -> bytes:
    # pieces of a download begin at multiples of other numbers than this prime
    block = hashlib.shake_128(seed).digest(min(size, PERIOD))
    return (block * -(-size // PERIOD))[:size]


def _stub(python: str) -> bytes:
    # a Python starts sooner without site-packages; a test may give a program that is none
    quick = " -SE" if python == sys.executable else ""
    script = (
        f"case $0 in */*) ;; *) echo '{NO_SLASH}' >&2; exit 127;; esac\n"
        f'exec {shlex.quote(python)}{quick} "$0" "$@"\n'
        "exit 127\n"
    )
    return MAGIC + b"\n" + JUNK + b"'\n" + os.fsencode(script)


def _write(path: Path, python: str, behaviour: dict[str, Any], members: dict[str, bytes]) -> Path:
    check_keys(behaviour)
    buffer = io.BytesIO(_aligned(_stub(python), len(next(iter(members)))))
    with zipfile.ZipFile(buffer, "a") as box:
        for name, data in members.items():
            _add(box, name, data, zipfile.ZIP_STORED)
        _add(box, "behaviour.json", json.dumps(behaviour).encode())
        for name, data in _program().items():
            _add(box, name, data, zipfile.ZIP_STORED)
    path.write_bytes(buffer.getvalue())
    return path


@functools.cache
def _program() -> dict[str, bytes]:
    """The engine's modules; compiled as well, so that a start need not do it (one by another Python does)."""
    sources = {f"tests/fakes/{name}": HERE / name for name in PACKED} | {"__main__.py": HERE / "engine.py"}
    members = {"tests/__init__.py": b""}
    with tempfile.TemporaryDirectory() as folder:
        for name, source in sources.items():
            compiled = os.path.join(folder, "compiled")
            py_compile.compile(
                str(source), compiled, name, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH
            )
            members |= {name: source.read_bytes(), f"{name}c": Path(compiled).read_bytes()}
    return members


def _aligned(stub: bytes, name_length: int) -> bytes:
    # Then the data of the first member begin at a multiple of ALIGNMENT.
    return stub + b"\n" * (-(len(stub) + LOCAL_HEADER + name_length) % ALIGNMENT)


def _add(box: zipfile.ZipFile, name: str, data: bytes, how: int = zipfile.ZIP_DEFLATED) -> None:
    info = zipfile.ZipInfo(name, EPOCH)
    info.compress_type = how
    info.external_attr = 0o644 << 16
    box.writestr(info, data)
