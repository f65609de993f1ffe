"""A fake llamafile engine: the `__main__.py` of the files that llamafile.py builds.

Imports nothing but the standard library and the modules packed with it (PACKED in llamafile.py):
it runs far from this repository. What it says and how it ends follows the real engine, version by
version; Behaviour makes it go wrong.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, NoReturn

from tests.fakes import behaviour
from tests.fakes.engine_args import (
    Box,
    Refused,
    api_keys,
    is_server,
    model_name,
    parse,
    stored_args,
    with_stored,
)

if TYPE_CHECKING:  # imported where it serves: --version must be quick
    from tests.fakes.behaviour import Behaviour, Crash
    from tests.fakes.engine_http import Httpd, State

TICK = 0.02  # seconds between two pieces of steady chatter
LINE = 100  # bytes of a line of chatter
FILL = "slot update_slots: id  0 | task 0 | decoding".ljust(LINE - len("0000000001 \n"), ".")
BLOCK = 10_000  # lines written at once


def say(text: str) -> None:
    """Write a line to stderr."""
    print(text, file=sys.stderr, flush=True)


def own_zip() -> Box | None:
    """Open the file this engine was started from, None when it runs as a plain module."""
    loader: Any = globals().get("__loader__")
    return Box(loader) if hasattr(loader, "archive") else None


def serve(state: State) -> None:
    """Load, listen and answer until a signal comes."""
    arm(state.behaviour.get("crash"))
    if state.modern:
        handle(state.behaviour, "SIGINT", "SIGTERM")
        httpd = listening(state)
        load(state)
    else:  # model, port, handler (server.cpp 0.9.3:3121,3138,3768); here no gap after the port
        load(state)
        handle(state.behaviour, "SIGINT")
        httpd = listening(state)
    announce(httpd)
    threading.Thread(target=chatter, args=(state.behaviour,), daemon=True).start()
    while True:
        time.sleep(3600)


def listening(state: State) -> Httpd:
    """Return a server that answers in a thread of its own."""
    from tests.fakes.engine_http import bind

    httpd = bind(state)
    threading.Thread(target=httpd.serve_forever, args=(0.05,), daemon=True).start()
    return httpd


def load(state: State) -> None:
    """Take the time that loading takes."""
    for line in state.behaviour.get("say", []):
        say(line)
    while state.behaviour.get("silent"):
        time.sleep(3600)
    time.sleep(state.behaviour.get("load_seconds", 0))
    state.ready.set()


def chatter(mood: Behaviour) -> None:
    """Log, as one does who has much to do."""
    rate, sent = mood.get("chatter", 0), 0
    with contextlib.suppress(OSError):  # nobody reads it any more: no reason to die (httplib ignores SIGPIPE)
        number = log(1, mood.get("chatter_bytes", 0))
        started = time.monotonic()
        while rate:
            time.sleep(TICK)
            size = int(rate * (time.monotonic() - started) - sent) // LINE * LINE
            number = log(number, size)
            sent += size


def log(number: int, size: int) -> int:
    """Write exactly `size` bytes of numbered lines to stderr; return the next number."""
    while size > 0:
        count = min(BLOCK, -(-size // LINE))
        text = "".join(f"{n:010d} {FILL}\n" for n in range(number, number + count))
        block = text[: size - 1] + "\n" if size < len(text) else text
        rest = memoryview(block.encode())
        while rest:  # past Python's own buffer, whose lock a full pipe would hold
            rest = rest[os.write(2, rest) :]
        number, size = number + count, size - len(block)
    return number


def announce(httpd: Httpd) -> None:
    """Print the line that tells where the server is."""
    host, port = httpd.server_address[:2]
    url = f"http://{host!s}:{port}"
    if httpd.state.modern:
        if httpd.state.keys:
            say(f"srv  init: api_keys: {hint(httpd.state.keys)}")
        say(f"main: server is listening on {url} - starting the main loop")
        return
    line = f"llama server listening at {url}"
    told: dict[str, object] = {"level": "INFO", "msg": "HTTP server listening", "port": port}
    if httpd.state.keys:
        told["api_key"] = f"api_key: {hint(httpd.state.keys)}"
    print(json.dumps(told), flush=True)
    with contextlib.suppress(OSError):  # as the real one: in the working directory
        write("llama.log", line + "\n")
    say(line)


def hint(keys: list[str]) -> str:
    """Return what the engine logs of its keys: a lone one's end (server.cpp:3187)."""
    return f"****{keys[0][-4:]}" if len(keys) == 1 else f"{len(keys)} keys loaded"


