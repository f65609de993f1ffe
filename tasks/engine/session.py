"""What serve, start, with and chat have in common: check, start an engine, wait until it is ready, end it."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from multiprocessing import parent_process
from threading import current_thread, main_thread
from typing import TYPE_CHECKING

from tasks import ROOT, doit_adapter
from tasks.cache import stamps
from tasks.catalogue.artifact import Artifact
from tasks.catalogue.resolve import Job
from tasks.catalogue.settings import key_problem
from tasks.console import formatting
from tasks.context import Recipe
from tasks.engine import command, server_registry
from tasks.engine.server_record import KEY_VARIABLE, Mode, Run, record_name, spec_of
from tasks.engine.version import engine_cwd, engine_env, engine_version, launch_of
from tasks.errors import ServerError, UsageError
from tasks.system import files, process_identity
from tasks.system.process_id import MARK_VARIABLE
from tasks.transfer.ensure import check_source
from tasks.urls import is_loopback

if TYPE_CHECKING:
    from tasks.engine.supervisor_client import Kept, NoRecord
from typing import TYPE_CHECKING

from tasks.catalogue.types import Model

if TYPE_CHECKING:
    from tasks.engine.server_record import Run

_LAST_WORDS_S = 3.0  # from an engine's crash to its keeper's word of it
_OFFLOAD_S = 1.0  # for the lines about the GPU to reach the log


def given_files(job: Job) -> tuple[Artifact, ...]:
    """Every file that the engine is, or is given."""
    return (*job.files, *filter(None, [job.exe]))


def check_start(recipe: Recipe, job: Job) -> None:
    """Before anything is fetched for nothing, an engine included.

    Raises:
        ServerError: nobody could stop the server.
        TransferError: a file is not there, and may not be fetched.
    """
    for artifact in given_files(job):
        check_source(recipe, artifact)
    if parent_process() or current_thread() is not main_thread():
        raise ServerError("Ctrl-C does not reach what `doit -n` runs", fix="leave -n away")


def key_of(job: Job) -> str:
    """The API key: from the command line, else from the variable that llama.cpp's server knows, too.

    Raises UsageError: it cannot be one.
    """
    key = job.key or os.environ.get(KEY_VARIABLE, "")
    if key and (problem := key_problem(key)):
        raise UsageError(f"{KEY_VARIABLE}: {problem}")
    return key


def pick_port(recipe: Recipe, job: Job, *, any_free: bool) -> int:
    """The port to serve on.

    Args:
        any_free: where none was asked for, any will do; else it is the usual one.

    Raises ServerError: it is taken, or the host is no address of this machine.
    """
    from tasks.system.ports import free_port

    usual = 0 if any_free else job.settings.port or 0
    port = usual if job.port is None else job.port
    if port:
        server_registry.clean(recipe.place.cache)  # what a killed recipe has left may have it
        server_registry.no_stranger(recipe.place.cache, port)
    return free_port(job.settings.host or "", port)


def spec(recipe: Recipe, job: Job, port: int | None) -> dict[str, str]:
    """What is asked for, comparable with what runs."""
    return spec_of(job, engine_version(recipe.place.cache, recipe.catalogue, job), key_of(job), port)


class Server:
    """A model's server, from its start to its end.

    Args:
        stop: numbers of the signals that came; noted, not raised: an exception could strike
            between the engine's start and the note of its pid.

    Raises:
        ServerError: the engine cannot be started.
        IntegrityError: a file that it would be given is not the one that was proven.
    """

    def __init__(self, recipe: Recipe, job: Job, mode: Mode, port: int, stop: list[int]) -> None:
        self._job, self._stop, self._platform = job, stop, recipe.place.platform
        host, key = job.settings.host or "", key_of(job)
        if not key and not is_loopback(host):
            doit_adapter.log().warning("%s", open_to_all(job.name, host))
        self._folder = ExitStack()
        folder = self._make_folder(recipe.place.cache, mode)
        try:
            server_registry.drop_old_logs(recipe.place.cache, job.name)
            version, launch = (
                engine_version(recipe.place.cache, recipe.catalogue, job),
                launch_of(recipe.place.platform, job),
            )
            path, mark = os.path.join(folder, record_name(job.name, port)), os.urandom(8).hex()
            env = engine_env(job.engine, **{MARK_VARIABLE: mark})
            key_file = ""
            if key and job.engine == "embedded":
                env[KEY_VARIABLE] = key
            elif key:
                key_file = f"{path}.key"
                files.write_atomic(key_file, f"{key}\n", private=True)
            settings = replace(job.settings, host=host, port=port)
            words = command.serve_command(
                launch, settings, version=version, extra=job.extra, key_file=key_file
            )
            self.run = Run(
                job.name, mode, host, port, spec(recipe, job, port), words, f"{path}.log", mark, key,
                owner=os.getpid(), path=f"{path}.json",
            )  # fmt: skip
            stamps.check_unchanged(recipe.place.cache, given_files(job))
            self._launch(env, folder)
        except BaseException:
            server_registry.forget(os.path.join(folder, f"{record_name(job.name, port)}.json"))
            self._folder.close()
            raise
        engine = f"{'llamafile' if job.engine != 'embedded' else job.engine} {version}".strip()
        doit_adapter.say(
            "server_starting", "starting %s (%s, log %s)", job.name, engine, self.run.log,
            model=job.name, pid=self.pid, log=self.run.log,
        )  # fmt: skip

    def _launch(self, env: dict[str, str], folder: str) -> None:
        """Start the engine and its keeper. Raises ServerError: the system, or a full disk, refuses."""
        from tasks.engine.failures import failed_start
        from tasks.engine.supervisor_client import Kept, NoRecord

        run = self.run
        self._start = time.monotonic()
        try:
            self._kept: Kept = Kept(
                run.command, env=env, cwd=engine_cwd(self._job.engine, folder), log=run.log, record=run.path,
                values={k: v for k, v in asdict(run).items() if k != "path"},
                root=str(ROOT), keeps_log=not self._temporary,
            )  # fmt: skip
        except NoRecord as error:
            raise _no_record(run.name, error) from None
        except OSError as error:
            raise failed_start(run.name, run.command, error, self._platform) from None

    def _make_folder(self, cache: str, mode: Mode) -> str:
        """The folder of its log and record: the cache's, else a temporary one that goes with it."""
        folder = server_registry.folder(cache)
        self._temporary = folder is None
        if folder is not None:
            return folder
        if mode is Mode.START:
            raise server_registry.cannot_record(cache)
        return self._folder.enter_context(server_registry.temporary_folder())

    @property
    def pid(self) -> int:
        """The engine's."""
        return self._kept.pid

    def wait_ready(self) -> float | None:
        """Seconds from its start until it was ready, on record; None when a signal asked to stop.

        Raises ServerError: it died, was too late, answers nothing, or does without its GPU.
        """
        from tasks.engine import readiness

        job, run, limit = self._job, self.run, self._job.settings.timeout or 0
        took = readiness.wait_ready(job.name, self._kept, run.host, run.port, limit, lambda: self._stop)
        if took is None:
            return None
        if job.gpu:
            self._check_gpu()
        if job.probe and not self._probe(limit - took):
            return None
        took = time.monotonic() - self._start  # with the keeper's own start
        server_registry.forget_key(run.path)  # the engine has read it
        self._kept.ready(took)
        self.check_alive()  # it may have ended while another process answered for it
        doit_adapter.say(
            "server_ready", "%s is ready at %s after %s", job.name, run.url, formatting.seconds(took),
            model=job.name, url=run.url, pid=self.pid, seconds=round(took, 3), log=run.log,
        )  # fmt: skip
        return took

    def _probe(self, limit: float) -> bool:
        from tasks.engine import client

        run = self.run
        try:
            return client.probe(run.name, run.host, run.port, run.key, limit, lambda: self._stop)
        except ServerError as error:
            early = not error.facts and time.monotonic() < self._start + (self._job.settings.timeout or 0)
            self._hear(_LAST_WORDS_S * early)
            self.check_alive()  # one that crashed says more than that it did not answer
            raise

    def _check_gpu(self) -> None:
        from tasks.engine import logfile
        from tasks.engine.gpu import cpu_fallback, on_gpu

        deadline = time.monotonic() + _OFFLOAD_S
        while True:
            text = logfile.tail(self.run.log, logfile.LIMIT).decode("utf-8", "replace")
            if line := cpu_fallback(text):
                what = f"{self._job.name} was told to use the GPU, and runs on the CPU"
                facts = [("output", line), ("log", "" if self._temporary else self.run.log)]
                fix = "leave --force-gpu and --gpu away, or mend the GPU's driver"
                raise ServerError(what, facts, fix=fix)
            if on_gpu(text) or time.monotonic() > deadline:
                return
            time.sleep(0.05)

    def check_lived(self) -> None:
        """Raise ServerError: the engine has ended by itself, be it a moment ago."""
        if not process_identity.is_running(self.pid):
            self._hear(_LAST_WORDS_S)
        self.check_alive()

    def _hear(self, limit: float) -> None:
        """Wait for the keeper's word that it has ended."""
        deadline = time.monotonic() + limit
        while self._kept.exited() is None and time.monotonic() < deadline:
            time.sleep(0.05)

    def check_alive(self) -> None:
        """Raise ServerError: the engine has ended by itself."""
        from tasks.engine import failures

        if self._kept.exited() is not None:
            raise failures.failure(f"{self._job.name} ended by itself", self._kept.ending(), self._platform)

    def ended_by_stop(self) -> bool:
        """Whether it ended because `doit stop` asked for it."""
        return self._kept.exited() is not None and self._kept.told

    def detach(self) -> None:
        """Let it live on when doit ends."""
        self._kept.detach()

    def end(self) -> None:
        """End it, with everything it started. Raises ServerError: something of it is still there."""
        lived = self._kept.exited() is None or self._kept.told
        self._kept.stop(hurry=lambda: len(self._stop) > 1)
        if not server_registry.end_marked(self.run.mark):
            raise ServerError(f"{self._job.name} (pid {self.pid}) does not end", fix=f"kill -9 -{self.pid}")
        server_registry.forget(self.run.path)
        self._folder.close()
        if lived:
            doit_adapter.say("server_stopped", "%s has stopped", self._job.name, model=self._job.name)


