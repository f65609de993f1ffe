"""Run `doit` inside the process of the tests, with the same result as in its own process.

The start of Python and the imports of doit take longer than most verbs. Everything that a run changes in this
process is set up as in a new process, and restored afterwards. What only a new interpreter reads
(`needs_process`), and tests of signals, terminals, pipes, kills or limits need a real process.
"""

from __future__ import annotations

import gc
import io
import os
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import doit.cmd_run
import doit.doit_cmd
import doit.loader

from tests.support import shared_modules

shared_modules.spare_doit_work()

PACKAGES = ("dodo", "tasks", "demo")  # a project has its own copy of these; `tasks` finds its root by it
READ_AT_START = ("PYTHON", "LANG", "LC_", "TZ", "LD_")  # variables that a running interpreter reads no more
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGPIPE", "SIGCHLD", "SIGALRM", "SIGUSR1", "SIGUSR2")
IGNORED = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)
THREADS_END_S = 10.0


def needs_process(env: Mapping[str, str]) -> bool:
    """Return whether the variables, or the current directory, require a new process."""
    if threading.current_thread() is not threading.main_thread():
        return True  # signal handlers, working directory and standard streams are those of all threads
    return any(name.startswith(READ_AT_START) for name in env)


def run(
    args: Sequence[str],
    cwd: Path,
    env: Mapping[str, str],
    stdin: str | None,
    timeout: float,
    errors: str = "strict",
) -> tuple[int, str, str]:
    """Run `doit` with these arguments; return its exit status, stdout and stderr.

    Args:
        errors: for bytes on stdout that are not UTF-8, as `doit logs` copies them.
    """
    with ExitStack() as stack:
        for change in (_collected(), _directory(cwd), _environment(env), _own_modules(), _interpreter()):
            stack.enter_context(change)
        stack.enter_context(shared_modules.shared())
        stack.enter_context(_signals())
        threads = stack.enter_context(_threads())
        texts = stack.enter_context(_streams(stdin, errors))
        _renew_doit(args)
        stack.enter_context(_alarm(timeout))
        status = _status(lambda: doit.doit_cmd.DoitMain().run(list(args)))
        _wait_for(threads)
        out, err = texts()
    return status, out, err


def _status(main: Callable[[], object]) -> int:
    """Return the exit status of `sys.exit(main())`; print failures to stderr, as Python does."""
    try:
        sys.exit(main())  # type: ignore[arg-type]
    except SystemExit as ended:
        code = ended.code
    except TimedOut:
        raise
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    if code is None or isinstance(code, int):
        return int(code or 0) & 0xFF
    print(code, file=sys.stderr)
    return 1


def _renew_doit(args: Sequence[str]) -> None:
    """Set what doit reads only once, at its import."""
    sys.argv[:] = ["doit", *args]
    doit.doit_cmd.DoitMain.BIN_NAME = "doit"
    doit.doit_cmd._CMDLINE_VARS = None
    doit.loader.initial_workdir = None
    doit.cmd_run.opt_outfile["default"] = sys.stdout


