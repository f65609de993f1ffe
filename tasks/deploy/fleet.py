"""What is deployed: the models as models.lock pins them, and where. Pure.

An endpoint is deployed like a model, with the files of all its models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tasks.catalogue.artifact import total_size
from tasks.catalogue.deploy_options import DeployOptions
from tasks.catalogue.scrape_target import Scraped
from tasks.errors import UsageError
from tasks.urls import is_loopback

Files = Mapping[str, str]  # path below deploy/ → text

HEADER = (
    "Written by `doit deploy` from models.yaml and models.lock; commit it, do not "
    "edit it."
)
CLONE = "/opt/llamafile-recipe"  # on every machine and in the image
CACHE = "/cache"  # in the image
PORT = 8080  # in a container
USER = 1000  # in a container, and its group
_ENDINGS = ("-verify", "-pods", "-prefetch")  # of names beside a model's
SETTLE = 5  # seconds until a balancer sends no more requests to a pod that ends
_GRACE = 10  # seconds to end after the last answer


class PinnedFile(NamedTuple):
    """One file of a model."""

    name: str
    sha256: str
    size: int | None  # bytes; None: models.lock does not have it
    folder: str = ""  # below the cache


class DeployedModel(NamedTuple):
    """One model or endpoint with everything that the files say about it."""

    name: str
    title: str
    license: str
    files: tuple[PinnedFile, ...]
    variant: str = ""
    replicas: int = 1
    max_replicas: int | None = None
    port: int = PORT  # of the first server of a machine
    balance: int | None = None  # port of the balancer
    gpus: int | None = None
    timeout: int = 600  # seconds until a server must be ready
    parallel: int = 1  # requests at once
    memory: int | None = None  # bytes that an engine takes; None: not known
    metrics: bool = False
    slow: int = 5  # tokens per second; Prometheus reports fewer
    engine: str = ""
    version: str = ""  # of the engine; empty where the machine decides
    members: tuple[Scraped, ...] = ()  # models of an endpoint
    model_image: str = ""  # by `doit image`; without one, pods download the files

    @property
    def is_endpoint(self) -> bool:
        """Whether several models are served on one port."""
        return bool(self.members)

    @property
    def sha256(self) -> str:
        """The digest of the file that is served; of an endpoint, those of all files."""
        if self.is_endpoint:
            return " ".join(file.sha256 for file in self.files)
        return self.files[0].sha256

    @property
    def size(self) -> int | None:
        """Bytes of all files; None if the size of any is not known."""
        return total_size(file.size for file in self.files)

    @property
    def ports(self) -> tuple[int, ...]:
        """The ports of the servers of one machine."""
        return tuple(range(self.port, self.port + self.replicas))

    @property
    def servers(self) -> tuple[str, ...]:
        """The names of the servers of one machine."""
        return tuple(f"{self.name}-{port}" for port in self.ports)

    def words(self, verb: str) -> list[str]:
        """Return the arguments of `doit` for a verb: no question, only pinned bytes."""
        variant = ["--variant", self.variant] if self.variant else []
        return [verb, "--model", self.name, *variant, "--frozen", "--yes"]

    def labels(self) -> dict[str, str]:
        """Return what says which bytes are served, in every file that names them."""
        facts = {"model": self.name, "sha256": self.sha256, "license": self.license}
        if self.size is not None:
            facts["size"] = str(self.size)
        return {f"llamafile-recipe/{key}": value for key, value in facts.items()}


class Fleet(NamedTuple):
    """Everything that the files depend on, and nothing of this machine."""

    models: tuple[DeployedModel, ...]
    options: DeployOptions
    programs: tuple[str, ...] = ()  # engines that a machine has to have itself
    secrets: tuple[str, ...] = ()  # variables that `auth:` names, for downloads

    @property
    def image(self) -> str:
        """The image of all containers."""
        return self.options.image or ""

    @property
    def grace(self) -> int:
        """Seconds from SIGTERM to SIGKILL."""
        return self.options.drain + _GRACE

    @property
    def endpoint(self) -> dict[str, str]:
        """The variable that leads downloads to the mirror; empty without one."""
        if self.options.mirror is None:
            return {}
        return {"HF_ENDPOINT": self.options.mirror.url}

    @property
    def host(self) -> str:
        """The address that the servers of a machine listen on."""
        if all(map(is_loopback, self.options.hosts)):
            return "127.0.0.1"
        return "0.0.0.0"


def dns_labels(names: list[str]) -> dict[str, str]:
    """Return each model's name as Kubernetes and Compose accept it.

    At most 40 characters: Kubernetes adds to them, up to 63.

    Raises:
        UsageError: two models would have the same, also with what the files add.
    """
    labels: dict[str, str] = {}
    owners: dict[str, str] = {}
    for name in names:
        label = "".join(c if c.isalnum() else "-" for c in name.lower())
        if not label[0].isalpha():
            label = f"m-{label}"
        label = label[:40].rstrip("-")
        for ending in ("", *_ENDINGS):
            other = owners.setdefault(label + ending, name)
            if other != name:
                what = f"{other} and {name} are both {label}{ending} in the files"
                raise UsageError(what, fix=f"rename one of them: {other}, {name}")
        labels[name] = label
    return labels
