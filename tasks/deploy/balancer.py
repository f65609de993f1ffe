"""haproxy.cfg: one port for all servers of a model. Pure.

A server is taken out without a lost answer by `set server BACKEND/SERVER state drain`
on the socket; a request that no server has accepted yet goes to another one.
"""

from __future__ import annotations

from tasks.deploy import escape
from tasks.deploy.escape import Template
from tasks.deploy.fleet import HEADER, DeployedModel, Files, Fleet
from tasks.deploy.systemd import bytes_of

METRICS_PORT = 8405
_GLOBAL = Template("""\
# @header
global
  user haproxy
  group haproxy
  stats socket /run/haproxy/admin.sock mode 660 level admin

defaults
  mode http
  timeout connect 2s
  timeout client 1h
  timeout server 1h
  timeout queue 5m
  option redispatch 1
  retries 3
  retry-on conn-failure

frontend _metrics
  bind 127.0.0.1:@port
  http-request use-service prometheus-exporter if { path /metrics }
""")
_MODEL = Template("""
# @title
@bytes
frontend @name
  bind :@port
  default_backend @name

backend @name
  balance leastconn
  option httpchk
  http-check send meth GET uri /health
  http-check expect status 200
  default-server check inter 500ms fastinter 200ms downinter 500ms fall 2 rise 1 maxconn @most
""")  # noqa: E501  # a line of haproxy's own format


def files(fleet: Fleet) -> Files:
    """Return haproxy.cfg with the models that have a port for it."""
    text = _GLOBAL.substitute(header=HEADER, port=METRICS_PORT)
    for model in fleet.models:
        if model.balance:
            text += _model(fleet, model)
    return {"haproxy.cfg": text}


def _model(fleet: Fleet, model: DeployedModel) -> str:
    text = _MODEL.substitute(
        title=escape.comment(f"{model.name}: {model.title}"),
        bytes="\n".join(f"# {escape.comment(line)}" for line in bytes_of(model)),
        name=model.name,
        port=model.balance,
        most=2 * model.parallel,  # those that wait, wait here, for the first free one
    )
    for name, address in servers(fleet, model):
        text += f"  server {name} {address}\n"
    return text


def servers(fleet: Fleet, model: DeployedModel) -> list[tuple[str, str]]:
    """Return (name, address) of each server of a model on all machines."""
    found = []
    for host in fleet.options.hosts:
        for port in model.ports:
            name = f"{host}-{port}".replace(":", ".")
            address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            found.append((name, address))
    return found
