"""Serve a .gguf model with llama.cpp's server and llamafile's command line.

    python -m tasks.engine.embedded --server -m MODEL.gguf --host 127.0.0.1 --port 8080

The server comes from the optional package xllamacpp. The recipe starts this program as
it starts any engine: it imports nothing of `tasks` but its own modules, and no module
imports it. SIGTERM lets it finish its answers; a second signal, or SIGINT, ends it.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from tasks.engine import embedded_drain, embedded_values
from tasks.engine.embedded_flags import FLAGS, suggestion

# flags whose values are checked before the package is loaded; FLAGS has all others.
# not argparse: it also accepts --port=1, -c5 and -np4, and no value that begins with -
OPTIONS = {
    **dict.fromkeys(["-m", "--model"], "model"),
    **dict.fromkeys(["-c", "--ctx-size"], "ctx_size"),
    **dict.fromkeys(["-n", "--predict", "--n-predict"], "n_predict"),
    **dict.fromkeys(["-ngl", "--gpu-layers", "--n-gpu-layers"], "gpu_layers"),
    **dict.fromkeys(["-t", "--threads"], "threads"),
    **dict.fromkeys(["-np", "--parallel"], "parallel"),
    "--host": "host",
    "--port": "port",
    "--gpu": "gpu",
    "--api-key": "api_key",
    "--api-key-file": "api_key_file",
    "--cors-origins": "cors_origins",
    **dict.fromkeys(["-a", "--alias"], "alias"),
    **dict.fromkeys(["-mm", "--mmproj"], "mmproj"),
}
IGNORED = ["--server", "--nobrowser"]
NO_GPU = ["disable", "disabled"]
GPUS = [
    *("amd", "rocblas", "rocm", "hip", "apple", "metal", "nvidia", "cublas"),
    *("vulkan", "vk"),
]
LAYERS = {"auto": "-1", "all": "-2"}  # llama.cpp's numbers for them
GGUF_MAGIC = b"GGUF"
REMEDY = "pip install '.[embedded]'"
LARGEST = 2**31 - 1  # C int
STOPS = [signal.SIGINT, signal.SIGTERM]
if hasattr(signal, "SIGBREAK"):  # Windows
    STOPS.append(signal.SIGBREAK)


class UsageError(Exception):
    """The command line, the model or the address is invalid; the text is one line."""


@dataclass(frozen=True)
class Settings:
    """The parsed command line."""

    model: Path
    host: str
    port: int
    ctx_size: int
    n_predict: int
    gpu: str
    gpu_layers: int
    threads: int
    parallel: int
    api_keys: list[str]
    mmproj: str = ""
    flags: tuple[tuple[str, str], ...] = ()  # all others, in order
    alias: str = ""  # the model's names in the API; empty: the file's
    cors_origins: str = "localhost"


class Arguments(NamedTuple):
    """The texts of a command line."""

    values: dict[str, str]  # by name in OPTIONS; the last one wins
    flags: list[tuple[str, str]]  # others, in order


def parse(arguments: list[str]) -> Arguments:
    """Return the text of each option.

    Raises:
        UsageError: an option is unknown, or has no value.
    """
    values: dict[str, str] = {}
    flags: list[tuple[str, str]] = []
    rest = iter(arguments)
    for option in rest:
        if option in IGNORED:
            continue
        flag = None
        if option not in OPTIONS:
            flag = FLAGS.get(option)
        if option not in OPTIONS and flag is None:
            hint = suggestion(option, [*OPTIONS])
            raise UsageError(f"unknown argument: {option}{hint}")
        value = ""
        if flag is None or flag.has_value:
            value = next(rest, "")
            if not value:
                raise UsageError(f"{option} needs a value")
        if flag is None:
            values[OPTIONS[option]] = value
        else:
            flags.append((option, value))
    return Arguments(values, flags)


def number(text: str, name: str, low: int, high: int = LARGEST) -> int:
    """Parse a number.

    Raises:
        UsageError: it is not a number, or is out of range.
    """
    try:
        value = int(text)
    except ValueError:
        raise UsageError(f"{name} must be a number, not {text!r}") from None
    if not low <= value <= high:
        raise UsageError(f"{name} must be from {low} to {high}, not {value}")
    return value


def read_keys(path: str) -> str:
    """Return the keys in a file, one a line, separated by commas.

    Raises:
        UsageError: the file cannot be read.
    """
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise UsageError(f"cannot read the keys in {path}: {error}") from error
    return ",".join(lines)


def parse_settings(given: Arguments) -> Settings:
    """Return the settings of the options' texts.

    Raises:
        UsageError: a value is invalid, or the file with the keys cannot be read.
    """
    values = given.values
    if "model" not in values:
        raise UsageError("missing required -m MODEL.gguf")
    gpu = values.get("gpu", "auto").lower()
    if gpu not in ["auto", *NO_GPU, *GPUS]:
        kinds = ", ".join(GPUS)
        raise UsageError(f"--gpu must be one of auto, disable, {kinds}, not {gpu!r}")
    layers = values.get("gpu_layers", "auto")
    keys = values.get("api_key", "")
    if "api_key_file" in values:
        keys += "," + read_keys(values["api_key_file"])
    if keys and not keys.strip(","):
        raise UsageError("the API key is empty")
    return Settings(
        model=Path(values["model"]),
        host=values.get("host", "127.0.0.1"),
        port=number(values.get("port", "8080"), "--port", 0, 65535),
        ctx_size=number(values.get("ctx_size", "0"), "--ctx-size", 0),
        n_predict=number(values.get("n_predict", "-1"), "--n-predict", -1),
        gpu=gpu,
        gpu_layers=number(LAYERS.get(layers, layers), "--gpu-layers", -2),
        threads=number(values.get("threads", "-1"), "--threads", -1),
        parallel=number(values.get("parallel", "1"), "--parallel", 1),
        api_keys=[key for key in keys.split(",") if key],
        mmproj=values.get("mmproj", ""),
        alias=values.get("alias", ""),
        cors_origins=values.get("cors_origins", "localhost"),
        flags=tuple(given.flags),
    )


def check_model(model: Path) -> None:
    """Check that a file is GGUF; the engine would print a dozen lines otherwise.

    Raises:
        UsageError: it is not, or cannot be read.
    """
    try:
        with model.open("rb") as file:
            magic = file.read(len(GGUF_MAGIC))
    except OSError as error:
        raise UsageError(f"cannot read the model {model}: {error.strerror}") from error
    if magic == GGUF_MAGIC:
        return
    hint = ""
    if model.suffix == ".llamafile":
        hint = ", a llamafile is its own engine"
    raise UsageError(f"not GGUF: {model} (the embedded engine reads .gguf files{hint})")


def is_utf8(path: str) -> bool:
    """Return whether a path's bytes are UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def reachable(settings: Settings) -> Settings:
    """Return the settings with UTF-8 paths; the package accepts no others.

    Where a folder's name is not UTF-8, this changes into it and uses relative paths.

    Raises:
        UsageError: the name of a file is not UTF-8.
    """
    files = [str(settings.model)]
    if settings.mmproj:
        files.append(settings.mmproj)
    given = [embedded_values.path_in(name, text) for name, text in settings.flags]
    more = [path for path in given if path]
    paths = [os.path.abspath(file) for file in [*files, *more]]
    if is_utf8("".join(paths)):
        return settings
    os.chdir(os.path.commonpath([os.path.dirname(path) for path in paths]))
    near = [os.path.relpath(path) for path in paths]
    for path in near:
        if not is_utf8(path):
            raise UsageError(f"the name of {path!a} is not UTF-8: rename the file")
    model, *projector = near[: len(files)]
    names = dict(zip(more, near[len(files) :], strict=True))
    flags = []
    for (name, text), path in zip(settings.flags, given, strict=True):
        value = text
        if path:
            value = text.replace(path, names[path])
        flags.append((name, value))
    return replace(
        settings, model=Path(model), mmproj="".join(projector), flags=tuple(flags)
    )


