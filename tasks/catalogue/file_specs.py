"""Which files an entry of the catalogue means, and where each is said to be. Pure, on plain data.

Source: the Hub's resolve URLs; llama.cpp's llama_split_path for the names of a split GGUF's parts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from tasks.catalogue.types import LATEST
from tasks.network.huggingface import HUB
from tasks.system.paths import short_name

_SPLIT = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
_RESOLVE = re.compile(re.escape(HUB) + r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)$")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_RELEASE = re.compile(r"(https?)://([^/]+)/([^/]+)/([^/]+)/releases/download/([^/]+)/([^/?#]+)$")
MOST_PARTS = 999


class Wanted(NamedTuple):
    """One file that an entry means."""

    source: str  # as the catalogue says it: a URL, a path, or hf:owner/repo@revision/file
    url: str
    mirrors: tuple[str, ...]
    sha256: str | None  # what the catalogue itself says
    size: int | None
    mmproj: bool = False


class HubFile(NamedTuple):
    """A file in a repository of the Hub."""

    repo: str
    revision: str
    path: str

    @property
    def url(self) -> str:
        """Where its bytes are."""
        return f"{HUB}/{self.repo}/resolve/{quote(self.revision, safe='')}/{quote(self.path)}"

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a commit, which always means the same bytes."""
        return _COMMIT.fullmatch(self.revision) is not None

    def __str__(self) -> str:
        return f"hf:{self.repo}@{self.revision}/{self.path}"


class Release(NamedTuple):
    """A file of a release on GitHub, or on an own GitHub Enterprise."""

    scheme: str
    host: str
    repo: str
    tag: str
    asset: str

    @property
    def api(self) -> str:
        """The repository's address for programs.

        Source: docs.github.com, REST API: api.github.com, and HOST/api/v3 for GitHub Enterprise Server.
        """
        base = (
            "https://api.github.com" if self.host == "github.com" else f"{self.scheme}://{self.host}/api/v3"
        )
        return f"{base}/repos/{self.repo}"


def hub_file(url: str) -> HubFile | None:
    """The file of the Hub that a URL means; None for any other URL."""
    found = _RESOLVE.match(_bare(url))
    return HubFile(found[1], unquote(found[2]), unquote(found[3])) if found else None


def _bare(url: str) -> str:
    """A URL without query and fragment."""
    return re.split("[?#]", url, maxsplit=1)[0]


def typed(text: str) -> HubFile | None:
    """A file of the Hub as people write it; None for anything else.

    `hf:OWNER/REPO/FILE`, `hf:OWNER/REPO@REVISION/FILE`, and what a browser shows: /blob/, ?download=true.
    """
    page = re.match(r"(?:https://)?(?:www\.)?(?:huggingface\.co|hf\.co)/(.+)$", text.partition("?")[0])
    if page:
        return hub_file(f"{HUB}/{page[1].replace('/blob/', '/resolve/', 1)}")
    found = re.fullmatch(r"hf:([^/@]+/[^/@]+)(?:@([^/]+))?/(.+)", text)
    return HubFile(found[1], found[2] or "main", found[3]) if found else None


def about(filename: str) -> dict[str, str]:
    """What a model's file name says by the field's habit: name, title, params, quant."""
    stem = _SPLIT.sub("", filename)
    stem = stem.rpartition(".")[0] if stem.endswith((".gguf", ".llamafile")) else stem
    quant = re.search(r"[.\-_]((?:UD-)?(?:I?Q\d\w*|MXFP4\w*|[BF]+(?:16|32)))$", stem, re.IGNORECASE)
    plain = stem[: quant.start()] if quant else stem
    params = re.search(r"(?<![\w.])(\d+(?:\.\d+)?[BM])(?![A-Za-z0-9])", plain, re.IGNORECASE)
    name = short_name(re.sub(r"[^a-z0-9._-]+", "-", plain.lower()).strip("-._")).rstrip("-._")
    facts = {"name": name or "model", "title": re.sub(r"[-_]+", " ", plain).strip() or filename}
    facts |= {"params": params[1].upper()} if params else {}
    return facts | ({"quant": quant[1]} if quant else {})