def _no_record(name: str, error: NoRecord) -> ServerError:
    """The error for a server that no command could have found, and that was ended for that."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    fix = "set LLAMAFILE_CACHE to a directory you can write to"
    if full:
        fix = "free some space, or set LLAMAFILE_CACHE to another disk"
    return ServerError(f"{name} was not started: cannot write {error.filename}: {error.strerror}", fix=fix)


@contextmanager
def serving(
    recipe: Recipe, job: Job, mode: Mode, *, any_free: bool
) -> Iterator[tuple[Server | None, list[int]]]:
    """A server that is ready, and the signals that came; ended when the block ends, however it does.

    Yields no server when a signal came before it was ready.
    """
    from tasks.system.signals import on_signals

    stop: list[int] = []
    with on_signals(stop.append):
        server = Server(recipe, job, mode, pick_port(recipe, job, any_free=any_free), stop)
        try:
            yield (server if server.wait_ready() is not None else None), stop
        finally:
            server.end()


def usage(model: Model, run: Run, stop: str) -> str:
    """What is said when a server is ready: what it is, how to call it and how to stop it."""
    auth = " -H 'Authorization: Bearer '$LLAMA_API_KEY" if run.key else ""
    return (
        f"  model    {model.title}, licence {model.license}\n"
        f"  try it   curl {run.url}/v1/chat/completions -H 'Content-Type: application/json'{auth}"
        f""" -d '{{"messages":[{{"role":"user","content":"Hello"}}]}}'\n"""
        f"  clients  OPENAI_BASE_URL={run.url}/v1  OPENAI_API_KEY={'$LLAMA_API_KEY' if run.key else 'none'}\n"
        f"  log      {run.log}\n"
        f"  stop     {stop}"
    )


def open_to_all(name: str, host: str) -> str:
    """The warning about a server that everybody may use (R30)."""
    return (
        f"warning: {name} listens on {host} and asks for no key: whoever reaches this machine may use it\n"
        "  fix: put a key into LLAMA_API_KEY (or --api-key KEY), or leave --host away"
    )