def check_endpoint(host: str, port: int) -> None:
    """Check that a server can listen on the address.

    Raises:
        UsageError: the system does not permit it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, os.name == "posix")
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = error.strerror
            raise UsageError(
                f"couldn't bind to {host} port {port}: {reason}"
            ) from error


def load_package() -> Any:
    """Import the engine; only a valid command line needs it.

    Raises:
        UsageError: the package is not installed, or does not load.
    """
    try:
        import xllamacpp
    except ModuleNotFoundError:
        need = "the embedded engine needs the optional package xllamacpp"
        raise UsageError(f"{need}: {REMEDY}") from None
    except ImportError as error:
        raise UsageError(
            f"the package xllamacpp does not load here: {error}"
        ) from error
    return xllamacpp


def check_gpu(engine: Any, settings: Settings) -> None:
    """Check that a requested GPU exists; warn where layers stay on the CPU.

    The texts are llama.cpp's, whose library does not print them.

    Raises:
        UsageError: `--gpu` names a kind of GPU, and there is no GPU.
    """
    named = settings.gpu in GPUS
    all_layers = int(LAYERS["all"])
    layers = settings.gpu_layers > 0 or settings.gpu_layers == all_layers
    if not named and (not layers or settings.gpu in NO_GPU):
        return
    # GGML_BACKEND_DEVICE_TYPE_CPU, _GPU or _IGPU
    kinds = [device["type"].name for device in engine.get_device_info()]
    if any(kind.endswith("GPU") for kind in kinds):
        return
    if named:
        raise UsageError(
            f"support for --gpu {settings.gpu} was explicitly requested, but it wasn't "
            "available in this build of xllamacpp"
        )
    warning = "warning: no usable GPU found, --gpu-layers option will be ignored"
    print(warning, file=sys.stderr, flush=True)


def parameters(engine: Any, settings: Settings) -> Any:
    """Convert the settings to the engine's parameters."""
    params = engine.CommonParams()
    params.offline = True
    params.model.path = str(settings.model)
    names = list(filter(None, settings.alias.split(","))) or [settings.model.stem]
    params.model_alias = {name.encode("utf-8", "replace").decode() for name in names}
    params.cors_origins = settings.cors_origins
    params.hostnames = [settings.host]
    params.port = settings.port
    params.n_ctx = settings.ctx_size
    params.n_predict = settings.n_predict
    params.n_parallel = settings.parallel
    params.n_gpu_layers = settings.gpu_layers
    params.api_keys = settings.api_keys
    if settings.mmproj:
        params.mmproj.path = settings.mmproj
    params.cpuparams.n_threads = settings.threads
    params.cpuparams_batch.n_threads = settings.threads
    if settings.gpu in NO_GPU:
        params.n_gpu_layers = 0
        params.no_kv_offload = True
        params.no_op_offload = True
    try:
        embedded_values.apply(engine, params, settings.flags)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return params