def release(url: str) -> Release | None:
    """The release's file that a URL means; None for any other URL."""
    found = _RELEASE.match(url)
    return (
        Release(found[1], found[2], f"{found[3]}/{found[4]}", unquote(found[5]), unquote(found[6]))
        if found
        else None
    )


def split_count(url: str) -> int:
    """The number of parts of a split GGUF whose first part this is; 0 for any other file."""
    number, count = _numbers(url)
    return count if number == 1 < count <= MOST_PARTS else 0


def split_problem(url: str) -> str:
    """Why the name of a split GGUF's part will not do, or nothing."""
    number, count = _numbers(url)
    if count > MOST_PARTS:
        return f"{url} is one of {count} parts: expected {MOST_PARTS} at most"
    if number in (0, 1):
        return ""
    return f"{url} is part {number} of {count}: expected the first, {part(url, 1)}"


def _numbers(url: str) -> tuple[int, int]:
    """Which of how many parts a file is; (0, 0) for a file that is whole."""
    found = _SPLIT.search(_bare(url))
    return (int(found[1]), int(found[2])) if found else (0, 0)


def pins_problem(url: str, digests: Sequence[str | None]) -> str:
    """What is wrong with the digests of all parts of a file, or nothing: they are pinned all or none."""
    pinned = sum(digest is not None for digest in digests)
    if pinned in (0, len(digests)):
        return ""
    return f"{url} is the first of {len(digests)} files, and only {pinned} of them would be verified"


def part(url: str, number: int) -> str:
    """The URL of another part, counted from 1."""
    base = _bare(url)
    return _SPLIT.sub(lambda m: f"-{number:05}-of-{m[2]}.gguf", base) + url[len(base) :]


def located(entry: Mapping[str, Any]) -> tuple[str, str]:
    """(source, URL) of an entry with `url` or with `hf` and `file`; empty where it has neither."""
    if entry.get("hf") and entry.get("file"):
        file = HubFile(entry["hf"], entry.get("revision") or "main", entry["file"])
        return str(file), file.url
    return (str(entry.get("url") or ""),) * 2


def projector(entry: Mapping[str, Any]) -> dict[str, Any]:
    """`mmproj:` as a file of its own: what it does not say of the repository is its model's."""
    own = dict(entry["mmproj"])
    if not own.get("url") and not own.get("hf"):
        own |= {"hf": entry.get("hf"), "revision": own.get("revision") or entry.get("revision")}
    return own


def wanted(entry: Mapping[str, Any]) -> list[Wanted]:
    """Every file of a valid entry of models.yaml: the one that is served, its other parts, its projector."""
    source, url = located(entry)
    mirrors = tuple(entry.get("mirrors") or ())
    count, pins = split_count(url), entry.get("parts") or ()
    if not count:
        files = [Wanted(source, url, mirrors, entry.get("sha256"), entry.get("size"))]
    else:
        files = [
            Wanted(
                part(source, n), part(url, n), tuple(part(m, n) for m in mirrors),
                pins[n - 1].get("sha256") if pins else None, pins[n - 1].get("size") if pins else None,
            )
            for n in range(1, count + 1)
        ]  # fmt: skip
    if entry.get("mmproj"):
        own = projector(entry)
        source, url = located(own)
        mirrors = tuple(own.get("mirrors") or ())
        files.append(Wanted(source, url, mirrors, own.get("sha256"), own.get("size"), True))
    return files


def wanted_engine(engine: Mapping[str, Any]) -> Wanted | None:
    """The program of an entry of `engines:`; None for one that is a package.

    Of `latest`, {version} stays in its URLs: which one that is, the lock file says.
    """
    if not engine.get("url"):
        return None
    version, places = engine.get("version") or "", (engine["url"], *(engine.get("mirrors") or ()))
    url, *mirrors = places if version == LATEST else (versioned(at, version) for at in places)
    return Wanted(url, url, tuple(mirrors), engine.get("sha256"), engine.get("size"))


def versioned(url: str, version: str) -> str:
    """An engine's URL of one version."""
    return url.replace("{version}", version)
