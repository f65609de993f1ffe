"""The kinds of cases, each made from a source of randomness and a world."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Mapping
from random import Random
from typing import Any, NamedTuple

from tests.fakes.hostile import ROWS
from tests.fuzz import mutate
from tests.fuzz.case import Case
from tests.fuzz.world import World
from tests.support.command_lines import VERBS

Words = tuple[str, ...]

_LOOKING: tuple[Words, ...] = (
    ("catalogue",), ("catalogue", "--json"), ("plan",), ("plan", "--model", "half"),
    ("list", "--all"), ("audit",), ("audit", "--json"), ("bom",), ("bom", "--json"),
    ("cache-key",), ("prune", "--dry-run"), ("prune",), ("prune", "--older-than", "1d"),
    ("status",), ("status", "--json"), ("lock", "--check"),
)  # fmt: skip
_SERVERS: tuple[Words, ...] = (
    ("status",), ("status", "--json"), ("stop", "--all"), ("stop", "--model", "tool"),
    ("logs",), ("logs", "--model", "tool", "-n", "5"),
    ("chat", "--model", "tool", "Hello"), ("prune",), ("catalogue",),
)  # fmt: skip
_BRINGING: tuple[Words, ...] = (
    ("download:tool",), ("download:plain",), ("download:split",), ("download:own",),
    ("exe",), ("chmod:tool",), ("verify:tool",), ("verify:plain", "--frozen"),
    ("download", "--model", "tool"),
)  # fmt: skip


# ---- models.yaml and models.lock

_YAML = (
    "x: &a [1]\ny: *a\n", "<<: {a: 1}\n", "? [a, b]\n: c\n", "%YAML 9.9\n---\n",
    "---\n", "...\n", "\t", "- x\n", "!!python/object/apply:os.system [true]\n",
    "!!binary aGVsbG8=\n", "!!set {a, b}\n", "!x y\n", "? \n", "&\n",
    "a: !!timestamp 2026-13-45\n", "b: 12:34:56\n", "c: .inf\n", "d: 0o777\n",
    "e: 1_0\n", "*nobody\n", "|\n x\n", "{", "[", "'", '"', "#", ": ", "@", "`", "\x00",
    "\x85", "\u2028", "\ud7ff", "\ufeff", "\x1b[2J", "=: =\n", "a: &a [*a]\n",
    "m: &m {m: *m}\n", "2026-11-27: x\n", "null: x\n", "1: x\n", "1.5: x\n",
    "true: x\n",
)  # fmt: skip


def catalogue(rng: Random, world: World) -> Case:
    """A damaged models.yaml or models.lock, or both."""
    files: dict[str, bytes] = {}
    if rng.random() < 0.7:
        files["project/models.yaml"] = _yaml(rng, world.catalogue())
    if rng.random() < 0.5 or not files:
        lock = world.template / "project/models.lock"
        files["project/models.lock"] = _lock(rng, lock.read_bytes())
    locking = (("lock",), ("lock", "--upgrade"), ("exe", "--frozen"))
    verbs = (*_LOOKING, *_BRINGING, *locking)
    return Case((rng.choice(_LOOKING[:3]), rng.choice(verbs)), _placed(world, files))


def _yaml(rng: Random, plain: Any) -> bytes:
    how = rng.random()
    if how < 0.7:
        return mutate.dumps(mutate.plain(rng, plain))
    text = mutate.dumps(plain)
    if how < 0.75:
        return text[:-2] + b',\n"defaults": ' + _aliases(rng) + b"}\n"
    if how < 0.9:
        lines = text.decode().splitlines(keepends=True)
        lines.insert(rng.randint(0, len(lines)), rng.choice(_YAML))
        return "".join(lines).encode("utf-8", "surrogatepass")
    return mutate.raw(rng, text)


def _aliases(rng: Random) -> bytes:
    """YAML that grows: each anchor has the one before it several times."""
    width, depth = rng.choice(((2, 10), (10, 9), (3000, 1), (2, 60)))
    rows = ["&a0 [x, x]"]
    for level in range(depth):
        rows.append(f"&a{level + 1} [{', '.join([f'*a{level}'] * width)}]")
    return f"{{args: [{', '.join(rows)}]}}".encode()


def _lock(rng: Random, text: bytes) -> bytes:
    import yaml

    if rng.random() < 0.3:
        return mutate.raw(rng, text)
    return mutate.dumps(mutate.plain(rng, yaml.safe_load(text)))


# ---- what lies in the cache


_SMALL = (".json", ".live", ".log", ".partial", ".lock")


def cache(rng: Random, world: World) -> Case:
    """One to three damaged files of a warm cache."""
    every = [path for path in world.template.glob("cache/**/*") if path.is_file()]
    every.sort()
    small = [path for path in every if path.suffix in _SMALL]
    files = {}
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        path = rng.choice(small if rng.random() < 0.85 else every)
        name = str(path.relative_to(world.template))
        files[name] = mutate.content(rng, path.read_bytes())
    first, then = (*_LOOKING, *_SERVERS), (*_BRINGING, *_LOOKING)
    runs = (rng.choice(first), rng.choice(then))
    return Case(runs, _placed(world, files), reread=True)


def journal(rng: Random, world: World) -> Case:
    """A damaged journal: the download goes on or begins anew."""
    folder = world.target("half.llamafile").parent
    paths = sorted((world.template / folder.relative_to(world.path)).iterdir())
    files: dict[str, Any] = {}
    for _ in range(rng.choice((1, 1, 2))):
        path = rng.choice(paths)
        name = str(path.relative_to(world.template))
        damage = _live if path.suffix == ".live" else mutate.content
        files[name] = damage(rng, path.read_bytes())
    return Case((("download:half",),), _placed(world, files), {"LLAMAFILE_OFFLINE": ""})


def _live(rng: Random, data: bytes) -> bytes:
    """A note whose checksum is right."""
    import zlib

    if rng.random() < 0.2:
        return mutate.raw(rng, data)
    value = json.loads(data.partition(b"\n")[0].partition(b" ")[2])
    text = mutate.filled(mutate.dumps(mutate.plain(rng, value))).replace(b"\n", b"")
    return b"%08x %s\n" % (zlib.crc32(text), text)


# ---- command lines and variables

_WORDS = (
    "", " ", "=", "a=b", "--", "-", ":", "serve:", ":tool", "tool:", "tool", "TOOL",
    "nobody", "t", "-1", "0", "\udcff", "\xfc", "\u202e", "a\nb", "\x1b[2J",
    "::error::x", "x" * 5000, "--help", "-h", "--version", "*", "~", "/dev/null",
    "/dev/zero", "..", "models.yaml", "files", "hf:a/b/c.gguf",
    "http://127.0.0.1:1/x.gguf", "30d", "file:///dev/null", "https://[",
    "http://user:pw@host/x.gguf", "99999999999999999999", "1e9", "\xb2", "\u0663",
    "a" * 64,
)  # fmt: skip
_DOIT: tuple[Words, ...] = (
    ("list",), ("list", "--all"), ("list", "--deps"), ("list", "--status"), ("info",),
    ("help",), ("help", "task"), ("forget",), ("clean",), ("clean", "-n"), ("ignore",),
    ("reset-dep",), ("dumpdb",), ("tabcompletion",), ("run",), ("-v", "0"),
    ("-v", "2", "-s"), ("-k",), ("-a",), ("tabcompletion", "--shell", "zsh"), ("-z",),
)  # fmt: skip


def command(rng: Random, world: World) -> Case:
    """Words that may fit each other; without models, so that no server starts."""
    words: list[str] = []
    if rng.random() < 0.2:
        words += rng.choice(_DOIT)
    for _ in range(rng.choice((1, 1, 1, 2))):
        words += _one_verb(rng)
    if rng.random() < 0.2:
        words.insert(rng.randint(0, len(words)), rng.choice(_WORDS))
    if rng.random() < 0.1:
        words += ["--", *rng.choices(_WORDS, k=rng.randint(0, 2))]
    return Case((tuple(words),), warm=False)


def _one_verb(rng: Random) -> list[str]:
    verb = rng.choice(list(VERBS))
    while verb == "doctor" and rng.random() < 0.7:  # slow
        verb = rng.choice(list(VERBS))
    colon = rng.random() < 0.3
    options = VERBS[verb].model_params if colon else VERBS[verb].params
    name = rng.choice(("tool", "t", "plain", "half", "nobody", rng.choice(_WORDS)))
    words = [f"{verb}:{name}" if colon else verb]
    for option in rng.sample(options, min(len(options), rng.choice((0, 1, 1, 2, 3)))):
        if option["type"] is bool:
            words.append(f"--{option['long']}")
            continue
        value = rng.choice(("tool", "plain", "8080", "0", "1d", rng.choice(_WORDS)))
        flag = f"--{option['long']}"
        words += [f"{flag}={value}"] if rng.random() < 0.5 else [flag, value]
    if VERBS[verb].pos_arg and rng.random() < 0.5:
        words += rng.choices(_WORDS, k=rng.randint(1, 3))
    return words


_VALUES = (
    "", " ", "0", "1", "true", "TRUE", "no", "x", "json", "\xb2", "-1", "9" * 5000,
    "a\nb", "\x1b[2J", "::error::x", "\udcff\udcfe", "\xfc", "%s", "/dev/null",
    "/dev/null/x", "/dev/full", "/proc/self", "@WORLD@/home/x", ".", "x/y",
    "http://user:pw@", "http://user:pw@127.0.0.1:1", "http://[", "http://127.0.0.1:1",
    "127.0.0.1:1", "://", "*", "https://127.0.0.1:1", "socks5://127.0.0.1:1", "ftp://x",
    "http://a:b", "@WORLD@/project/models.yaml", "a" * 300,
)  # fmt: skip
_VARIABLES = (
    "LLAMAFILE_CACHE", "LLAMAFILE_CATALOGUE", "LLAMAFILE_OFFLINE", "HF_HUB_OFFLINE",
    "LLAMA_API_KEY", "LLAMAFILE_LOG", "HF_ENDPOINT", "HF_TOKEN", "HF_HOME",
    "HF_HUB_CACHE", "OLLAMA_MODELS", "HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY",
    "NO_PROXY", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CI", "GITHUB_ACTIONS",
    "GITHUB_OUTPUT", "GITHUB_ENV", "GITLAB_CI", "NO_COLOR", "COLUMNS", "LINES", "TERM",
    "TMPDIR", "HOME", "XDG_CACHE_HOME", "PATH", "SOURCE_DATE_EPOCH",
    "SHELL", "LLAMAFILE_RECIPE_RUN",
)  # fmt: skip


_ONLINE: tuple[Words, ...] = (
    ("download:half",), ("verify:own",), ("lock",), ("doctor",), ("doctor", "--json"),
    ("add", "http://127.0.0.1:@PORT@/half.llamafile", "--download"),
)  # fmt: skip


def environment(rng: Random, world: World) -> Case:
    """One to four variables with values that are none."""
    names = rng.sample(_VARIABLES, rng.choice((1, 1, 2, 3, 4)))
    env = {name: rng.choice(_VALUES) for name in names}
    runs = (*_LOOKING, *_SERVERS, *_BRINGING, *_ONLINE)
    if rng.random() < 0.3:
        env["LLAMAFILE_OFFLINE"] = ""  # the network as far as this machine
        runs = _ONLINE
    if not env.get("LLAMAFILE_CACHE", "x"):
        env["XDG_CACHE_HOME"] = "@WORLD@/home/x"  # not the cache of who runs this
    return Case((rng.choice(runs),), env=env)


# ---- answers of servers

_ASKING: tuple[Words, ...] = (
    ("add", "hf:o/r/m.gguf"), ("add", "http://127.0.0.1:@HOSTILE@/m.gguf"),
    ("add", "http://127.0.0.1:@HOSTILE@/o/r/releases/download/1/m.gguf"),
    ("doctor", "--json"), ("download", "--llamafile-url", "http://127.0.0.1:@HOSTILE@/m.gguf"),
)  # fmt: skip


def answer(rng: Random, world: World) -> Case:
    """An answer of the table of hostile ones, damaged or with the body of another one."""
    rows = [row.answer for row in ROWS if not (row.then or row.hold)]
    head, _, body = rng.choice(rows).partition(b"\r\n\r\n")
    if rng.random() < 0.5:
        body = rng.choice(rows).partition(b"\r\n\r\n")[2]
    data = head + b"\r\n\r\n" + body
    if rng.random() < 0.7:
        data = mutate.raw(rng, head) + b"\r\n\r\n" + body
    env = {"HF_ENDPOINT": "http://127.0.0.1:@HOSTILE@", "LLAMAFILE_OFFLINE": ""}
    return Case((rng.choice(_ASKING),), env=env, warm=False, answer=data)


# ---- GGUF

_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_KEYS = (
    "block_count", "context_length", "embedding_length", "attention.head_count",
    "attention.head_count_kv",
)  # fmt: skip
_COUNTS = (0, 1, 2, 7, 32, 2**16, 2**31, 2**32 - 1, 2**63, 2**64 - 1)


def gguf(rng: Random, world: World) -> Case:
    """The head of a GGUF that is nearly right, or damaged."""
    pairs = [_pair(rng, "general.architecture", "llama")]
    for key in _KEYS:
        if rng.random() < 0.8:
            pairs.append(_pair(rng, f"llama.{key}", rng.choice(_COUNTS)))
    for _ in range(rng.randint(0, 3)):
        pairs.append(_pair(rng, rng.choice(mutate.TEXTS), rng.choice(mutate.VALUES)))
    rng.shuffle(pairs)
    version, count = rng.choice((2, 3, 3, 3, 1, 4, 2**24)), len(pairs)
    count = count if rng.random() < 0.8 else rng.choice(_COUNTS)
    head = struct.pack("<4sIQQ", b"GGUF", version, rng.choice(_COUNTS), count)
    data = head + b"".join(pairs)
    if rng.random() < 0.4:
        data = mutate.raw(rng, data)
    path = rng.choice(("files/odd.gguf", "files/odd.gguf", "files/odd.llamafile"))
    return Case((("plan", "--llamafile", path),), {f"project/{path}": data}, warm=False)


def _pair(rng: Random, key: str, value: Any) -> bytes:
    name = key.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(name)) + name + _value(rng, value)


def _value(rng: Random, value: Any) -> bytes:
    if isinstance(value, str):
        data = value.encode("utf-8", "surrogatepass")
        length = len(data) if rng.random() < 0.9 else rng.choice(_COUNTS)
        return struct.pack("<IQ", 8, length) + data
    if rng.random() < 0.2:
        kind, count = rng.choice((*_SIZES, 8, 9, 13)), rng.choice((*_COUNTS, 3, 5000))
        return struct.pack("<IIQ", 9, kind, count) + rng.randbytes(rng.randint(0, 100))
    kind = rng.choice((4, 4, 4, 10, *_SIZES, 9, 13))
    number = value % 2**64 if isinstance(value, int) else 3
    data = number.to_bytes(8, "little")[: _SIZES.get(kind, 4)]
    return struct.pack("<I", kind) + data


_DIGEST = re.compile(r"(?<=/)(url-)?[0-9a-f]{16,64}(?=[/.])")


def _placed(world: World, files: Mapping[str, Any]) -> dict[str, Any]:
    """The same for any world: without digests in the paths, or the port."""
    placed = {}
    for name, what in files.items():
        if isinstance(what, bytes):
            what = what.replace(b":%d/" % world.server.port, b":@PORT@/")
        placed[_DIGEST.sub("*", name)] = what
    return placed


class Kind(NamedTuple):
    """What makes cases, and how many of them a short and a long run have."""

    make: Callable[[Random, World], Case]
    short: int
    long: int


KINDS = {
    "catalogue": Kind(catalogue, 8, 2000),
    "cache": Kind(cache, 7, 1500),
    "journal": Kind(journal, 5, 1000),
    "command": Kind(command, 5, 600),
    "environment": Kind(environment, 6, 350),
    "answer": Kind(answer, 4, 100),
    "gguf": Kind(gguf, 6, 3000),
}


def make(kind: str, seed: int, number: int, world: World) -> Case:
    """The case of a kind with that number: always the same one."""
    return KINDS[kind].make(Random(f"{seed}:{kind}:{number}"), world)
