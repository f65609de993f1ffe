"""The files of a catalogue entry, and their URLs. Pure; works on plain data.

Source: the Hub's resolve URLs; llama.cpp's llama_split_path for the file names of the
parts of a split GGUF.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from tasks.catalogue.constraints import LATEST
from tasks.catalogue.types import COMPANION_KEYS, FileSpec
from tasks.network.huggingface import HUB
from tasks.system.paths import short_name
from tasks.urls import file_of_page

# texts: every run loads this module, and few need one of them compiled
_SPLIT = r"-(\d{5})-of-(\d{5})\.gguf$"
_RESOLVE = re.escape(HUB) + r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)$"
_COMMIT = r"[0-9a-f]{40}"
_RELEASE = r"(https?)://([^/]+)/([^/]+)/([^/]+)/releases/download/([^/]+)/([^/?#]+)$"
_WEB_PAGE = r"(?:https://)?(?:www\.)?(?:huggingface\.co|hf\.co)/(.+)$"
_REFERENCE = r"hf:([^/@]+/[^/@]+)(?:@([^/]+))?/(.+)"
_QUANT = r"(?i)[.\-_]((?:UD-)?(?:I?Q\d\w*|MXFP4\w*|[BF]+(?:16|32)))$"
_PARAMS = r"(?i)(?<![\w.])(\d+(?:\.\d+)?[BM])(?![A-Za-z0-9])"
MAX_PARTS = 999
# of an engine with `archives:` and without `url:`
LLAMA_CPP_URL = (
    "https://github.com/ggml-org/llama.cpp/releases/download/"
    "{version}/llama-{version}-bin-{archive}"
)


class HubFile(NamedTuple):
    """A file in a repository of the Hub."""

    repo: str
    revision: str
    path: str

    @property
    def url(self) -> str:
        """URL of the file's bytes."""
        revision = quote(self.revision, safe="")
        return f"{HUB}/{self.repo}/resolve/{revision}/{quote(self.path)}"

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a commit, so that the bytes cannot change."""
        return re.fullmatch(_COMMIT, self.revision) is not None

    def __str__(self) -> str:
        return f"hf:{self.repo}@{self.revision}/{self.path}"


class Release(NamedTuple):
    """A file of a release on GitHub or GitHub Enterprise Server."""

    scheme: str
    host: str
    repo: str
    tag: str
    asset: str

    @property
    def api(self) -> str:
        """URL of the repository in the REST API.

        Source: docs.github.com, REST API: api.github.com; HOST/api/v3 for GitHub
        Enterprise Server.
        """
        base = f"{self.scheme}://{self.host}/api/v3"
        if self.host == "github.com":
            base = "https://api.github.com"
        return f"{base}/repos/{self.repo}"


def parse_hub_url(url: str) -> HubFile | None:
    """Parse a URL of a file on the Hub; None for any other URL."""
    match = re.match(_RESOLVE, _bare(url))
    if not match:
        return None
    return HubFile(match[1], unquote(match[2]), unquote(match[3]))


def _bare(url: str) -> str:
    """Return a URL without query and fragment."""
    return re.split("[?#]", url, maxsplit=1)[0]


def parse_hub_reference(text: str) -> HubFile | None:
    """Parse a file of the Hub as users type it; None for anything else.

    `hf:OWNER/REPO/FILE`, `hf:OWNER/REPO@REVISION/FILE`, or the URL of a web page, with
    /blob/ or ?download=true.
    """
    page = re.match(_WEB_PAGE, text.partition("?")[0])
    if page:
        url = f"{HUB}/{page[1]}"
        return parse_hub_url(file_of_page(url) or url)
    match = re.fullmatch(_REFERENCE, text)
    if not match:
        return None
    return HubFile(match[1], match[2] or "main", match[3])


def guess_model_info(filename: str) -> dict[str, str]:
    """Guess name, title, params and quant from a model's file name."""
    stem = re.sub(_SPLIT, "", filename)
    if stem.lower().endswith((".gguf", ".llamafile")):
        stem = stem.rpartition(".")[0]
    quant = re.search(_QUANT, stem)
    if quant:
        stem = stem[: quant.start()]
    name = re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-._")
    title = re.sub(r"[-_]+", " ", stem).strip()
    facts = {
        "name": short_name(name).rstrip("-._") or "model",
        "title": title or filename,
    }
    params = re.search(_PARAMS, stem)
    if params:
        facts["params"] = params[1].upper()
    if quant:
        facts["quant"] = quant[1]
    return facts


def parse_release_url(url: str) -> Release | None:
    """Parse a URL of a release's file; None for any other URL."""
    match = re.match(_RELEASE, url)
    if not match:
        return None
    scheme, host, owner, repo, tag, asset = match.groups()
    return Release(scheme, host, f"{owner}/{repo}", unquote(tag), unquote(asset))


def split_count(url: str) -> int:
    """Return the number of parts if this is the first part of a split GGUF, else 0."""
    number, count = _numbers(url)
    return count if number == 1 < count <= MAX_PARTS else 0


def split_error(url: str) -> str:
    """Return why the URL cannot be used for a split GGUF, or an empty text."""
    number, count = _numbers(url)
    if count > MAX_PARTS:
        return f"{url} is one of {count} parts: expected {MAX_PARTS} at most"
    if number in (0, 1):
        return ""
    return f"{url} is part {number} of {count}: expected the first, {part_url(url, 1)}"


def is_head(file: FileSpec) -> bool:
    """Whether a file begins with the metadata of its model."""
    return not file.role and _numbers(file.url)[0] in (0, 1)


