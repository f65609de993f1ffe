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
from tasks.catalogue.endpoints import ResolvedEndpoint, Servable
from tasks.catalogue.engine_release import usable_engines
from tasks.catalogue.environment import Environment
from tasks.catalogue.types import Catalogue
from tasks.console import formatting
from tasks.engine.launch_spec import LaunchSpec, given_files, launch_spec
from tasks.engine.version import engine_cwd, engine_env, engine_version, launch_of
from tasks.errors import ServerError
from tasks.server import endpoint_server, log_files, run_folder, server_registry
from tasks.server.api_key import key_of
from tasks.server.log_echo import echo_log
from tasks.server.messages import access_warnings
from tasks.server.server_record import Mode, ServerRecord, record_name
from tasks.server.watched_files import pins_of
from tasks.system import files, process_identity
from tasks.transfer.permission import check_source
from tasks.transfer.policy import DownloadPolicy

if TYPE_CHECKING:
    from tasks.server.supervisor_client import SupervisorClient

# from an engine's crash until its supervisor reports it
_EXIT_REPORT_S = 3.0
_POLL_S = 0.05


def check_start(cache: str, resolved: Servable, policy: DownloadPolicy) -> None:
    """Check that the server can be started, before anything is downloaded.

    Raises:
        ServerError: the user could not stop the server.
        TransferError: a file is missing, and must not be downloaded.
    """
    for artifact in given_files(resolved):
        check_source(cache, artifact, policy)
    if parent_process() or current_thread() is not main_thread():
        raise ServerError("Ctrl-C does not reach tasks of `doit -n`", fix="remove -n")


def specify(
    environment: Environment, catalogue: Catalogue, resolved: Servable
) -> LaunchSpec:
    """Return the specification of a job's server, once its files are here.

    Raises:
        UsageError: LLAMA_API_KEY is not a valid key.
    """
    key = key_of(resolved)
    if isinstance(resolved, ResolvedEndpoint):
        return endpoint_server.specify(environment, catalogue, resolved, key)
    version = engine_version(environment.cache, catalogue, resolved)
    launch = launch_of(environment.platform, resolved)
    installed = usable_engines(catalogue, environment)
    return launch_spec(resolved, launch, version=version, key=key, installed=installed)


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
        server_registry.reap_orphans(cache)
        server_registry.check_port_not_ours(cache, port)
    return free_port(host, port)


