"""The bytes of a download so far: appended, hashed as they come, and claimed only when they are on disk.

`<target>.partial` holds bytes, `<target>.partial.json` says how many of them count. Data goes to disk
before the claim about it, so whatever kills the process, what is claimed is there; progress is never
inferred from the file's size.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable

from tasks.core.artifact import Artifact
from tasks.effects.files import BLOCK, fsync_dir, read_json, write_atomic

SAVE_BYTES = 32 * 1024**2  # work that SIGKILL may cost: this much,
SAVE_S = 1.0  # or this many seconds of it, whichever is less


class Partial:
    """An open partial file. Use `with`: leaving it saves the claim.

    Args:
        clock: monotonic seconds.

    Attributes:
        have: bytes that are here, all of them hashed.
        validator: what If-Range may carry for these bytes.
        restarts: how often what was here had to be dropped.
    """

    def __init__(self, artifact: Artifact, clock: Callable[[], float] = time.monotonic) -> None:
        self._artifact = artifact
        self._clock = clock
        self.have, self.validator = claimed(artifact)
        self._claimed = self.have
        self._saved_at = clock()
        self.restarts = 0
        if not self.have:
            _unlink(artifact.journal)  # else new bytes would stand under the old claim
        os.makedirs(os.path.dirname(artifact.target), exist_ok=True)
        self._file = os.fdopen(os.open(artifact.partial, _FLAGS, 0o644), "r+b", buffering=0)
        self._digest = hashlib.sha256()
        self._rehash()

    def __enter__(self) -> Partial:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.save()
        finally:
            self._file.close()
            if not self.have:  # nothing worth keeping
                _unlink(self._artifact.partial)
                _unlink(self._artifact.journal)

    def _rehash(self) -> None:
        """Hash the claimed bytes; anything behind them is cut off."""
        left, self.have = self.have, 0
        while left and (block := self._file.read(min(BLOCK, left))):
            self._digest.update(block)
            left -= len(block)
            self.have += len(block)
        self._file.truncate(self.have)
        self._file.seek(self.have)

    def restart(self) -> None:
        """Drop every byte."""
        self.have = self._claimed = 0
        self.restarts += 1
        self.validator = ""
        self._digest = hashlib.sha256()
        self._file.seek(0)
        self._file.truncate(0)
        self._write_journal()

    def write(self, block: bytes) -> None:
        """Append a block."""
        view = memoryview(block)
        while view:
            view = view[self._file.write(view) :]
        self._digest.update(block)
        self.have += len(block)
        late = self._clock() - self._saved_at >= SAVE_S
        if late or self.have - self._claimed >= SAVE_BYTES:
            self.save()

    def save(self) -> None:
        """Claim what is here: first the data to disk, then the claim."""
        if self.have != self._claimed:
            getattr(os, "fdatasync", os.fsync)(self._file.fileno())
            self._claimed = self.have
            self._write_journal()
        self._saved_at = self._clock()

    def _write_journal(self) -> None:
        claim = {
            "sha256": self._artifact.sha256,
            "sources": self._artifact.sources,
            "have": self._claimed,
            "validator": self.validator,
        }
        write_atomic(self._artifact.journal, json.dumps(claim))

    def sha256(self) -> str:
        """The digest of the bytes that are here."""
        return self._digest.hexdigest()

    def publish(self) -> None:
        """Give the file its final name; only for bytes that are proven."""
        os.fsync(self._file.fileno())
        self._claimed = self.have
        self._file.close()  # Windows renames no open file
        os.replace(self._artifact.partial, self._artifact.target)
        fsync_dir(os.path.dirname(self._artifact.target))
        _unlink(self._artifact.journal)


_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


def claimed(artifact: Artifact) -> tuple[int, str]:
    """(bytes that count, their validator); 0 for a journal of other bytes than the artifact's."""
    claim = read_json(artifact.journal)
    try:
        have, validator = int(claim["have"]), str(claim["validator"])
        same = claim["sha256"] == artifact.sha256
        # without a digest only a validator of the same source says that the rest will fit
        fits = artifact.sha256 or (validator and claim["sources"] == list(artifact.sources))
        size = os.path.getsize(artifact.partial)
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        return 0, ""
    return (have, validator) if same and fits and 0 < have <= size else (0, "")


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
