"""mirror.conf in a real nginx before a Hub with TLS: what eight machines cost the Hub.

nginx asks DNS for the names of the Hub and of its CDN, which is another host, when it needs them.
"""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from huggingface_hub import hf_hub_download
from tasks.catalogue.deploy_options import DeployOptions, Mirror
from tasks.deploy import mirror
from tasks.deploy.fleet import Fleet
from tasks.deploy.mirror import Place

from tests.fakes.hub import blob_path
from tests.fakes.hub_site import HubSite
from tests.fakes.llamafile import gguf
from tests.fakes.tls import self_signed
from tests.support.nginx import PROGRAM, needs_nginx
from tests.support.ports import free_port
from tests.support.project import ENGINES, Project, Running, wait_until

pytestmark = [pytest.mark.fleet, pytest.mark.chain, needs_nginx]

MIB = 1024**2
DATA = gguf(24 * MIB)
SLICES = 6  # of 4 MiB
CLIENTS = 8
MAIN = """\
{1} daemon off; worker_processes 2; pid {0}/pid; error_log {0}/error.log warn;
events {{ worker_connections 512; }}
http {{
  access_log {0}/access.log;
  client_body_temp_path {0}/b; proxy_temp_path {0}/p; fastcgi_temp_path {0}/f;
  uwsgi_temp_path {0}/u; scgi_temp_path {0}/s;
  include {0}/mirror.conf;
}}
"""