class ManagedServer:
    """A model's server, from its start to its end.

    Args:
        stop: numbers of the signals received. They are collected, not raised: an
            exception could strike after the engine's start, before its pid is stored.

    Raises:
        ServerError: the engine cannot be started.
        IntegrityError: a file for the engine is not the one that was verified.
    """

    def __init__(
        self, cache: str, spec: LaunchSpec, mode: Mode, port: int, stop: list[int]
    ) -> None:
        self._spec = spec
        self._stop = stop
        for warning in access_warnings(spec):
            doit_adapter.log().warning("%s", warning)
        self._folder = ExitStack()
        folder = self._make_folder(cache, mode)
        path = os.path.join(folder, record_name(spec.name, port))
        try:
            log_files.drop_old_logs(cache, spec.name)
            self.record = self._prepare(path, mode, port)
            self._pins = pins_of(spec)
            stamps.check_unchanged(cache, spec.files)
            self._launch(folder)
        except BaseException:
            server_registry.delete_record(f"{path}.json")
            self._folder.close()
            raise
        self._log_start()

    def _prepare(self, path: str, mode: Mode, port: int) -> ServerRecord:
        """Write the key file, if there is a key; return the server record.

        Args:
            path: of the server's files, without the suffix.

        Raises:
            ServerError: the engine does not support a setting.
        """
        spec = self._spec
        key_file = ""
        if spec.key:
            key_file = f"{path}.key"
            files.write_atomic(key_file, f"{spec.key}\n", private=True)
        return ServerRecord(
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
            drain=spec.drain,
            path=f"{path}.json",
        )

    def _make_folder(self, cache: str, mode: Mode) -> str:
        """Return the folder for log and record, or a temporary one."""
        folder = run_folder.folder(cache)
        self._temporary = folder is None
        if folder is not None:
            return folder
        if mode is Mode.START:
            raise run_folder.record_error(cache)
        return self._folder.enter_context(files.temporary_folder())

    def _launch(self, folder: str) -> None:
        """Start the engine and its supervisor.

        Raises:
            ServerError: the system refuses, or the disk is full.
        """
        from tasks.engine.failures import launch_error
        from tasks.server.supervisor_client import (
            RecordError,
            SupervisorClient,
            no_record_error,
        )

        record = self.record
        launch = self._spec.launch
        values = asdict(record)
        del values["path"]
        self._start = time.monotonic()
        try:
            self._supervisor: SupervisorClient = SupervisorClient(
                record.command,
                env=engine_env(
                    launch.engine, self._spec.variables(record.mark), launch.exe
                ),
                cwd=engine_cwd(launch.engine, folder),
                log=record.log,
                record=record.path,
                values=values,
                root=str(ROOT),
                keeps_log=not self._temporary,
                pins=self._pins,
            )
        except RecordError as error:
            raise no_record_error(record.name, error) from None
        except OSError as error:
            raise launch_error(
                record.name, record.command, error, launch.platform
            ) from None

    def _log_start(self) -> None:
        name = self._spec.name
        log = self.record.log
        values = (name, self._spec.engine_title, log)
        text = "starting %s (%s, log %s)"
        doit_adapter.log_event(
            "server_starting", text, *values, model=name, pid=self.pid, log=log
        )

    @property
    def pid(self) -> int:
        """Return the engine's pid."""
        return self._supervisor.pid

    def wait_ready(self) -> float | None:
        """Wait until the server is ready, and record that.

        Returns:
            Seconds since its start; None when a signal requested a stop.

        Raises:
            ServerError: it ended, was too late, did not answer, or does not use the
                requested GPU.
        """
        from tasks.server import readiness

        spec = self._spec
        record = self.record
        limit = spec.settings.timeout
        try:
            seconds = readiness.wait_ready(
                spec.name,
                self._supervisor,
                record.host,
                record.port,
                limit,
                lambda: self._stop,
            )
        except ServerError as error:
            raise self._with_alternatives(error) from None
        if seconds is None:
            return None
        if spec.require_gpu:
            readiness.check_gpu(spec.name, record.log, keeps_log=not self._temporary)
        if spec.router and not self._wait_kept(limit - seconds):
            return None
        if spec.probe and not self._probe(limit - seconds):
            return None
        # includes the supervisor's start
        seconds = time.monotonic() - self._start
        # the engine has read the key
        server_registry.delete_key(record.path)
        self._supervisor.ready(seconds)
        # another process may have answered for an engine that has ended
        self.check_alive()
        values = (spec.name, record.url, formatting.format_duration(seconds))
        facts: dict[str, Any] = {"model": spec.name, "url": record.url, "pid": self.pid}
        facts |= {"seconds": round(seconds, 3), "log": record.log}
        text = "%s is ready at %s after %s"
        doit_adapter.log_event("server_ready", text, *values, **facts)
        return seconds

    def _with_alternatives(self, error: ServerError) -> ServerError:
        """Add the other engines to the error of an engine that ended by itself."""
        from tasks.engine import failures

        if self._supervisor.exited() is None or self._supervisor.stopped_on_request:
            return error
        platform = self._spec.launch.platform
        ending = self._supervisor.ending()
        others = self._spec.alternatives
        return failures.with_alternatives(error, ending, platform, others)

    def _probe(self, limit: float) -> bool:
        from tasks.server import client

        record = self.record
        try:
            return client.probe_inference(
                self._spec.probed_model,
                record.host,
                record.port,
                record.key,
                limit,
                lambda: self._stop,
                self._spec.launch.kind,
            )
        except ServerError as error:
            deadline = self._start + self._spec.settings.timeout
            no_response = not error.facts
            if no_response and time.monotonic() < deadline:
                self._wait_exit_report(_EXIT_REPORT_S)
            # the error of a crash explains more than the missing answer
            self.check_alive()
            raise

    def _wait_kept(self, limit: float) -> bool:
        """Wait until the models that an endpoint keeps are loaded."""
        from tasks.server import router

        assert self._spec.router
        is_loaded = router.wait_kept(
            self.record,
            self._spec.router.keep,
            limit,
            lambda: self._stop or self._supervisor.exited() is not None,
        )
        if not is_loaded:
            self.check_alive()
        return is_loaded

    def check_not_crashed(self) -> None:
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
        while self._supervisor.exited() is None and time.monotonic() < deadline:
            time.sleep(_POLL_S)

    def check_alive(self) -> None:
        """Check that the supervisor has not reported the engine's end.

        Raises:
            ServerError: it has ended by itself.
        """
        from tasks.engine import failures

        if self._supervisor.exited() is not None:
            what = f"{self._spec.name} ended by itself"
            raise failures.engine_error(
                what, self._supervisor.ending(), self._spec.launch.platform
            )

    def ended_by_stop(self) -> bool:
        """Return whether `doit stop` ended the server."""
        return (
            self._supervisor.exited() is not None
            and self._supervisor.stopped_on_request
        )

    def detach(self) -> None:
        """Let the server run on after doit has ended."""
        self._supervisor.detach()

    def end(self) -> None:
        """End the server and all that it started.

        Raises:
            ServerError: a process of it still runs.
        """
        was_running = (
            self._supervisor.exited() is None or self._supervisor.stopped_on_request
        )
        self._supervisor.stop(lambda: len(self._stop) > 1, self._spec.drain)
        name = self._spec.name
        if not server_registry.kill_marked(self.record.mark):
            what = f"cannot end {name} (pid {self.pid})"
            raise ServerError(what, fix=f"kill -9 -{self.pid}")
        server_registry.delete_record(self.record.path)
        self._folder.close()
        if was_running:
            doit_adapter.log_event("server_stopped", "%s has stopped", name, model=name)


@contextmanager
def serving(
    cache: str, spec: LaunchSpec, mode: Mode, port: int, *, echo: bool = False
) -> Iterator[tuple[ManagedServer | None, list[int]]]:
    """Run a server for a `with` block, and end it with the block.

    Args:
        port: as of `pick_port`.
        echo: show the engine's output.

    Yields:
        The server, ready, and the signals received; no server if a signal came before
        it was ready.
    """
    from tasks.system.signals import handle_signals

    stop: list[int] = []
    with handle_signals(stop.append):
        free = pick_port(cache, spec.settings.host, port)
        server = ManagedServer(cache, spec, mode, free, stop)
        with ExitStack() as stack:
            if echo:
                stack.enter_context(echo_log(spec.name, server.record.log))
            stack.callback(server.end)
            ready = server.wait_ready() is not None
            yield (server if ready else None), stop
