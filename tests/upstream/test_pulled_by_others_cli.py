"""What `doit push` and `doit image` publish, as skopeo, the oras client and podman pull it: byte for byte."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.fakes import llamafile
from tests.support.docker_registry import DockerRegistry, needs_docker_registry
from tests.support.project import ENGINES, Project

pytestmark = [pytest.mark.fleet, needs_docker_registry]
FILES = {"tiny.gguf": llamafile.gguf(300_000), "chat.jinja": b"{{ messages }}"}
DIGESTS = {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}


class Published(NamedTuple):
    """A model in a registry, as ModelPack with the tag v1 and as an image with the tag i1."""

    place: str
    digest: str  # of the ModelPack's manifest


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    folder = tmp_path_factory.mktemp("published")
    project = Project(folder)
    for name, data in FILES.items():
        (project.path / name).write_bytes(data)
    template = {"url": "./chat.jinja", "sha256": DIGESTS["chat.jinja"]}
    entry = project.entry("./tiny.gguf", FILES["tiny.gguf"], engine="embedded", template=template)
    project.catalogue({"m": entry}, {"embedded": ENGINES["embedded"]})
    assert project.doit("download:m").status == 0
    with DockerRegistry(folder / "registry") as registry:
        place = f"{registry.host}/team/tiny"
        pushed = project.doit("push", "m", f"oci://{place}:v1", "--json")
        assert pushed.status == 0, pushed.err
        result = project.doit("image", "m", f"oci://{place}:i1")
        assert result.status == 0, result.err
        yield Published(place, json.loads(pushed.out)["digest"])


def digests_in(folder: Path) -> dict[str, str]:
    """Return file name → SHA-256."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed (apt)")
def test_skopeo_copies_it(published: Published, tmp_path: Path) -> None:
    """Manifest and files."""
    source = f"docker://{published.place}:v1"
    target = tmp_path / "copy"
    command = ["skopeo", "copy", "--src-tls-verify=false", source, f"dir:{target}"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    found = digests_in(target)
    assert found["manifest.json"] == published.digest.removeprefix("sha256:")
    assert [found[digest] for digest in DIGESTS.values()] == list(DIGESTS.values())


def test_oras_pulls_it(published: Published, tmp_path: Path) -> None:
    """The files have their names."""
    client: Any = pytest.importorskip("oras.client", reason="oras is not installed (pip)")
    oras = client.OrasClient(hostname=published.place.partition("/")[0], insecure=True)
    oras.pull(target=f"{published.place}:v1", outdir=str(tmp_path / "files"))
    assert digests_in(tmp_path / "files") == DIGESTS


# In namespaces of its own, so that nothing is left: conmon stays otherwise. The container has one program and
# its libraries. Source: containers.conf(5); limits that are below those of a CI machine, where none is raised
MOUNTED = """
set -eu
IMAGE=$1
mount -t tmpfs none /mnt
cd /mnt
mkdir -p root/usr/bin root/m root/proc root/dev root/sys root/etc root/run root/tmp
cp "$(readlink -f /usr/bin/sha256sum)" root/usr/bin/sha256sum
ldd /usr/bin/sha256sum | grep -o '/[^ ]*' | while read -r file; do
  mkdir -p "root$(dirname "$file")"; cp -L "$file" "root$file"
done
cat > containers.conf <<END
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
END
export CONTAINERS_CONF=/mnt/containers.conf
alone() { podman --root /mnt/storage --runroot /mnt/run --storage-driver=vfs --tmpdir /mnt/tmp "$@"; }
alone pull -q --tls-verify=false "$IMAGE" >&2
mount="type=image,source=$IMAGE,destination=/m"
alone run --rm --network=none --log-driver=none --mount "$mount" --rootfs /mnt/root \
  /usr/bin/sha256sum /m/tiny.gguf /m/chat.jinja
"""
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"
LACKING = [name for name in ("podman", "runc", "unshare") if shutil.which(name, path=PATH) is None]


@pytest.mark.skipif(bool(LACKING), reason=f"{', '.join(LACKING)} not installed (apt: podman runc)")
@pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() != 0, reason="needs root")
def test_podman_mounts_the_image(published: Published) -> None:
    """`--mount type=image`, as the volumes of Kubernetes that are images."""
    own = ["unshare", "-mpf", "--propagation", "private", "--mount-proc"]
    command = [*own, "bash", "-c", MOUNTED, "bash", f"{published.place}:i1"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=90)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == [
        word for name, digest in DIGESTS.items() for word in (digest, f"/m/{name}")
    ]
