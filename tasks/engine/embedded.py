"""Serve a .gguf model with llama.cpp's own server, behind llamafile's command line.

    python -m tasks.engine.embedded --server -m MODEL.gguf --host 127.0.0.1 --port 8080

The server comes from the optional package xllamacpp. This is a program of its own, started by the
recipe as any engine is: it may import nothing else of `tasks`, and nothing of it may be imported.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

FLAGS = {
    **dict.fromkeys(["-m", "--model"], "model"),
    **dict.fromkeys(["-c", "--ctx-size"], "ctx_size"),
    **dict.fromkeys(["-n", "--n-predict"], "n_predict"),
    **dict.fromkeys(["-ngl", "--gpu-layers", "--n-gpu-layers"], "gpu_layers"),
    **dict.fromkeys(["-t", "--threads"], "threads"),
    **dict.fromkeys(["-np", "--parallel"], "parallel"),
    "--host": "host",
    "--port": "port",
    "--gpu": "gpu",
    "--api-key": "api_key",
    **dict.fromkeys(["-mm", "--mmproj"], "mmproj"),
}
NOTHING_TO_DO = ["--server", "--nobrowser"]
NO_GPU = ["disable", "disabled"]
GPUS = ["amd", "rocblas", "rocm", "hip", "apple", "metal", "nvidia", "cublas", "vulkan", "vk"]
LAYERS = {"auto": "-1", "all": "-2"}  # as llama.cpp numbers them
GGUF_MAGIC = b"GGUF"
REMEDY = "pip install '.[embedded]'"
LARGEST = 2**31 - 1  # of a C int
STOPS = [signal.SIGINT, signal.SIGTERM, *filter(None, [getattr(signal, "SIGBREAK", None)])]


class Refused(Exception):
    """What the user asked for cannot be; the text is one line and says why."""


@dataclass(frozen=True)
class Settings:
    """The command line, understood."""

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


def parse(arguments: list[str]) -> dict[str, str]:
    """Return each option's text by name; exact spellings only, the last one wins."""
    values: dict[str, str] = {}
    rest = iter(arguments)
    for argument in rest:
        if argument in NOTHING_TO_DO:
            continue
        if argument not in FLAGS:
            raise Refused(f"unknown argument: {argument}")
        value = next(rest, None)
        if not value:
            raise Refused(f"{argument} needs a value")
        values[FLAGS[argument]] = value
    return values


def number(text: str, name: str, low: int, high: int = LARGEST) -> int:
    """Return the number, within its limits."""
    try:
        value = int(text)
    except ValueError:
        raise Refused(f"{name} must be a number, not {text!r}") from None
    if not low <= value <= high:
        raise Refused(f"{name} must be from {low} to {high}, not {value}")
    return value


def understand(values: Mapping[str, str], environment: Mapping[str, str]) -> Settings:
    """Return the settings that the texts and $LLAMA_API_KEY mean."""
    if "model" not in values:
        raise Refused("missing required -m MODEL.gguf")
    gpu = values.get("gpu", "auto").lower()
    if gpu not in ["auto", *NO_GPU, *GPUS]:
        raise Refused(f"--gpu must be one of auto, disable, {', '.join(GPUS)}, not {gpu!r}")
    layers = values.get("gpu_layers", "auto")
    keys = values.get("api_key", environment.get("LLAMA_API_KEY", ""))
    if keys and not keys.strip(","):
        raise Refused("the API key is empty")
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
    )


def check_model(model: Path) -> None:
    """Refuse what the engine would refuse in a dozen lines of its own."""
    try:
        with model.open("rb") as file:
            magic = file.read(len(GGUF_MAGIC))
    except OSError as error:
        raise Refused(f"cannot read the model {model}: {error.strerror}") from error
    if magic != GGUF_MAGIC:
        hint = ", a llamafile is its own engine" if model.suffix == ".llamafile" else ""
        raise Refused(f"not GGUF: {model} (the embedded engine reads .gguf files{hint})")


def is_utf8(path: str) -> bool:
    """Tell whether the bytes of a path are UTF-8."""
    try:
        return bool(path.encode())
    except UnicodeEncodeError:
        return False


