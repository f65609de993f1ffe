"""Take servers out of nginx and put them back, in a file of its configuration.

nginx has no command for this: a server gets the parameter `down`, and nginx reads its
configuration again. Workers of the earlier configuration end with their last answer.
"""

from __future__ import annotations

import os
import re
import signal
import stat
import time
from collections.abc import Container
from typing import TYPE_CHECKING, NamedTuple

from tasks.console import formatting
from tasks.errors import ServerError
from tasks.system import files
from tasks.system.ports import local_hosts

if TYPE_CHECKING:
    import psutil

PID_FILE = "/run/nginx.pid"
_HUP = getattr(signal, "SIGHUP", 0)  # Windows has none
_POLL_S = 0.1
_READ_S = 30.0  # until nginx has read its configuration, and started workers
_SERVER = re.compile(
    r"^([ \t]*server[ \t]+(\[?([^\s;{}#\[\]]+)\]?:(\d{1,5})))"
    r"((?:[ \t]+[^\s;{}#]+)*)[ \t]*;",
    re.MULTILINE,
)


class Member(NamedTuple):
    """One `server` of an upstream."""

    title: str  # its address and port
    port: int
    host: str


def parse_members(text: str) -> list[Member]:
    """Return the servers of a configuration file that begin a line."""
    found = _SERVER.finditer(text)
    return [Member(one[2], int(one[4]), one[3]) for one in found]


def _on_port(members: list[Member], port: int) -> list[Member]:
    """Return those on a port of this machine."""
    found = [member for member in members if member.port == port]
    hosts = local_hosts(member.host for member in found)
    return [member for member in found if member.host in hosts]


def with_state(text: str, titles: Container[str], *, down: bool) -> str:
    """Return a configuration file in which these servers are down, or not."""

    def changed(found: re.Match[str]) -> str:
        if found[2] not in titles:
            return found[0]
        words = [word for word in found[5].split() if word != "down"]
        if down:
            words.append("down")
        return f"{' '.join([found[1], *words])};"

    return _SERVER.sub(changed, text)


class Nginx:
    """An nginx of this machine.

    Args:
        path: of the file with the servers.
        pid_file: of its master process.
        limit_s: most seconds for the answers of workers.
    """

    name = "nginx"

    def __init__(self, path: str, pid_file: str, limit_s: float) -> None:
        self._path = path
        self._pid_file = pid_file
        self._limit_s = limit_s

    def members(self, port: int) -> list[Member]:
        """Return the servers on a port of this machine.

        Raises:
            ServerError: the file has no such server, or nginx cannot be told.
        """
        known = parse_members(self._text())
        found = _on_port(known, port)
        if not found:
            what = f"{self._path} has no server on port {port} of this machine"
            titles = ", ".join(one.title for one in known)
            fix = "add a line `server 127.0.0.1:PORT;` to its upstream"
            raise ServerError(what, [("servers", titles)], fix=fix)
        if not os.access(os.path.dirname(os.path.realpath(self._path)), os.W_OK):
            what = f"this user may not write {self._path}"
            raise ServerError(what, fix="run it as the user that nginx belongs to")
        self._signal(0)
        return found

    def drain(self, port: int, limit_s: float) -> None:
        """Send no new request to the servers on a port, and wait for the last answer.

        Raises:
            ServerError: a worker of before still has requests after the time, or nginx
                does not read the file; the servers take requests again.
        """
        done = False
        try:
            self._set_state(port, down=True)
            done = self._reload(limit_s)
        finally:  # also after a signal
            if not done:
                self.put_back(port, wait=False)
        if not done:
            most = formatting.format_duration(limit_s)
            what = f"nginx still has requests of before after {most}; "
            what += f"port {port} was not stopped"
            raise ServerError(what, fix="allow more time with --wait SECONDS")

    def put_back(self, port: int, *, wait: bool = True) -> None:
        """Send requests to the servers on a port again.

        Args:
            wait: until no worker has the earlier configuration, or the time is over.

        Raises:
            ServerError: nginx does not read the file.
        """
        self._set_state(port, down=False)
        if wait:
            self._reload(self._limit_s)
        else:
            self._signal(_HUP)

    def _reload(self, limit_s: float) -> bool:
        """Let nginx read its configuration; return whether all earlier workers ended.

        Raises:
            ServerError: it starts no workers.
        """
        before = self._workers()
        self._signal(_HUP)
        deadline = time.monotonic() + _READ_S
        while not self._workers() - before:
            if time.monotonic() >= deadline:
                most = formatting.format_duration(_READ_S)
                what = f"nginx has not read its configuration again after {most}"
                raise ServerError(what, fix="see `nginx -t`, and its error log")
            time.sleep(_POLL_S)
        deadline = time.monotonic() + limit_s
        while self._workers() & before:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def _workers(self) -> set[psutil.Process]:
        return set(self._master().children())

    def _master(self) -> psutil.Process:
        """Return the master process.

        Raises:
            ServerError: it does not run, or its pid is that of another program.
        """
        import psutil

        try:
            with open(self._pid_file, encoding="ascii") as file:
                master = psutil.Process(int(file.read(16)))
            if _HUP and master.name() == "nginx":
                return master
        except (OSError, ValueError, psutil.Error):
            pass
        what = f"no nginx runs with the pid file {self._pid_file}"
        fix = "--nginx-pid FILE of `pid` in its configuration; not on Windows"
        raise ServerError(what, fix=fix)

    def _text(self) -> str:
        try:
            with open(self._path, encoding="utf-8", newline="") as file:
                return file.read()
        except OSError as error:
            what = f"cannot read {self._path}: {error.strerror}"
        except UnicodeDecodeError:
            what = f"{self._path} is not a text file"
        fix = "--nginx FILE of the `server` lines that nginx includes"
        raise ServerError(what, fix=fix)

    def _set_state(self, port: int, *, down: bool) -> None:
        before = self._text()
        members = _on_port(parse_members(before), port)
        titles = {member.title for member in members}
        text = with_state(before, titles, down=down)
        if text == before:
            return
        try:
            path = os.path.realpath(self._path)
            mode = stat.S_IMODE(os.stat(path).st_mode)
            files.write_atomic(path, text, mode=mode)
        except OSError as error:
            what = f"cannot write {self._path}: {error.strerror}"
            fix = "run it as the user that nginx belongs to"
            raise ServerError(what, fix=fix) from None

    def _signal(self, number: int) -> None:
        """Send a signal to the master process; 0 only checks.

        Raises:
            ServerError: it does not run, or this user may not.
        """
        master = self._master()
        try:
            os.kill(master.pid, number)
        except OSError as error:
            what = f"cannot signal nginx (pid {master.pid}): {error.strerror}"
            fix = "run it as the user that nginx belongs to"
            raise ServerError(what, fix=fix) from None
