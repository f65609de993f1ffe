"""What each kind of files says, as the engine that reads it sees it."""

from __future__ import annotations

import configparser
import json
import re
from typing import Any

import pytest
import yaml
from tasks.catalogue.deploy_options import DeployOptions, Mirror
from tasks.catalogue.scrape_target import Scraped
from tasks.deploy import balancer, compose, container, kubernetes, mirror, prometheus, quadlet, systemd
from tasks.deploy.fleet import HEADER, DeployedModel, Files, Fleet, PinnedFile
from tasks.deploy.kinds import KINDS, files_of, stale
from tasks.errors import UsageError
from tasks.options import DEPLOYED

pytestmark = pytest.mark.once
A64, B64, C64 = "a" * 64, "b" * 64, "c" * 64
GIB = 1024**3
HOSTILE = 'T "x" $HOME %i \\\nInjected: [ # '

CHAT = DeployedModel(
    "chat-1.5b", "Chat", "MIT", (PinnedFile("chat.gguf", A64, 5 * GIB),),
    replicas=2, balance=9000, metrics=True, parallel=4, memory=6 * GIB, timeout=601,
    engine="embedded", version="7",
)  # fmt: skip
SEES = DeployedModel(
    "sees", "Sees", 'Own "licence" %n', (PinnedFile("s.gguf", B64, 10), PinnedFile("p.gguf", C64, None)),
    variant="q4", port=8090, gpus=1, memory=2 * GIB,
)  # fmt: skip
MIRROR = Mirror("http://mirror.lan:8080", "192.0.2.53", 100)
OPTIONS = DeployOptions({}, image="r.example/lr:1", drain=60, mirror=MIRROR)
FLEET = Fleet((CHAT, SEES), OPTIONS)


def with_options(**changes: Any) -> Fleet:
    return FLEET._replace(options=DeployOptions(**{**vars(OPTIONS), **changes}))


def documents(files: Files) -> list[Any]:
    [text] = files.values()
    return list(yaml.safe_load_all(text))


def objects(fleet: Fleet) -> dict[str, Any]:
    """The objects of kubernetes.yaml by kind and name."""
    return {f"{one['kind']}/{one['metadata']['name']}": one for one in documents(kubernetes.files(fleet))}