def reachable(settings: Settings) -> Settings:
    """Return the settings with paths that the package takes: those have to be UTF-8.

    Where a folder's name is not, its files are named from inside it.
    """
    paths = [os.path.abspath(path) for path in (settings.model, settings.mmproj) if str(path)]
    if is_utf8("".join(paths)):
        return settings
    folder = os.path.commonpath([os.path.dirname(path) for path in paths])
    os.chdir(folder)
    model, *projector = (os.path.relpath(path) for path in paths)
    if not is_utf8(model + "".join(projector)):
        raise Refused(f"the name of {model!a} is not UTF-8: rename the file")
    return replace(settings, model=Path(model), mmproj="".join(projector))


def check_endpoint(host: str, port: int) -> None:
    """Refuse an address that cannot be listened on."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, os.name == "posix")
        try:
            probe.bind((host, port))
        except OSError as error:
            raise Refused(f"couldn't bind to {host} port {port}: {error.strerror}") from error


def load_package() -> Any:
    """Import the engine: here, for nothing before this needs it."""
    try:
        import xllamacpp
    except ModuleNotFoundError:
        need = "the embedded engine needs the optional package xllamacpp"
        raise Refused(f"{need}: {REMEDY}") from None
    except ImportError as error:
        raise Refused(f"the package xllamacpp does not load here: {error}") from error
    return xllamacpp


def check_gpu(engine: Any, settings: Settings) -> None:
    """Refuse a GPU that was asked for by name, and say that layers stay here, where there is no GPU.

    llama.cpp's own program says so too; as a library it says nothing.
    """
    named = settings.gpu in GPUS
    layers = settings.gpu not in NO_GPU and (
        settings.gpu_layers > 0 or settings.gpu_layers == int(LAYERS["all"])
    )
    if not (named or layers):
        return
    kinds = [device["type"].name for device in engine.get_device_info()]  # …_CPU, _GPU, _IGPU
    if any(kind.endswith("GPU") for kind in kinds):
        return
    if named:
        absent = "was explicitly requested, but it wasn't available"
        raise Refused(f"support for --gpu {settings.gpu} {absent} in this build of xllamacpp")
    warning = "warning: no usable GPU found, --gpu-layers option will be ignored"
    print(warning, file=sys.stderr, flush=True)


def parameters(engine: Any, settings: Settings) -> Any:
    """Return the settings in the engine's own words."""
    params = engine.CommonParams()
    params.offline = True
    params.model.path = str(settings.model)
    params.model_alias = {settings.model.stem.encode("utf-8", "replace").decode()}
    params.hostnames = [settings.host]
    params.port = settings.port
    params.n_ctx = settings.ctx_size
    params.n_predict = settings.n_predict
    params.n_parallel = settings.parallel
    params.n_gpu_layers = settings.gpu_layers
    params.api_keys = settings.api_keys
    if settings.mmproj:
        params.mmproj.path = settings.mmproj
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings.threads
    if settings.gpu in NO_GPU:
        params.n_gpu_layers = 0
        params.no_kv_offload = params.no_op_offload = True
    return params


def on_stop(action: Any) -> None:
    """Set what the signals to stop do."""
    for stop in STOPS:
        signal.signal(stop, action)


def leave(*_: object) -> None:
    """End at once. Not through the engine's destructor: it may wait for ever."""
    os._exit(0)


def serve(settings: Settings) -> None:
    """Load the model and serve it until a signal comes."""
    for path in (settings.model, *([Path(settings.mmproj)] if settings.mmproj else [])):
        check_model(path)
    settings = reachable(settings)
    check_endpoint(settings.host, settings.port)
    engine = load_package()
    on_stop(signal.SIG_DFL)  # while it loads it holds the interpreter, no handler would run
    try:
        check_gpu(engine, settings)
        server = engine.Server(parameters(engine, settings))
    except (AttributeError, TypeError) as error:  # its names change from month to month
        version = f"xllamacpp {engine.__version__}"
        raise Refused(f"{version} is not the one that is needed ({error}): {REMEDY}") from error
    except (RuntimeError, MemoryError, UnicodeError) as error:
        raise Refused(f"cannot serve {settings.model}, see the lines above ({error})") from error
    on_stop(leave)
    print(f"server is listening on {server.listening_address}", file=sys.stderr, flush=True)
    while True:
        time.sleep(0.5)  # not longer: a signal that another thread takes does not cut it short


def main(arguments: list[str]) -> int:
    """Do what the command line says."""
    on_stop(leave)
    try:
        if "--version" in arguments:
            print(f"embedded v{load_package().__version__}")
        else:
            serve(understand(parse(arguments), os.environ))
    except Refused as refusal:
        sys.stderr.write(f"error: {refusal}\n")  # at once, for the engine's own thread writes there, too
        sys.stderr.flush()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