class NameServer:
    """A DNS server in a thread: every name is 127.0.0.1, and has no other address."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                query, client = self._socket.recvfrom(512)
                end = query.index(0, 12) + 5  # of the question: name, type, class
                is_v4 = query[end - 4 : end - 2] == b"\0\1"
                answer = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\x7f\0\0\1" if is_v4 else b""
                head = query[:2] + b"\x81\x80\0\1" + bytes([0, int(is_v4)]) + b"\0\0\0\0"
                self._socket.sendto(head + query[12:end] + answer, client)

    def close(self) -> None:
        self._socket.close()


class LanMirror:
    """nginx with mirror.conf; `endpoint` is the HF_ENDPOINT of its clients."""

    def __init__(self, folder: Path, site: HubSite, resolver: str, certificate: Path) -> None:
        folder.mkdir()
        self._folder, self._port = folder, free_port()
        self.endpoint = f"http://127.0.0.1:{self._port}"
        options = DeployOptions({}, mirror=Mirror(self.endpoint, resolver, 1))
        upstream = f"https://hub.test:{site.origin.port}"  # a name that DNS alone knows
        place = Place(upstream, str(folder / "cache"), free_port(), "4m", str(certificate))
        text = mirror.files(Fleet((), options), place)["mirror.conf"]
        user = "user root;" if os.geteuid() == 0 else ""  # else the user `nobody`, which cannot write here
        (folder / "mirror.conf").write_text(text)
        (folder / "nginx.conf").write_text(MAIN.format(folder, user))
        self.start()

    def start(self) -> None:
        command = [str(PROGRAM), "-p", str(self._folder), "-c", str(self._folder / "nginx.conf")]
        with (self._folder / "stderr").open("wb") as stderr:
            self._popen = subprocess.Popen(command, stderr=stderr, start_new_session=True)
        wait_until(self._listens)

    def _listens(self) -> bool:
        assert self._popen.poll() is None, (self._folder / "stderr").read_text()
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 1):
            return True
        return False

    def kill(self) -> None:
        """End all its processes at once, as a loss of power does."""
        os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait(30)

    def stop(self) -> None:
        self._popen.terminate()
        self._popen.wait(30)

    def log(self) -> str:
        return (self._folder / "error.log").read_text()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[HubSite]:
    with HubSite(self_signed(tmp_path)) as site:
        yield site


@pytest.fixture
def commit(site: HubSite) -> str:
    """The commit of a model and of a small file."""
    return site.repo("o/r").push({"m.gguf": DATA, "config.json": b"{}"})


@pytest.fixture
def lan(tmp_path: Path, site: HubSite) -> Iterator[LanMirror]:
    names = NameServer()
    lan = LanMirror(tmp_path / "lan", site, names.address, tmp_path / "cert.pem")
    yield lan
    lan.stop()
    names.close()


BLOB = blob_path(hashlib.sha256(DATA).hexdigest())


def cost(site: HubSite) -> float:
    """What the CDN has sent, in sizes of the file."""
    return site.cdn.bytes_sent(BLOB) / len(DATA)


@contextmanager
def clients(project: Project, lan: LanMirror, wave: str, count: int) -> Iterator[list[Running]]:
    """Let so many machines download at once; each has a cache of its own."""
    hub = {"HF_ENDPOINT": lan.endpoint}
    with ExitStack() as stack:
        yield [
            stack.enter_context(project.start("download", env={**hub, "LLAMAFILE_CACHE": cache}))
            for cache in (f"{project.cache}-{wave}{number}" for number in range(count))
        ]


def all_have_it(project: Project, machines: list[Running], wave: str) -> None:
    """Wait until all have downloaded it; the recipe has verified the digests."""
    for number, machine in enumerate(machines):
        result = machine.finish()
        assert result.status == 0, result.err
        [file] = Path(f"{project.cache}-{wave}{number}").glob("models/*/m.gguf")
        assert file.stat().st_size == len(DATA)


@pytest.fixture
def ours(project: Project, commit: str) -> Project:
    """A catalogue with the file, by its commit."""
    url = f"https://huggingface.co/o/r/resolve/{commit}/m.gguf"
    project.catalogue({"m": project.entry(url, DATA, engine="embedded")}, {"embedded": ENGINES["embedded"]})
    return project


def test_eight_cold_machines_cost_one_download(
    ours: Project, site: HubSite, commit: str, lan: LanMirror, tmp_path: Path
) -> None:
    """Each slice is fetched once; a second wave, another program and a dead Hub cost nothing more."""
    with clients(ours, lan, "cold", CLIENTS) as machines:
        all_have_it(ours, machines, "cold")
    assert cost(site) == 1.0
    assert len(site.cdn.asked(BLOB)) == SLICES

    folder = tmp_path / "hf"
    path = hf_hub_download("o/r", "m.gguf", revision=commit, endpoint=lan.endpoint, cache_dir=folder)
    assert Path(path).read_bytes() == DATA
    site.close()
    with clients(ours, lan, "warm", 2) as machines:
        all_have_it(ours, machines, "warm")
    assert cost(site) == 1.0


def test_the_mirror_is_killed(ours: Project, site: HubSite, lan: LanMirror) -> None:
    """The clients go on by themselves; only the slices that were under way are fetched again."""
    site.cdn.set_rate(BLOB, 20 * MIB, shared=True)
    with clients(ours, lan, "cut", 3) as machines:
        site.cdn.wait_sent(BLOB, len(DATA) * 2 // 5)
        lan.kill()
        lan.start()
        all_have_it(ours, machines, "cut")
    under_way = site.cdn.most_at_once[BLOB]
    assert 1.0 <= cost(site) <= 1 + under_way / SLICES


def test_what_is_not_kept(site: HubSite, commit: str, lan: LanMirror) -> None:
    """A branch may move, and a token must not open a gated model to everyone."""
    site.repo("o/gated", gated="auto").push({"m.gguf": DATA})
    for _ in range(2):
        with urllib.request.urlopen(f"{lan.endpoint}/o/r/resolve/main/config.json", timeout=30) as answer:
            assert (answer.read(), answer.headers["X-Cache-Status"]) == (b"{}", "BYPASS")
    asked = urllib.request.Request(f"{lan.endpoint}/o/gated/resolve/main/m.gguf")
    asked.add_header("Authorization", "Bearer hf_x")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(asked, timeout=30)
    [request] = site.origin.asked("/o/gated/resolve/main/m.gguf")
    assert request.headers["Authorization"] is None