def _numbers(url: str) -> tuple[int, int]:
    """Return a part's number and the number of parts; (0, 0) for a whole file."""
    match = re.search(_SPLIT, _bare(url))
    return (int(match[1]), int(match[2])) if match else (0, 0)


def pins_error(url: str, digests: Sequence[str | None]) -> str:
    """Return an error if some but not all parts of a file have a digest."""
    count = len(digests)
    pinned = sum(digest is not None for digest in digests)
    if pinned in (0, count):
        return ""
    only = f"only {pinned} of them would be verified"
    return f"{url} is the first of {count} files, and {only}"


def part_url(url: str, number: int) -> str:
    """Return the URL of another part; parts are counted from 1."""
    base = _bare(url)
    query = url[len(base) :]
    return re.sub(_SPLIT, lambda m: f"-{number:05}-of-{m[2]}.gguf", base) + query


def file_location(entry: Mapping[str, Any]) -> tuple[str, str]:
    """Return (source, URL) of an entry; empty if it has neither `url` nor `hf`."""
    if entry.get("hf") and entry.get("file"):
        revision = entry.get("revision") or "main"
        file = HubFile(entry["hf"], revision, entry["file"])
        return str(file), file.url
    url = str(entry.get("url") or "")
    return url, url


def companions(
    entry: Mapping[str, Any],
) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Yield (path of the key, entry) of each companion of a model.

    Its repository defaults to the model's.
    """
    for role in COMPANION_KEYS:
        value = entry.get(role)
        if isinstance(value, Mapping):
            yield (role,), _companion(entry, value)
        elif isinstance(value, (list, tuple)):
            for index, item in enumerate(value):
                if isinstance(item, Mapping):
                    yield (role, str(index)), _companion(entry, item)


def _companion(entry: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    own = dict(given)
    if not own.get("url") and not own.get("hf"):
        own["hf"] = entry.get("hf")
        own["revision"] = own.get("revision") or entry.get("revision")
    return own


def file_specs(entry: Mapping[str, Any]) -> list[FileSpec]:
    """Return all files of a valid entry: the served one, other parts, companions.

    Of an entry with variants: the files of each variant, then the companions.
    """
    files: list[FileSpec] = []
    for variant, own in variant_entries(entry).items():
        files += [file._replace(variant=variant) for file in _model_files(own)]
    for path, own in companions(entry):
        file = _file_of(own)._replace(role=path[0], scale=own.get("scale"))
        files.append(file)
    return files


def variant_entries(entry: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return each variant as an entry; an entry without variants is named ""."""
    variants: Mapping[str, Any] | None = entry.get("variants")
    if not variants:
        return {"": entry}
    return {name: variant_entry(entry, own) for name, own in variants.items()}


def variant_entry(entry: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return a variant as an entry; its repository defaults to the model's."""
    merged = dict(own)
    if not own.get("url") and not own.get("hf"):
        merged["hf"] = entry.get("hf")
        merged["revision"] = own.get("revision") or entry.get("revision")
    if entry.get("engine"):
        merged["engine"] = entry["engine"]
    return merged


def _model_files(entry: Mapping[str, Any]) -> list[FileSpec]:
    """Return the served file and its other parts."""
    file = _file_of(entry)
    count = split_count(file.url)
    if not count:
        return [file]
    no_pins: list[dict[str, Any]] = [{}] * count
    pins = entry.get("parts") or no_pins
    return [_part_of(file, n, pins[n - 1]) for n in range(1, count + 1)]


def _file_of(entry: Mapping[str, Any]) -> FileSpec:
    source, url = file_location(entry)
    mirrors = tuple(entry.get("mirrors") or ())
    return FileSpec(url, mirrors, entry.get("sha256"), entry.get("size"), source=source)


def _part_of(file: FileSpec, number: int, pins: Mapping[str, Any]) -> FileSpec:
    mirrors = tuple(part_url(mirror, number) for mirror in file.mirrors)
    return FileSpec(
        part_url(file.url, number),
        mirrors,
        pins.get("sha256"),
        pins.get("size"),
        source=part_url(file.source, number),
    )


def engine_file_spec(engine: Mapping[str, Any]) -> FileSpec | None:
    """Return the executable of an entry of `engines:`; None if it has no URL.

    For version `latest`, {version} stays in the URLs: models.lock has the version.
    """
    if not engine.get("url"):
        return None
    version = engine.get("version") or ""
    urls = [engine["url"], *(engine.get("mirrors") or ())]
    if version != LATEST:
        urls = [with_version(url, version) for url in urls]
    url, *mirrors = urls
    return FileSpec(
        url, tuple(mirrors), engine.get("sha256"), engine.get("size"), source=url
    )


def engine_files(engine: Mapping[str, Any]) -> list[FileSpec]:
    """Return the files of an entry of `engines:`: its executable, or its archives.

    The `variant` of an archive is what it is for.
    """
    archives = engine.get("archives")
    if not archives:
        return list(filter(None, [engine_file_spec(engine)]))
    found = []
    for place, name in archives.items():
        urls = [engine.get("url") or LLAMA_CPP_URL, *(engine.get("mirrors") or ())]
        url, *mirrors = [one.replace("{archive}", name) for one in urls]
        own = {"version": engine.get("version"), "url": url, "mirrors": mirrors}
        file = engine_file_spec(own)
        if file:
            found.append(file._replace(variant=place))
    return found


def with_version(url: str, version: str) -> str:
    """Return an engine's URL with its version filled in."""
    return url.replace("{version}", version)