def unit(text: str) -> dict[str, dict[str, str]]:
    """A unit; keys that occur twice have their last value."""
    parser = configparser.RawConfigParser(strict=False, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return {section: dict(parser[section]) for section in parser.sections()}


def test_kinds_are_those_of_the_verb() -> None:
    """`doit deploy:KIND` knows them without importing the package."""
    assert list(KINDS) == list(DEPLOYED)


NEEDS = [  # kind, what it needs, the options without it
    ("kubernetes", "`image:` in deploy", {"image": None}),
    ("compose", "`image:` in deploy", {"image": None}),
    ("quadlet", "`image:` in deploy", {"image": None}),
    ("mirror", "`mirror:` in deploy", {"mirror": None}),
]


@pytest.mark.parametrize(("kind", "needs", "options"), NEEDS)
def test_a_kind_without_what_it_needs(kind: str, needs: str, options: dict[str, Any]) -> None:
    """By name it is an error; without a name it is not written."""
    without = with_options(**options)
    with pytest.raises(UsageError, match=re.escape(f"`doit deploy:{kind}` needs {needs}\n  fix: add it")):
        files_of(without, kind)
    assert not set(files_of(FLEET, kind)) & set(files_of(without))


def test_models_without_metrics_or_balance() -> None:
    """Neither Prometheus nor haproxy have anything to do."""
    fleet = FLEET._replace(models=(SEES,))
    for kind in ("balancer", "prometheus"):
        with pytest.raises(UsageError, match=f"`doit deploy:{kind}` needs"):
            files_of(fleet, kind)
    assert {"haproxy.cfg", "prometheus/rules.yaml"} <= set(files_of(FLEET)) - set(files_of(fleet))


def test_a_changed_digest_changes_what_names_the_model() -> None:
    """And no other file: those that name it have its digest."""
    other = FLEET._replace(models=(CHAT, SEES._replace(files=(PinnedFile("s.gguf", A64, 10),))))
    before, after = files_of(FLEET), files_of(other)
    changed = {path for path in before if before[path] != after[path]}
    assert changed == {path for path, text in before.items() if B64 in text}
    assert changed == {
        "kubernetes.yaml", "compose.yaml", "systemd/sees-8090.env",
        "quadlet/sees-verify.container", "quadlet/sees-8090.container",
    }  # fmt: skip


def test_every_file_says_who_wrote_it() -> None:
    """So that one which no model needs any more is found, and no other file is."""
    texts = files_of(FLEET)
    first = {path: text.partition("\n")[0] for path, text in texts.items()}
    assert first.pop("prometheus/dashboard.json") == f'{{"description": "{HEADER}",'
    assert set(first.values()) == {f"# {HEADER}"}
    old = {"old.json": f'{{"description": "{HEADER}",'}
    found = {**first, **old, "old.env": f"# {HEADER}", "own.env": "# mine", "empty": ""}
    assert stale(texts, found, HEADER) == ["old.env", "old.json"]


@pytest.mark.parametrize("kind", ["quadlet", "systemd", "balancer"])
def test_a_hostile_title_or_licence_adds_no_line(kind: str) -> None:
    """Not as a directive of any engine; YAML has its own test (test_escape.py)."""
    bad = CHAT._replace(title=HOSTILE, license=HOSTILE)
    good = CHAT._replace(title="T", license="T")
    lines, others = (
        [len(text.splitlines()) for text in files_of(FLEET._replace(models=(one,)), kind).values()]
        for one in (bad, good)
    )
    assert lines == others
    for text in files_of(FLEET._replace(models=(bad,)), kind).values():
        assert not re.search(r"^\W*Injected", text, re.MULTILINE)


def test_variables_of_auth_reach_downloads_alone() -> None:
    """Their names are in the files, and no values: a Secret, or the shell, has them."""
    fleet = FLEET._replace(secrets=("REGISTRY_PASSWORD",))
    reference = {"name": "llamafile-recipe-auth", "key": "REGISTRY_PASSWORD", "optional": True}
    wanted = {"name": "REGISTRY_PASSWORD", "valueFrom": {"secretKeyRef": reference}}
    pod = objects(fleet)["StatefulSet/chat-1-5b"]["spec"]["template"]["spec"]
    assert wanted in pod["initContainers"][0]["env"]
    assert wanted not in pod["containers"][0]["env"]
    [text] = compose.files(fleet).values()
    services = yaml.safe_load(text)["services"].values()
    given = ["REGISTRY_PASSWORD" in service.get("environment", {}) for service in services]
    assert any(given)
    assert given == ["verify" in service["command"] for service in services]


# ---- Kubernetes


def test_pods_verify_then_serve() -> None:
    """The server gets the verified files read-only, and no network for them."""
    pod = objects(FLEET)["StatefulSet/chat-1-5b"]["spec"]["template"]["spec"]
    [verify], [server] = pod["initContainers"], pod["containers"]
    assert verify["args"] == ["verify", "--model", "chat-1.5b", "--frozen", "--yes"]
    assert {"name": "HF_ENDPOINT", "value": "http://mirror.lan:8080"} in verify["env"]
    assert {"name": "LLAMAFILE_OFFLINE", "value": "1"} in server["env"]
    assert server["args"][-6:] == ["--host", "0.0.0.0", "--port", "8080", "--drain", "60"]
    assert "readOnly" not in verify["volumeMounts"][0]
    assert server["volumeMounts"][0] == {"name": "cache", "mountPath": "/cache", "readOnly": True}


def test_pods_are_restricted() -> None:
    """As the Pod Security Standard `restricted` wants it, and with a read-only root."""
    for one in objects(with_options(node_cache="/srv/cache")).values():
        pod = one["spec"].get("template", {}).get("spec")
        if pod is None:
            continue
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for each in (*pod["initContainers"], *pod["containers"]):
            assert each["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_probes_and_the_end() -> None:
    """Half the timeout, rounded up, in probes of 2 s; all waits fit into the grace period."""
    pod = objects(FLEET)["StatefulSet/chat-1-5b"]["spec"]["template"]["spec"]
    [server] = pod["containers"]
    assert (server["startupProbe"]["failureThreshold"], server["startupProbe"]["periodSeconds"]) == (301, 2)
    assert server["readinessProbe"]["exec"] == server["livenessProbe"]["exec"]
    [*_, stop] = server["lifecycle"]["preStop"]["exec"]["command"]
    assert stop == "sleep 5; exec /opt/llamafile-recipe/.venv/bin/doit idle --model chat-1.5b --timeout 60"
    assert pod["terminationGracePeriodSeconds"] > 5 + 60


def test_what_is_known_of_a_model() -> None:
    """Memory, GPUs, digests, sizes and licence; an unknown size is not stated."""
    found = objects(FLEET)
    chat = found["StatefulSet/chat-1-5b"]["spec"]
    assert chat["template"]["spec"]["containers"][0]["resources"] == {"requests": {"memory": "6272Mi"}}
    assert chat["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"] == "7Gi"
    assert chat["template"]["metadata"]["annotations"] == {
        "llamafile-recipe/model": "chat-1.5b",
        "llamafile-recipe/sha256": A64,
        "llamafile-recipe/license": "MIT",
        "llamafile-recipe/size": str(5 * GIB),
        "llamafile-recipe/files": f"{A64}  chat.gguf\n",
    }
    on_nodes = objects(with_options(node_cache="/srv/cache"))["Deployment/sees"]["spec"]["template"]
    assert on_nodes["spec"]["containers"][0]["resources"] == {
        "requests": {"memory": "2176Mi"},
        "limits": {"nvidia.com/gpu": 1},
    }
    assert "llamafile-recipe/size" not in on_nodes["metadata"]["annotations"]
    assert on_nodes["metadata"]["annotations"]["llamafile-recipe/files"] == f"{B64}  s.gguf\n{C64}  p.gguf\n"


def test_a_volume_needs_a_size() -> None:
    """Of the files, or as much as the memory; without both it is an error."""
    unknown = SEES._replace(memory=None)
    with pytest.raises(UsageError, match="the size of sees is not known") as caught:
        kubernetes.files(FLEET._replace(models=(unknown,)))
    assert caught.value.fix == "doit lock --upgrade --model sees, or `node_cache:` in deploy"


def test_a_directory_of_each_node() -> None:
    """A Deployment uses it, a DaemonSet fills it; the Service selects only the servers."""
    found = objects(with_options(node_cache="/srv/cache"))
    assert {name for name in found if name.endswith(("chat-1-5b", "prefetch"))} == {
        "Service/chat-1-5b", "Deployment/chat-1-5b", "DaemonSet/chat-1-5b-prefetch",
        "DaemonSet/sees-prefetch",
    }  # fmt: skip
    deployment, daemons = found["Deployment/chat-1-5b"]["spec"], found["DaemonSet/chat-1-5b-prefetch"]["spec"]
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    for spec in (deployment, daemons):
        pod = spec["template"]["spec"]
        assert pod["volumes"][0]["hostPath"] == {"path": "/srv/cache", "type": "Directory"}
        assert pod["initContainers"][0]["args"][0] == "verify"
    assert found["Service/chat-1-5b"]["spec"]["selector"] == deployment["selector"]["matchLabels"]
    assert daemons["template"]["spec"]["containers"][0]["command"] == ["sleep", "infinity"]


def test_an_image_of_a_model() -> None:
    """Pods mount it in each directory that has a file of the model, so nothing is downloaded, on no node."""
    files = tuple(PinnedFile(f"{name}.gguf", A64, 10, f"models/{name[0]}") for name in ("a1", "a2", "b1"))
    fleet = with_options(node_cache="/srv/cache")
    fleet = fleet._replace(models=(CHAT._replace(files=files, model_image="r.example/chat:1"),))
    found = objects(fleet)
    assert list(found) == ["Service/chat-1-5b", "Deployment/chat-1-5b"]
    pod = found["Deployment/chat-1-5b"]["spec"]["template"]["spec"]
    assert "initContainers" not in pod
    assert pod["volumes"][0] == {
        "name": "cache",
        "image": {"reference": "r.example/chat:1", "pullPolicy": "IfNotPresent"},
    }
    [server] = pod["containers"]
    assert server["volumeMounts"][:-1] == [
        {"name": "cache", "mountPath": f"/mounted/models/{name}", "readOnly": True} for name in "ab"
    ]
    assert {"name": "LLAMAFILE_CACHE", "value": "/mounted"} in server["env"]


@pytest.mark.parametrize("folder", [None, "/srv/cache"])
def test_autoscaler(folder: str | None) -> None:
    """It decides on the number of pods, so nothing else states it."""
    grows = FLEET._replace(
        models=(CHAT._replace(max_replicas=5),), options=with_options(node_cache=folder).options
    )
    found = objects(grows)
    scaler = found["HorizontalPodAutoscaler/chat-1-5b"]["spec"]
    target = scaler["scaleTargetRef"]
    assert "replicas" not in found[f"{target['kind']}/{target['name']}"]["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (2, 5)
    assert scaler["metrics"][0]["pods"]["target"]["averageValue"] == "4"


# ---- one machine


def test_compose() -> None:
    """A server waits for the verifier; replicas take a range of ports; no variable is replaced."""
    [project] = documents(compose.files(FLEET._replace(models=(CHAT, SEES._replace(license="A $B")))))
    services = project["services"]
    assert list(services) == ["chat-1-5b-verify", "chat-1-5b", "sees-verify", "sees"]
    chat, sees = services["chat-1-5b"], services["sees"]
    assert chat["depends_on"] == {"chat-1-5b-verify": {"condition": "service_completed_successfully"}}
    assert (chat["ports"], sees["ports"]) == (["127.0.0.1:8080-8081:8080"], ["127.0.0.1:8090:8080"])
    assert (chat["deploy"], chat["stop_grace_period"]) == ({"replicas": 2}, "70s")
    assert (chat["healthcheck"]["test"][:2], chat["healthcheck"]["start_period"]) == (
        ["CMD", "python3"],
        "601s",
    )
    assert (chat["volumes"], services["sees-verify"]["volumes"]) == (["cache:/cache:ro"], ["cache:/cache"])
    assert sees["labels"]["llamafile-recipe/license"] == "A $$B"
    assert sees["command"][:5] == ["serve", "--model", "sees", "--variant", "q4"]


def test_systemd() -> None:
    """One unit for all; a file for each server, which a shell reads as well."""
    files = systemd.files(FLEET)
    assert list(files) == [
        "systemd/llamafile-recipe@.service", "systemd/chat-1.5b-8080.env", "systemd/chat-1.5b-8081.env",
        "systemd/sees-8090.env",
    ]  # fmt: skip
    service = unit(files["systemd/llamafile-recipe@.service"])["Service"]
    assert (service["Type"], service["TimeoutStopSec"], service["DynamicUser"]) == ("notify", "70", "yes")
    assert service["ExecStart"].endswith("--host ${HOST} --port ${PORT} --drain 60")
    lines = files["systemd/sees-8090.env"].splitlines()
    assert lines[1:] == [
        "# Sees", f"# {B64} s.gguf", f"# {C64} p.gguf", 'MODEL="sees"', 'OPTIONS="--variant q4"',
        'HOST="127.0.0.1"', 'PORT="8090"', 'HF_ENDPOINT="http://mirror.lan:8080"',
    ]  # fmt: skip
    remote = systemd.files(with_options(hosts=("10.0.0.1",)))
    assert 'HOST="0.0.0.0"' in remote["systemd/sees-8090.env"]


def test_quadlets() -> None:
    """What verifies has no limit of time; servers get the volume read-only."""
    files = quadlet.files(FLEET)
    assert set(files) == {
        f"quadlet/{name}" for name in (
            "llamafile-recipe.volume", "chat-1.5b-verify.container", "chat-1.5b-8080.container",
            "chat-1.5b-8081.container", "sees-verify.container", "sees-8090.container",
        )
    }  # fmt: skip
    server = unit(files["quadlet/sees-8090.container"])
    assert server["Unit"]["Requires"] == server["Unit"]["After"] == "sees-verify.service"
    assert server["Container"]["Volume"] == "llamafile-recipe.volume:/cache:ro"
    assert json.loads(server["Container"]["HealthCmd"])[0] == "python3"
    assert 'Label="llamafile-recipe/license=Own \\"licence\\" %%n"' in files["quadlet/sees-8090.container"]
    assert unit(files["quadlet/sees-verify.container"])["Service"]["TimeoutStartSec"] == "infinity"


def test_containerfile() -> None:
    """The base is an argument, the second stage gets nothing but the recipe, no model is named."""
    [text] = container.files(FLEET).values()
    build, final = text.split("\nFROM ${BASE}\n")
    assert "\nARG BASE\n" in build
    assert "SOURCE_DATE_EPOCH=0" in build
    assert re.findall("^COPY .*", final, re.MULTILINE) == [
        "COPY --from=build /opt/llamafile-recipe /opt/llamafile-recipe"
    ]
    assert "\nUSER 1000:1000\n" in final


# ---- beside the servers


def test_balancer() -> None:
    """Only models with a port; every server of every machine."""
    [text] = balancer.files(with_options(hosts=("n1", "fd00::2"))).values()
    assert re.findall(r"^frontend (\S+)\n  bind (\S+)", text, re.MULTILINE) == [
        ("_metrics", "127.0.0.1:8405"),
        ("chat-1.5b", ":9000"),
    ]
    assert re.findall(r"^  server (\S+) (\S+)", text, re.MULTILINE) == [
        ("n1-8080", "n1:8080"), ("n1-8081", "n1:8081"),
        ("fd00..2-8080", "[fd00::2]:8080"), ("fd00..2-8081", "[fd00::2]:8081"),
    ]  # fmt: skip
    assert "maxconn 8\n" in text  # twice what a server answers at once


def test_prometheus() -> None:
    """Its targets have the digest, so that a figure is of known bytes."""
    files = {path: yaml.safe_load(text) for path, text in prometheus.files(FLEET).items()}
    assert files["prometheus/targets.yaml"] == [
        {
            "targets": ["127.0.0.1:8080", "127.0.0.1:8081"],
            "labels": {"model": "chat-1.5b", "sha256": A64, "engine": "embedded", "version": "7"},
        }
    ]
    jobs = files["prometheus/prometheus.yaml"]["scrape_configs"]
    assert [job["job_name"] for job in jobs] == ["llamafile-recipe", "haproxy"]


def test_prometheus_and_an_endpoint() -> None:
    """Each model is a target of its own; one that need not be loaded is never reported as down."""
    members = (Scraped("a", A64, kept=True), Scraped("b", B64))
    office = SEES._replace(name="office", variant="", members=members, metrics=True, slow=20)
    files = prometheus.files(FLEET._replace(models=(office, CHAT)))
    common = {"endpoint": "office", "__param_autoload": "false"}
    kept = {"model": "a", "sha256": A64, **common, "__param_model": "a"}
    other = {"model": "b", "sha256": B64, **common, "__param_model": "b", "loading": "on demand"}
    found = yaml.safe_load(files["prometheus/targets.yaml"])
    assert [one["labels"] for one in found[:2]] == [kept, other]
    assert [one["targets"] for one in found[:2]] == [["127.0.0.1:8090"]] * 2
    [group] = yaml.safe_load(files["prometheus/rules.yaml"])["groups"]
    assert group["rules"][-1]["expr"] == (
        'avg by (model) (llamacpp_tokens_per_second{endpoint="office"}) < 20 or '
        'avg by (model) (llamacpp_tokens_per_second{model="chat-1.5b", endpoint=""}) < 5'
    )


def test_mirror() -> None:
    """Its address is that of HF_ENDPOINT."""
    [text] = mirror.files(FLEET).values()
    assert re.findall(r"listen (\S+);", text) == ["8080", "127.0.0.1:18089"]
    assert "resolver 192.0.2.53;" in text
    assert "max_size=100g" in text
    assert '"~^/" "https://huggingface.co$upstream_http_location";' in text
