"""A repository of the fake Hub: commits, refs, files as git and Git LFS name them, and the API's JSON.

Source: huggingface_hub hf_api.py for the fields (ModelInfo, RepoSibling, RepoFile, RepoFolder); answers of
the real API as others have recorded them, for the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

LFS = (".bin", ".gguf", ".llamafile", ".safetensors")  # as .gitattributes of model repositories has it
LFS_SIZE = 10 * 1024 * 1024  # bytes; the Hub takes no larger file without LFS
EPOCH = datetime(2026, 1, 1)

Json = dict[str, Any]


def git_oid(kind: str, data: bytes) -> str:
    """Return git's name of an object."""
    return hashlib.sha1(b"%s %d\0%s" % (kind.encode(), len(data), data)).hexdigest()


@dataclass(frozen=True)
class File:
    """Bytes under a name."""

    path: str
    data: bytes

    @property
    def lfs(self) -> bool:
        """Whether git has but a pointer to it."""
        return self.path.endswith(LFS) or len(self.data) > LFS_SIZE

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def pointer(self) -> bytes:
        """What git has of an LFS file. Source: git-lfs docs/spec.md."""
        text = (
            f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.data)}\n"
        )
        return text.encode()

    @cached_property
    def oid(self) -> str:
        return git_oid("blob", self.pointer if self.lfs else self.data)

    def entry(self) -> Json:
        """Return its entry in the tree API."""
        known: Json = {"type": "file", "oid": self.oid, "size": len(self.data), "path": self.path}
        if self.lfs:
            known["lfs"] = {"oid": self.sha256, "size": len(self.data), "pointerSize": len(self.pointer)}
        return known

    def sibling(self, blobs: bool) -> Json:
        """Return its entry in the model's description, with sizes and digests if they are asked for."""
        known: Json = {"rfilename": self.path}
        if blobs:
            known |= {"size": len(self.data), "blobId": self.oid}
        if blobs and self.lfs:
            pointer = len(self.pointer)
            known["lfs"] = {"sha256": self.sha256, "size": len(self.data), "pointerSize": pointer}
        return known


@dataclass(frozen=True)
class Commit:
    id: str
    title: str
    date: str
    files: Mapping[str, File]

    def tree(self, under: str, recursive: bool, expand: bool) -> list[Json]:
        """Return the entries below a folder ("" is the root), folders first; none if it is no folder."""
        prefix = f"{under}/" if under else ""
        found = [f.entry() for f in self.files.values() if f.path.startswith(prefix)]
        found += [self._folder(path) for path in _folders(self.files) if path.startswith(prefix)]
        if not recursive:
            found = [entry for entry in found if "/" not in entry["path"][len(prefix) :]]
        if expand:
            found = [{**entry, **self._more(entry)} for entry in found]
        return sorted(found, key=lambda entry: (entry["type"] == "file", entry["path"]))

    def _folder(self, path: str) -> Json:
        inside = "".join(f.oid for f in self.files.values() if f.path.startswith(f"{path}/"))
        return {"type": "directory", "oid": git_oid("tree", inside.encode()), "size": 0, "path": path}

    def _more(self, entry: Json) -> Json:
        known: Json = {"lastCommit": {"id": self.id, "title": self.title, "date": self.date}}
        if entry["type"] == "file":
            scan = {"status": "safe", "avScan": {"status": "safe"}, "pickleImportScan": None}
            known["securityFileStatus"] = scan
        return known


def _folders(paths: Iterable[str]) -> set[str]:
    return {str(folder) for path in paths for folder in PurePosixPath(path).parents if folder.name}


class Repo:
    """`keep` is told each file that a commit brings.

    Args:
        licence: as on the model's card, e.g. "apache-2.0".
        gated: False, "auto" or "manual"; the Hub gates the files, not what it says about them.
    """

    def __init__(
        self, name: str, keep: Callable[[File], None], licence: str | None, gated: str | bool, private: bool
    ) -> None:
        self.name, self.licence, self.gated, self.private = name, licence, gated, private
        self.refs: dict[str, str] = {}  # branch or tag -> commit
        self.commits: dict[str, Commit] = {}
        self._keep = keep

    def push(self, files: Mapping[str, bytes | None], branch: str = "main", title: str = "Upload") -> str:
        """Commit these files onto a branch (None removes one; a new branch starts at main); return the id."""
        start = self.refs.get(branch) or self.refs.get("main")
        before = self.commits[start].files if start else {}
        new = {path: File(path, data) for path, data in files.items() if data is not None}
        after = {path: file for path, file in {**before, **new}.items() if files.get(path, b"") is not None}
        for file in new.values():
            self._keep(file)
        number = len(self.commits)
        facts = [self.name, branch, str(number), *(f"{path} {file.oid}" for path, file in after.items())]
        commit = git_oid("commit", "\n".join(facts).encode())
        date = f"{(EPOCH + timedelta(minutes=number)).isoformat()}.000Z"
        self.commits[commit] = Commit(commit, title, date, after)
        self.refs[branch] = commit
        return commit

    def tag(self, name: str, commit: str | None = None) -> None:
        """Name a commit, main's unless given."""
        self.refs[name] = commit or self.refs["main"]

    def find(self, rest: str) -> tuple[str, Commit | None, str]:
        """Split "revision/path" behind a revision that there is: (revision, its commit, path).

        The name of a branch such as refs/pr/1 has slashes, encoded or not; git lets no other one begin it.
        """
        known = (name for name in (*self.refs, *self.commits) if f"{rest}/".startswith(f"{name}/"))
        revision = next(known, rest.partition("/")[0])
        commit = self.commits.get(self.refs.get(revision, revision))
        return revision, commit, rest[len(revision) + 1 :]

    def info(self, commit: Commit, blobs: bool) -> Json:
        """Return the model's description at a commit."""
        known: Json = {
            "_id": hashlib.sha1(self.name.encode()).hexdigest()[:24],
            "id": self.name,
            "modelId": self.name,
            "author": self.name.partition("/")[0],
            "sha": commit.id,
            "lastModified": commit.date,
            "createdAt": f"{EPOCH.isoformat()}.000Z",
            "private": self.private,
            "gated": self.gated,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [f"license:{self.licence}", "region:us"] if self.licence else ["region:us"],
            "siblings": [file.sibling(blobs) for _, file in sorted(commit.files.items())],
            "usedStorage": sum(len(file.data) for file in commit.files.values()),
        }
        return {**known, "cardData": {"license": self.licence}} if self.licence else known