@contextmanager
def _collected() -> Iterator[None]:
    """Collect garbage after the run, so that files and sockets are closed as at the end of a process.

    This is cheap: what the run has created is still in the youngest generation, which alone is read.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.collect(0)
        gc.enable()


@contextmanager
def _directory(cwd: Path) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(cwd)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def _environment(env: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    _set_environment(env)
    try:
        yield
    finally:
        _set_environment(before)


def _set_environment(env: Mapping[str, str]) -> None:
    for name in os.environ.keys() - env.keys():
        del os.environ[name]
    os.environ.update(env)


@contextmanager
def _own_modules() -> Iterator[None]:
    """Import the project's modules again, and restore the tests' copies afterwards."""
    before, path = _take_modules(), list(sys.path)
    sys.path[:] = [entry for entry in sys.path if not (Path(entry) / "dodo.py").exists()]
    cached = set(sys.path_importer_cache)
    try:
        yield
    finally:
        _take_modules()
        sys.modules.update(before)
        sys.path[:] = path
        for entry in sys.path_importer_cache.keys() - cached:
            del sys.path_importer_cache[entry]


def _take_modules() -> dict[str, ModuleType]:
    names = [name for name in sys.modules if name.startswith(PACKAGES) and name.partition(".")[0] in PACKAGES]
    return {name: sys.modules.pop(name) for name in names}


@contextmanager
def _interpreter() -> Iterator[None]:
    """Reset warnings, arguments, umask and logging handlers to those of a new Python."""
    import logging

    logger = logging.getLogger("recipe")
    argv, handlers, no_bytecode = list(sys.argv), list(logger.handlers), sys.dont_write_bytecode
    level, propagate, folder = logger.level, logger.propagate, tempfile.tempdir
    umask = os.umask(0o22)
    os.umask(umask)
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)
    logger.propagate, sys.dont_write_bytecode, tempfile.tempdir = True, False, None
    try:
        with warnings.catch_warnings():
            warnings.resetwarnings()
            for category in IGNORED:
                warnings.simplefilter("ignore", category)
            warnings.showwarning = _show_warning  # type: ignore[assignment]  # pytest would keep it for itself
            yield
    finally:
        sys.argv[:], logger.handlers[:] = argv, handlers
        logger.setLevel(level)
        logger.propagate, sys.dont_write_bytecode, tempfile.tempdir = propagate, no_bytecode, folder
        os.umask(umask)


def _show_warning(*args: Any) -> None:
    sys.stderr.write(warnings.formatwarning(*args[:4]))


@contextmanager
def _signals() -> Iterator[None]:
    """Reset the signal handlers to those of a new Python."""
    numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)


@contextmanager
def _streams(stdin: str | None, errors: str) -> Iterator[Callable[[], tuple[str, str]]]:
    """Redirect the standard streams and their descriptors, which child processes inherit."""
    before = sys.stdin, sys.stdout, sys.stderr, sys.__stdin__, sys.__stdout__, sys.__stderr__
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    kept = [os.dup(number) for number in (0, 1, 2)]
    with ExitStack() as stack:
        given, out, err = [stack.enter_context(tempfile.TemporaryFile(buffering=0)) for _ in range(3)]
        given.write((stdin or "").encode())
        given.seek(0)
        try:
            for number, file in enumerate((given, out, err)):
                os.dup2(file.fileno(), number)
            sys.stdin = _stream(0, "r")
            sys.stdout = _stream(1, "w")
            sys.stderr = _stream(2, "w", errors="backslashreplace", buffering=1)
            yield lambda: (_text(sys.stdout, out, errors), _text(sys.stderr, err, "strict"))
        finally:
            sys.stdin, sys.stdout, sys.stderr = before[:3]
            for number, copy in enumerate(kept):
                os.dup2(copy, number)
                os.close(copy)


def _stream(number: int, mode: str, **how: Any) -> Any:
    return open(number, mode, encoding="utf-8", closefd=False, **how)


def _text(stream: Any, file: Any, errors: str) -> str:
    stream.flush()
    file.seek(0)
    return io.TextIOWrapper(io.BytesIO(file.read()), encoding="utf-8", errors=errors).read()


@contextmanager
def _threads() -> Iterator[set[threading.Thread]]:
    """Collect the threads that the run starts, also indirectly, but not those of fake servers."""
    found: set[threading.Thread] = set()
    main, start = threading.current_thread(), threading.Thread.start

    def noted(self: threading.Thread) -> None:
        if threading.current_thread() in {main, *found}:
            found.add(self)
        start(self)

    threading.Thread.start = noted  # type: ignore[method-assign]
    try:
        yield found
    finally:
        threading.Thread.start = start  # type: ignore[method-assign]


def _wait_for(threads: set[threading.Thread]) -> None:
    """Wait for threads that would end with a process of its own."""
    for thread in list(threads):
        thread.join(THREADS_END_S)
        assert not thread.is_alive(), f"{thread} goes on after the run; use Project.process()"


class TimedOut(BaseException):
    """The run took too long."""


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    def ring(*_: object) -> None:
        raise TimedOut(f"still running after {seconds} s\n")

    if not hasattr(signal, "setitimer"):
        yield
        return
    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
