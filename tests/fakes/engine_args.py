"""The fake engine's command line, and the models it agrees to open. Standard library only."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a start is to be quick: it imports few modules
    from collections.abc import Mapping
    from zipimport import zipimporter

GPUS = ["auto", "disable", "d", "amd", "rocblas", "rocm", "hip"]
GPUS += ["apple", "metal", "nvidia", "cublas"]

ALIASES = {
    "-c": "--ctx-size",
    "-n": "--n-predict",
    "-ngl": "--gpu-layers",
    "--n-gpu-layers": "--gpu-layers",
    "-np": "--parallel",
    "-t": "--threads",
    "-m": "--model",
    "-a": "--alias",
}
NUMBERS = {
    "--reasoning-budget",
    "--top-k",
    "--seed",
    "--sleep-idle-seconds",
    "--port",
    "--ctx-size",
    "--n-predict",
    "--gpu-layers",
    "--parallel",
    "--threads",
}
TEXTS = {"--host", "--gpu", "--api-key", "--api-key-file", "--model", "--mmproj", "--fancy-test-flag"}
TEXTS |= {
    "--model-draft",
    "--chat-template-file",
    "--lora",
    "--lora-scaled",
    "--temp",
    "--pooling",
    "--alias",
}
SWITCHES = {"--jinja", "--metrics", "--embedding", "--reranking", "--offline"}


class Box:
    """The members of the zip that the engine was started from (`zipfile` takes longer to import)."""

    def __init__(self, loader: zipimporter) -> None:
        self._loader = loader

    def read(self, name: str) -> bytes:
        return self._loader.get_data(os.path.join(self._loader.archive, name))

    def __contains__(self, name: str) -> bool:
        try:
            self.read(name)
        except OSError:
            return False
        return True


class Refused(Exception):
    """The engine's own error: the text goes to stderr, the status is 1."""


def numbers(version: str) -> tuple[int, ...]:
    """Return "0.8.6" as (0, 8, 6)."""
    return tuple(int(part) for part in version.split("."))


def is_modern(version: str) -> bool:
    """Say whether this version is built on upstream's llama-server."""
    return numbers(version) >= (0, 10)


def is_server(version: str, user: list[str], words: list[str]) -> bool:
    """Say whether it serves. Source: main.cpp:159-180 (0.9.3), which skips `.args`"""
    if numbers(version) < (0, 8, 14):
        return True
    return "--server" in (user if (0, 9) <= numbers(version) < (0, 10) else words)


def with_stored(stored: list[str], user: list[str]) -> list[str]:
    """Merge `.args` and the command line. Source: cosmopolitan tool/args/args.c"""
    if "..." not in stored:
        return [*stored, *user]
    at = stored.index("...")
    return [*stored[:at], *user, *stored[at + 1 :]]


def parse(argv: list[str], version: str) -> dict[str, str]:
    """Return flag -> value (the last wins) or raise Refused."""
    switches = {"--server", *(SWITCHES if is_modern(version) else ["--nobrowser", "--log-disable"])}
    found: dict[str, str] = {}
    words = iter(argv)
    for word in words:
        flag = ALIASES.get(word, word)
        if flag in switches:
            found[flag] = ""
        elif flag in NUMBERS | TEXTS:
            found[flag] = checked(word, flag, next(words, None), version)
        else:
            raise Refused(f"error: unknown argument: {word}")
    return found


def checked(word: str, flag: str, value: str | None, version: str) -> str:
    """Return the value of a flag if it is one."""
    names = {"auto", "all"} if flag == "--gpu-layers" and is_modern(version) else set()
    number = value is not None and value.lstrip("-").isdigit()
    if value is None or (flag in NUMBERS and not number and value not in names):
        raise Refused(f"error: invalid parameter for argument: {word}")
    gpus = [*GPUS, "vulkan", "vk"] if is_modern(version) else GPUS
    if flag == "--gpu" and value.lower() not in gpus:
        raise Refused(f"error: invalid --gpu flag value: {value}")
    return value


def api_keys(flags: dict[str, str], version: str, environment: Mapping[str, str]) -> list[str]:
    """Return every key that opens the API; all versions know the file (0.8.6 server.cpp:2241)."""
    keys = [environment.get("LLAMA_API_KEY", "") if is_modern(version) else "", flags.get("--api-key", "")]
    name = flags.get("--api-key-file")
    try:
        keys += lines_of(name) if name is not None else []
    except OSError as error:
        what = f"error: failed to open file '{name}'\nerror: invalid parameter for argument: --api-key-file"
        raise Refused(what) from error
    return [key for key in keys if key]


def lines_of(name: str) -> list[str]:
    with open(name, encoding="utf-8") as file:
        return file.read().splitlines()


def stored_args(box: Box | None) -> list[str]:
    """Return the lines of `.args`."""
    if box is None or ".args" not in box:
        return []
    return box.read(".args").decode().splitlines()


def open_model(name: str, box: Box | None) -> str:
    """Return the model's file name or raise Refused. Source: llamafile.c:264-304 (0.9.3)"""
    outer, at, inner = name.partition("@")  # at the first @, also of a directory
    if at:
        return stored_gguf(outer, inner)
    if not os.path.exists(name):
        if box is None or name not in box:
            raise unloadable(name, "No such file or directory")
        return name
    with open(name, "rb") as file:
        magic = file.read(4)
    return os.path.basename(name) if magic == b"GGUF" else stored_gguf(name, None)


def stored_gguf(outer: str, inner: str | None) -> str:
    """Return the one GGUF member of a zip, which must be stored uncompressed."""
    import zipfile

    if not zipfile.is_zipfile(outer):
        raise unloadable(outer, "not a gguf or zip file")
    with zipfile.ZipFile(outer) as box:
        members = [i for i in box.infolist() if i.filename.endswith(".gguf")]
    if inner is not None:
        members = [i for i in members if i.filename == inner]
    if len(members) > 1:
        raise unloadable(outer, "multiple .gguf files found")
    if not members or members[0].compress_type != zipfile.ZIP_STORED:
        raise unloadable(outer, "no stored .gguf file found")
    return members[0].filename


def unloadable(name: str, why: str) -> Refused:
    """Return the error for a model that cannot be loaded."""
    return Refused(
        f"{name}: error: {why}\nllama_load_model_from_file: failed to load model\nerror: unable to load model"
    )


def model_name(flags: dict[str, str], version: str, box: Box | None) -> str:
    """Return the name of the model to serve."""
    if "--model" not in flags and is_modern(version):
        raise Refused("error: missing required -m MODEL.gguf")
    return open_model(flags.get("--model", "models/7B/ggml-model-f16.gguf"), box)
