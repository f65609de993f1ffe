"""The engines themselves read what `doit deploy` writes, and refuse it with one wrong word in it."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.llamafile import gguf
from tests.support.project import ENGINES, Project

pytestmark = [pytest.mark.fleet, pytest.mark.chain]

DATA = gguf(5000)
SERVE = {"metrics": True, "parallel": 2}
TITLE = 'A "model" of $HOME, 50 % \\\nand # more'
DEPLOY = {
    "models": {
        "chat-1.5b": {"replicas": 2, "max_replicas": 4, "balance": 9000},
        "sees": {"port": 8090, "gpus": 1, "balance": 9001},
    },
    "image": "registry.example.org/recipe:1",
    "mirror": {"url": "http://mirror.lan:8080", "resolver": "192.0.2.53"},
}
PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/lib/podman:/usr/libexec/podman"


def program(name: str, package: str) -> str:
    """Return the path of a program; skip the test, and name the package, without it."""
    found = shutil.which(name) or shutil.which(name, path=PATH)
    if not found:
        pytest.skip(f"needs {name}: apt-get install {package}")
    return found


@pytest.fixture
def deployed(project: Project) -> Callable[..., Path]:
    """Write the files of a kind; return their directory."""

    def write(kind: str, **more: object) -> Path:
        entry = project.entry("https://example.org/m.gguf", DATA, engine="embedded", serve=SERVE, title=TITLE)
        models = {"chat-1.5b": entry, "sees": {**entry, "license": 'Own "licence" $X %n'}}
        engines = {"embedded": ENGINES["embedded"]}
        project.catalogue(models, engines, deploy={**DEPLOY, **more})
        assert project.doit("lock").status == 0
        result = project.doit(f"deploy:{kind}")
        assert result.status == 0, result.err
        return project.path / "deploy"

    return write


def run(*command: str, cwd: Path) -> tuple[int, str]:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout + done.stderr


def accepts(path: Path, right: str, wrong: str, *command: str) -> None:
    """Check that a program accepts a file, and that it refuses it with a wrong word."""
    status, said = run(*command, cwd=path.parent)
    assert status == 0, said
    text = path.read_text()
    assert right in text
    path.write_text(text.replace(right, wrong, 1))
    status, _ = run(*command, cwd=path.parent)
    assert status != 0


def test_haproxy(deployed: Callable[..., Path]) -> None:
    path = deployed("balancer", hosts=["n1.example", "fd00::2"]) / "haproxy.cfg"
    text = path.read_text().replace("n1.example:", "127.0.0.2:")  # no DNS in a test
    path.write_text(text)
    accepts(
        path, "balance leastconn", "balance leastcon", program("haproxy", "haproxy"), "-c", "-f", str(path)
    )


@pytest.mark.parametrize(("version", "folder"), [("1.31", None), ("1.35", "/srv/cache"), ("1.37", None)])
def test_kubernetes(deployed: Callable[..., Path], version: str, folder: str | None) -> None:
    """The schemas of a version, without keys that they do not know."""
    if importlib.util.find_spec("kubernetes_validate") is None:
        pytest.skip("needs kubernetes-validate: pip install '.[fleet]'")
    path = deployed("kubernetes", node_cache=folder) / "kubernetes.yaml"
    program = "import sys; from kubernetes_validate.__main__ import main; sys.exit(main())"
    command = (sys.executable, "-c", program, "-k", version, "--strict", str(path))
    accepts(path, "failureThreshold", "failureTreshold", *command)
    if not folder:
        mounted = {"models": {"chat-1.5b": {"model_image": "registry.example.org/chat:1"}}}
        accepts(deployed("kubernetes", **mounted) / "kubernetes.yaml", "reference:", "referenze:", *command)


def test_compose(deployed: Callable[..., Path]) -> None:
    """docker-compose needs no daemon for it; 1.29 does not know the name of a project."""
    path = deployed("compose") / "compose.yaml"
    path.write_text(path.read_text().replace("name: llamafile-recipe\n", "", 1))
    command = program("docker-compose", "docker-compose")
    status, said = run(command, "-f", str(path), "config", cwd=path.parent)
    assert status == 0, said
    assert 'Own "licence" $$X %n' in said
    accepts(path, "cap_drop", "cap_dorp", command, "-f", str(path), "config", "-q")


def test_systemd(deployed: Callable[..., Path]) -> None:
    """With a program that exists here in place of the clone's."""
    folder = deployed("systemd") / "systemd"
    path = folder / "llamafile-recipe@.service"
    path.write_text(path.read_text().replace("/opt/llamafile-recipe/.venv/bin/doit", sys.executable))
    command = (program("systemd-analyze", "systemd"), "verify", "--recursive-errors=yes")
    accepts(path, "KillMode", "KilMode", *command, str(folder / "llamafile-recipe@chat-1.5b-8080.service"))


def test_prometheus(deployed: Callable[..., Path]) -> None:
    """Configuration, targets and rules."""
    path = deployed("prometheus") / "prometheus" / "rules.yaml"
    command = program("promtool", "prometheus")
    status, said = run(command, "check", "rules", "rules.yaml", cwd=path.parent)
    assert (status, "5 rules found" in said) == (0, True), said
    accepts(path, "llamacpp:requests_processing +", "llamacpp:requests_processing ) +", command,
            "check", "config", "prometheus.yaml")  # fmt: skip


def test_quadlet(deployed: Callable[..., Path]) -> None:
    """podman's generator, which needs no running systemd."""
    quadlet = program("quadlet", "podman, of 5 or newer")
    folder = deployed("quadlet") / "quadlet"
    path = folder / "sees-8090.container"
    command = ("env", f"QUADLET_UNIT_DIRS={folder}", quadlet, "-dryrun")
    accepts(path, "PublishPort", "PublisPort", *command)