def on_stop(action: Any) -> None:
    """Set the handler of the signals that stop the server."""
    for stop in STOPS:
        signal.signal(stop, action)


def exit_now(*_: object) -> None:
    """Exit at once, without the engine's destructor: it may block forever."""
    os._exit(0)


def serve(settings: Settings) -> None:
    """Load the model, serve it until a signal arrives, and finish its answers.

    Raises:
        UsageError: the model cannot be served.
    """
    check_model(settings.model)
    if settings.mmproj:
        check_model(Path(settings.mmproj))
    settings = reachable(settings)
    check_endpoint(settings.host, settings.port)
    engine = load_package()
    # the engine holds the interpreter while it loads, so a handler would not run
    on_stop(signal.SIG_DFL)
    try:
        check_gpu(engine, settings)
        server = engine.Server(parameters(engine, settings))
    except (AttributeError, TypeError) as error:
        # the package's names change between releases
        version = f"xllamacpp {engine.__version__}"
        text = f"{version} is not the one that is needed ({error}): {REMEDY}"
        raise UsageError(text) from error
    except (RuntimeError, MemoryError, UnicodeError) as error:
        text = f"cannot serve {settings.model}, see the lines above ({error})"
        raise UsageError(text) from error
    received = embedded_drain.catch(STOPS)
    address = server.listening_address
    print(f"server is listening on {address}", file=sys.stderr, flush=True)
    embedded_drain.wait_for(received)
    port = int(address.rpartition(":")[2])
    embedded_drain.finish_answers(settings.host, port, settings.api_keys)
    exit_now()


def main(arguments: list[str]) -> int:
    """Print the version, or serve a model; return the exit status."""
    on_stop(exit_now)
    try:
        if "--version" in arguments:
            print(f"embedded v{load_package().__version__}")
        else:
            serve(parse_settings(parse(arguments)))
    except UsageError as refusal:
        # one write, because a thread of the engine writes there, too
        sys.stderr.write(f"error: {refusal}\n")
        sys.stderr.flush()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
