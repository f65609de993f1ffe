"""A systemd template unit, and the environment of each of its servers. Pure.

A server is an instance named MODEL-PORT. The unit has no time limit for its start: the
recipe has one for a download that stalls, and one for a server that is not ready.
"""

from __future__ import annotations

from tasks.deploy import escape
from tasks.deploy.escape import Template
from tasks.deploy.fleet import CLONE, HEADER, DeployedModel, Files, Fleet

_UNIT = Template("""\
# @header
#
# Servers: @servers
# The clone is in @clone, with its virtual environment in .venv. A key for clients is
# LLAMA_API_KEY in /etc/llamafile-recipe/key.env, mode 0600.
[Unit]
Description=Language model %i
After=network-online.target
Wants=network-online.target

[Service]
Type=notify
DynamicUser=yes
User=llamafile-recipe
CacheDirectory=llamafile-recipe
StateDirectory=llamafile-recipe
WorkingDirectory=@clone
Environment=LLAMAFILE_CACHE=/var/cache/llamafile-recipe LLAMAFILE_STATE=/var/lib/llamafile-recipe HOME=/var/lib/llamafile-recipe
EnvironmentFile=/etc/llamafile-recipe/%i.env
EnvironmentFile=-/etc/llamafile-recipe/key.env
ExecStart=@clone/.venv/bin/doit serve --model ${MODEL} $OPTIONS --frozen --yes --host ${HOST} --port ${PORT} --drain @drain
Restart=on-failure
RestartSec=5
TimeoutStartSec=infinity
TimeoutStopSec=@grace
KillMode=mixed
NoNewPrivileges=yes
CapabilityBoundingSet=
ProtectSystem=strict
ProtectHome=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
PrivateTmp=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictSUIDSGID=yes
LockPersonality=yes

[Install]
WantedBy=multi-user.target
""")  # noqa: E501  # lines of the engine's own format


def files(fleet: Fleet) -> Files:
    """Return the unit and an environment file for each server of a machine."""
    servers = [server for model in fleet.models for server in model.servers]
    unit = _UNIT.substitute(
        header=HEADER,
        servers=" ".join(f"llamafile-recipe@{server}" for server in servers),
        clone=CLONE,
        drain=fleet.options.drain,
        grace=fleet.grace,
    )
    found = {"systemd/llamafile-recipe@.service": unit}
    for model in fleet.models:
        for server, port in zip(model.servers, model.ports, strict=True):
            found[f"systemd/{server}.env"] = _environment(fleet, model, port)
    return found


def _environment(fleet: Fleet, model: DeployedModel, port: int) -> str:
    options = f"--variant {model.variant}" if model.variant else ""
    values = {
        "MODEL": model.name,
        "OPTIONS": options,
        "HOST": fleet.host,
        "PORT": str(port),
        **fleet.endpoint,
    }
    lines = [HEADER, model.title, *bytes_of(model)]
    text = "".join(f"# {escape.comment(line)}\n" for line in lines)
    return text + "".join(
        f"{name}={escape.environment(value)}\n" for name, value in values.items()
    )


def bytes_of(model: DeployedModel) -> list[str]:
    """Return the digests of a model's files for a comment, as sha256sum prints them."""
    return [f"{file.sha256}  {file.name}" for file in model.files]
