"""Run a server for serve, start, with and chat: check, start, wait, end."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from multiprocessing import parent_process
from threading import current_thread, main_thread
from typing import TYPE_CHECKING, Any

from tasks import ROOT, doit_adapter
from tasks.cache import stamps
from tasks.catalogue.environment import Place
from tasks.catalogue.resolve import Job
from tasks.catalogue.settings import key_problem
from tasks.catalogue.types import Catalogue, Model
from tasks.console import formatting
from tasks.engine import server_registry
from tasks.engine.launch_spec import LaunchSpec, given_files, launch_spec
from tasks.engine.server_record import KEY_VARIABLE, Mode, Run, record_name
from tasks.engine.version import engine_cwd, engine_env, engine_version, launch_of
from tasks.errors import ServerError, UsageError
from tasks.system import files, process_identity
from tasks.transfer.ensure import check_source
from tasks.transfer.policy import DownloadPolicy
from tasks.urls import is_loopback, needed_no_proxy

if TYPE_CHECKING:
    from tasks.engine.supervisor_client import Kept

# from an engine's crash until its supervisor reports it
_EXIT_REPORT_S = 3.0
_POLL_S = 0.05


def check_start(cache: str, job: Job, policy: DownloadPolicy) -> None:
    """Check that the server can be started, before anything is downloaded.

    Raises:
        ServerError: the user could not stop the server.
        TransferError: a file is missing, and must not be downloaded.
    """
    for artifact in given_files(job):
        check_source(cache, artifact, policy)
    if parent_process() or current_thread() is not main_thread():
        raise ServerError("Ctrl-C does not reach tasks of `doit -n`", fix="remove -n")


def specify(place: Place, catalogue: Catalogue, job: Job) -> LaunchSpec:
    """Return the specification of a job's server, once its files are here.

    Raises:
        UsageError: LLAMA_API_KEY is not a valid key.
    """
    key = key_of(job)
    version = engine_version(place.cache, catalogue, job)
    return launch_spec(job, launch_of(place.platform, job), version=version, key=key)


def key_of(job: Job) -> str:
    """Return the API key of the command line, else of LLAMA_API_KEY.

    Raises:
        UsageError: the value is not a valid key.
    """
    key = job.key or os.environ.get(KEY_VARIABLE, "")
    if key and (problem := key_problem(key)):
        raise UsageError(f"{KEY_VARIABLE}: {problem}")
    return key


def pick_port(cache: str, host: str, port: int) -> int:
    """Return the port to serve on.

    Args:
        port: the requested or usual one; 0: any free one.

    Raises:
        ServerError: the port is in use, or the host is not an address of this machine.
    """
    from tasks.system.ports import free_port

    if port:
        # a server left over by a killed recipe may use it
        server_registry.clean(cache)
        server_registry.no_stranger(cache, port)
    return free_port(host, port)


class Server:
    """A model's server, from its start to its end.

    Args:
        stop: numbers of the signals received. They are collected, not raised: an
            exception could strike after the engine's start, before its pid is stored.

    Raises:
        ServerError: the engine cannot be started.
        IntegrityError: a file for the engine is not the one that was verified.
    """

    def __init__(self, cache: str, spec: LaunchSpec, mode: Mode, port: int, stop: list[int]) -> None:
        self._spec = spec
        self._stop = stop
        host = spec.settings.host
        if not spec.key and not is_loopback(host):
            doit_adapter.log().warning("%s", open_to_all(spec.name, host))
        self._folder = ExitStack()
        folder = self._make_folder(cache, mode)
        path = os.path.join(folder, record_name(spec.name, port))
        try:
            server_registry.drop_old_logs(cache, spec.name)
            self.run = self._prepare(path, mode, port)
            stamps.check_unchanged(cache, spec.files)
            self._launch(folder)
        except BaseException:
            server_registry.forget(f"{path}.json")
            self._folder.close()
            raise
        self._log_start()

    def _prepare(self, path: str, mode: Mode, port: int) -> Run:
        """Write the key file, if the engine reads one; return the server record.

        Args:
            path: of the server's files, without the suffix.

        Raises:
            ServerError: the engine does not support a setting.
        """
        spec = self._spec
        key_file = ""
        if spec.reads_key_file:
            key_file = f"{path}.key"
            files.write_atomic(key_file, f"{spec.key}\n", private=True)
        return Run(
            name=spec.name,
            mode=mode,
            host=spec.settings.host,
            port=port,
            spec=spec.record_spec(port),
            command=spec.argv(port, key_file),
            log=f"{path}.log",
            mark=os.urandom(8).hex(),
            key=spec.key,
            owner=os.getpid(),
            path=f"{path}.json",
        )

    def _make_folder(self, cache: str, mode: Mode) -> str:
        """Return the folder for log and record: in the cache, else a temporary one."""
        folder = server_registry.folder(cache)
        self._temporary = folder is None
        if folder is not None:
            return folder
        if mode is Mode.START:
            raise server_registry.cannot_record(cache)
        return self._folder.enter_context(server_registry.temporary_folder())

    def _launch(self, folder: str) -> None:
        """Start the engine and its supervisor.

        Raises:
            ServerError: the system refuses, or the disk is full.
        """
        from tasks.engine.failures import failed_start
        from tasks.engine.supervisor_client import Kept, NoRecord, no_record_error

        run = self.run
        launch = self._spec.launch
        values = asdict(run)
        del values["path"]
        self._start = time.monotonic()
        try:
            self._kept: Kept = Kept(
                run.command,
                env=engine_env(launch.engine, **self._spec.variables(run.mark)),
                cwd=engine_cwd(launch.engine, folder),
                log=run.log,
                record=run.path,
                values=values,
                root=str(ROOT),
                keeps_log=not self._temporary,
            )
        except NoRecord as error:
            raise no_record_error(run.name, error) from None
        except OSError as error:
            raise failed_start(run.name, run.command, error, launch.platform) from None

    def _log_start(self) -> None:
        name = self._spec.name
        log = self.run.log
        values = (name, self._spec.engine_title, log)
        text = "starting %s (%s, log %s)"
        doit_adapter.say("server_starting", text, *values, model=name, pid=self.pid, log=log)

    @property
    def pid(self) -> int:
        """Return the engine's pid."""
        return self._kept.pid

    def wait_ready(self) -> float | None:
        """Wait until the server is ready, and record that.

        Returns:
            Seconds since its start; None when a signal requested a stop.

        Raises:
            ServerError: it ended, was too late, did not answer, or does not use the
                requested GPU.
        """
        from tasks.engine import readiness

        spec = self._spec
        run = self.run
        limit = spec.settings.timeout
        seconds = readiness.wait_ready(spec.name, self._kept, run.host, run.port, limit, lambda: self._stop)
        if seconds is None:
            return None
        if spec.require_gpu:
            self._check_gpu()
        if spec.probe and not self._probe(limit - seconds):
            return None
        # includes the supervisor's start
        seconds = time.monotonic() - self._start
        # the engine has read the key
        server_registry.forget_key(run.path)
        self._kept.ready(seconds)
        # another process may have answered for an engine that has ended
        self.check_alive()
        values = (spec.name, run.url, formatting.seconds(seconds))
        fields: dict[str, Any] = {"model": spec.name, "url": run.url, "pid": self.pid}
        fields |= {"seconds": round(seconds, 3), "log": run.log}
        text = "%s is ready at %s after %s"
        doit_adapter.say("server_ready", text, *values, **fields)
        return seconds

    def _probe(self, limit: float) -> bool:
        from tasks.engine import client

        run = self.run
        try:
            return client.probe(run.name, run.host, run.port, run.key, limit, lambda: self._stop)
        except ServerError as error:
            deadline = self._start + self._spec.settings.timeout
            no_response = not error.facts
            if no_response and time.monotonic() < deadline:
                self._wait_exit_report(_EXIT_REPORT_S)
            # the error of a crash explains more than the missing answer
            self.check_alive()
            raise

    def _check_gpu(self) -> None:
        from tasks.engine import readiness

        line = readiness.wait_gpu(self.run.log)
        if line:
            what = f"{self._spec.name} was told to use the GPU, but runs on the CPU"
            log = "" if self._temporary else self.run.log
            fix = "fix the GPU's driver, or remove --force-gpu and --gpu"
            raise ServerError(what, [("output", line), ("log", log)], fix=fix)

    def check_lived(self) -> None:
        """Check that the engine has not ended, not even a moment ago.

        Raises:
            ServerError: it has ended by itself.
        """
        if not process_identity.is_running(self.pid):
            self._wait_exit_report(_EXIT_REPORT_S)
        self.check_alive()

    def _wait_exit_report(self, limit: float) -> None:
        """Wait until the supervisor reports the engine's end, if it does."""
        deadline = time.monotonic() + limit
        while self._kept.exited() is None and time.monotonic() < deadline:
            time.sleep(_POLL_S)

    def check_alive(self) -> None:
        """Check that the supervisor has not reported the engine's end.

        Raises:
            ServerError: it has ended by itself.
        """
        from tasks.engine import failures

        if self._kept.exited() is not None:
            what = f"{self._spec.name} ended by itself"
            raise failures.failure(what, self._kept.ending(), self._spec.launch.platform)

    def ended_by_stop(self) -> bool:
        """Return whether `doit stop` ended the server."""
        return self._kept.exited() is not None and self._kept.told

    def detach(self) -> None:
        """Let the server run on after doit has ended."""
        self._kept.detach()

    def end(self) -> None:
        """End the server and all that it started.

        Raises:
            ServerError: a process of it still runs.
        """
        was_running = self._kept.exited() is None or self._kept.told
        self._kept.stop(hurry=lambda: len(self._stop) > 1)
        name = self._spec.name
        if not server_registry.end_marked(self.run.mark):
            what = f"cannot end {name} (pid {self.pid})"
            raise ServerError(what, fix=f"kill -9 -{self.pid}")
        server_registry.forget(self.run.path)
        self._folder.close()
        if was_running:
            doit_adapter.say("server_stopped", "%s has stopped", name, model=name)