def ignore(mood: Behaviour) -> None:
    """Set the fate of the two stop signals, whatever the parent process set it to."""
    for name in ("SIGINT", "SIGTERM"):
        deaf = mood.get("ignore_sigint" if name == "SIGINT" else "ignore_sigterm")
        signal.signal(getattr(signal, name), signal.SIG_IGN if deaf else signal.SIG_DFL)


def handle(mood: Behaviour, *names: str) -> None:
    """Exit with 0 on these signals, but for those that are ignored."""

    def leave(number: int, frame: object) -> None:
        time.sleep(mood.get("stop_seconds", 0))
        os._exit(0)

    for number in (getattr(signal, name) for name in names):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, leave)


def die(crash: Crash) -> NoReturn:
    """End at once, as a crash does."""
    if "text" in crash:
        say(crash["text"])
    if "signal" in crash:
        end_by_signal(crash["signal"])
    os._exit(crash.get("status", 1))


def end_by_signal(number: int) -> NoReturn:
    """Let a signal kill this process."""
    os.kill(os.getpid(), number)
    time.sleep(60)
    os._exit(1)


def arm(crash: Crash | None) -> None:
    """Let the crash happen at its time."""
    if crash is None:
        return
    if not crash.get("after"):
        die(crash)
    timer = threading.Timer(crash["after"], die, [crash])
    timer.daemon = True
    timer.start()


def split() -> None:
    """Go on as a child; the parent waits for it and ends as it ends."""
    if sys.platform == "win32":
        raise Refused("this platform cannot fork")
    child = os.fork()
    if child:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os._exit(code if code >= 0 else 128 - code)


def part(new_session: bool) -> None:
    """Go on as a child; the parent is gone at once."""
    if sys.platform == "win32":
        raise Refused("this platform cannot fork")
    if os.fork():
        os._exit(0)
    if new_session:
        os.setsid()


def tell_version(mood: Behaviour) -> int:
    """Do what --version does."""
    if "version_text" in mood:
        say(mood["version_text"])
    while mood.get("version_hang"):
        time.sleep(3600)
    status = mood.get("version_status", 0)
    if status < 0:
        end_by_signal(-status)
    if status == 0:
        print(f"llamafile v{mood['version']}", flush=True)
    return status


def note(mood: Behaviour, argv: list[str]) -> None:
    """Write down this run for the test to read."""
    if "record" in mood:
        draft = f"{mood['record']}.{os.getpid()}"
        write(draft, json.dumps(argv))
        os.replace(draft, mood["record"])  # a reader never sees half of it
    if "history" in mood:
        env = {name: os.environ[name] for name in behaviour.NOTED if name in os.environ}
        line = json.dumps({"argv": argv, "pid": os.getpid(), "cwd": os.getcwd(), "env": env})
        write(mood["history"], line + "\n", "a")


def write(path: str, text: str, mode: str = "w") -> None:
    with open(path, mode, encoding="utf-8") as file:
        file.write(text)


def run(argv: list[str], mood: Behaviour, box: Box | None) -> int:
    """Be a llamafile; raise Refused for what one would not accept."""
    version = mood["version"]
    words = with_stored(stored_args(box), argv)
    flags = parse(words, version)
    keys = api_keys(flags, version, os.environ)
    model = model_name(flags, version, box)
    if not is_server(version, argv, words):
        sys.stdin.read()  # the terminal chat: it ends with its input
        return 0
    if mood.get("fork"):
        split()
    if mood.get("leave") or mood.get("leave_session"):
        part(bool(mood.get("leave_session")))
    from tests.fakes.engine_http import State

    serve(State(flags, model, mood, threading.Event(), keys))
    return 0


def main(argv: list[str]) -> int:
    """Run the engine and return its exit status."""
    box = own_zip()
    mood = behaviour.load(box)
    ignore(mood)
    note(mood, argv)
    if "--version" in argv:
        return tell_version(mood)
    try:
        return run(argv, mood, box)
    except Refused as refusal:
        say(str(refusal))
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
