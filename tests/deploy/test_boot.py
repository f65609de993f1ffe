"""A booted systemd runs what docs/fleet.md does on a machine: three servers, haproxy, a rolling restart.

The machine is systemd-nspawn with /usr of this one and nothing else of it: no image, no network. Alone on two
processors it takes 30 s.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.test_engines import program
from tests.support.project import REPO, Project

pytestmark = [pytest.mark.fleet, pytest.mark.chain]

CLONE = "/opt/llamafile-recipe"
LIMIT_S = 300
# the blocks of the page, by their first words
BLOCKS = {
    "servers.sh": "install -d /etc/llamafile-recipe",
    "balancer.sh": "install -m 644 deploy/haproxy.cfg",
    "roll.sh": 'echo "set server',
}


def clone(project: Project) -> Path:
    """Return the project with the files of the page's section, and a virtual environment in .venv."""
    page = (REPO / "docs" / "fleet.md").read_text("utf-8")
    [section] = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    path = project.path / "models.yaml"
    path.write_text(path.read_text("utf-8") + section, "utf-8")
    shutil.copy2(REPO / "models.lock", project.path)
    result = project.doit("deploy")
    assert result.status == 0, result.err
    # the project of a test has links to this repository
    for folder in ("tasks", "demo"):
        shutil.rmtree(project.path / folder)
        shutil.copytree(REPO / folder, project.path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    programs = project.path / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs.parent / "lib").mkdir()
    shutil.copy2(Path(sys.prefix, "pyvenv.cfg"), programs.parent)
    (programs / "python").symlink_to(os.path.realpath(sys.executable))
    script = f"#!{CLONE}/.venv/bin/python\nfrom doit.__main__ import main\nraise SystemExit(main())\n"
    (programs / "doit").write_text(script)
    (programs / "doit").chmod(0o755)
    return project.path


def write_scripts(folder: Path) -> None:
    """Write boot.sh, and the blocks of docs/fleet.md that it runs."""
    folder.mkdir()
    shutil.copy2(REPO / "tests" / "deploy" / "boot.sh", folder)
    page = (REPO / "docs" / "fleet.md").read_text("utf-8")
    blocks = re.findall(r"^```console\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    for name, start in BLOCKS.items():
        [block] = [one for one in blocks if one.startswith(start)]
        (folder / name).write_text(block)
    # the Python of this machine may be in a home directory, which the unit does not see
    unit = f"[Service]\nProtectHome=tmpfs\nBindReadOnlyPaths={sys.base_prefix}\n"
    (folder / "python.conf").write_text(unit)


def test_a_machine_of_the_page(project: Project, tmp_path: Path) -> None:
    """Ready only when ready, restarted after kill -9, no request lost, the last answer ended, no rights."""
    nspawn = program("systemd-nspawn", "systemd-container")
    program("haproxy", "haproxy")
    program("socat", "socat")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs root with CAP_SYS_ADMIN, for systemd-nspawn")
    folder = tmp_path / "t"
    write_scripts(folder)
    command = [
        nspawn, "--quiet", "--directory=/", "--volatile=yes", "--register=no", "--keep-unit",
        "--private-network", "--link-journal=no", f"--bind={folder}:/t",
        f"--bind-ro={clone(project)}:{CLONE}", f"--bind-ro={sys.prefix}/lib:{CLONE}/.venv/lib",
        f"--bind-ro={sys.base_prefix}", "--boot", "systemd.firstboot=off",
        "systemd.mask=systemd-networkd.service", "systemd.mask=systemd-networkd-wait-online.service",
        "systemd.run=/t/boot.sh", "systemd.run_success_action=exit", "systemd.run_failure_action=exit",
    ]  # fmt: skip
    environ = {**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
    with open(folder / "console", "wb") as console:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=console, stderr=console, env=environ,
            timeout=LIMIT_S, check=False,
        )  # fmt: skip
    said = "\n".join(
        path.read_text("utf-8", "replace")[-4000:] for path in folder.iterdir() if path.is_file()
    )
    assert done.returncode == 0, said
    facts = dict(line.split("=", 1) for line in (folder / "facts").read_text().splitlines())
    assert int(facts.pop("uid")) >= 61184, said  # the first one of dynamic users
    assert facts == {
        "ready": "200 200 200", "restarted": "200", "lost": "0", "stopped": "success inactive 0",
        "failed": "0", "processes": "0",
    }, said  # fmt: skip
    assert (folder / "asked").read_text() != ""
    assert (folder / "stream").read_text().endswith("data: [DONE]\n\n")