@contextmanager
def serving(cache: str, spec: LaunchSpec, mode: Mode, port: int) -> Iterator[tuple[Server | None, list[int]]]:
    """Run a server for a `with` block, and end it with the block.

    Args:
        port: as of `pick_port`.

    Yields:
        The server, ready, and the signals received; no server if a signal came before
        it was ready.
    """
    from tasks.system.signals import on_signals

    stop: list[int] = []
    with on_signals(stop.append):
        free = pick_port(cache, spec.settings.host, port)
        server = Server(cache, spec, mode, free, stop)
        try:
            ready = server.wait_ready() is not None
            yield (server if ready else None), stop
        finally:
            server.end()


def usage(model: Model, run: Run, stop: str) -> str:
    """Return the text for a ready server: what it is, how to call and stop it.

    Args:
        stop: how to stop it.
    """
    header = ""
    client_key = "none"
    if run.key:
        header = " -H 'Authorization: Bearer '$LLAMA_API_KEY"
        client_key = "$LLAMA_API_KEY"
    proxy = ""
    if hosts := needed_no_proxy(os.environ, run.host):
        proxy = f"  proxy    NO_PROXY={hosts}  (else clients ask the proxy)\n"
    return (
        f"  model    {model.title}, licence {model.license}\n"
        f"  try it   curl {run.url}/v1/chat/completions"
        f" -H 'Content-Type: application/json'{header}"
        """ -d '{"messages":[{"role":"user","content":"Hello"}]}'\n"""
        f"  clients  OPENAI_BASE_URL={run.url}/v1  OPENAI_API_KEY={client_key}\n"
        f"{proxy}"
        f"  log      {run.log}\n"
        f"  stop     {stop}"
    )


def open_to_all(name: str, host: str) -> str:
    """Return the warning about a server without a key on a public address (R30)."""
    return (
        f"warning: {name} listens on {host} without an API key: "
        "any user who can reach this machine can use it\n"
        "  fix: set LLAMA_API_KEY, or use --api-key KEY, or remove --host"
    )
