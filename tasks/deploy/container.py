"""Containerfiles: the image that every kind runs, and those of models. Pure.

There is no HEALTHCHECK, which an OCI image cannot have: the files that run the image
check the health. The first stage may leave anything behind; only /opt of it is copied.
pip compiles with hashes instead of times where SOURCE_DATE_EPOCH is set, so that a
second build has the same bytes.
"""

from __future__ import annotations

import json

from tasks.deploy.escape import Template
from tasks.deploy.fleet import (
    CACHE,
    CLONE,
    HEADER,
    PORT,
    USER,
    DeployedModel,
    Files,
    Fleet,
)

_TEXT = Template("""\
# @header
#
# BASE has: python3 with venv, libgomp1, ca-certificates@programs
# The wheels are those of
#   pip wheel --wheel-dir wheels '.[embedded]'
# docs/fleet.md builds both, and the same image twice.
ARG BASE

FROM ${BASE} AS build
ENV SOURCE_DATE_EPOCH=0 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY dodo.py doit.cfg models.yaml models.lock @clone/
COPY demo @clone/demo
COPY tasks @clone/tasks
COPY wheels /tmp/wheels
RUN python3 -c 'import ctypes; ctypes.CDLL("libgomp.so.1")' \\
@checks && find @clone -name __pycache__ -prune -exec rm -rf {} + \\
 && python3 -m venv @clone/.venv \\
 && @clone/.venv/bin/pip install --no-index --find-links /tmp/wheels 'llamafile-recipe[embedded]' \\
 && @clone/.venv/bin/python -m compileall -q --invalidation-mode checked-hash @clone/dodo.py @clone/tasks \\
 && chmod -R go=u,go-w @clone

FROM ${BASE}
COPY --from=build @clone @clone
RUN install -d -o @user -g @user @cache
ENV DOIT_FILE=@clone/dodo.py LLAMAFILE_CACHE=@cache HOME=/tmp PYTHONUNBUFFERED=1
WORKDIR @clone
VOLUME @cache
USER @user:@user
EXPOSE @port
STOPSIGNAL SIGTERM
ENTRYPOINT ["@clone/.venv/bin/doit"]
CMD ["serve", "--host", "0.0.0.0"]
""")  # noqa: E501  # lines of the engine's own format
_ASK = (
    "import urllib.request as u; "
    f"u.urlopen('http://127.0.0.1:{PORT}/health', timeout=4)"
)


def files(fleet: Fleet) -> Files:
    """Return the Containerfiles: that of the recipe, and those with a model's files.

    The first names no model, but an engine that BASE needs.
    """
    text = _TEXT.substitute(
        header=HEADER,
        clone=CLONE,
        cache=CACHE,
        user=USER,
        port=PORT,
        programs="".join(f", {name}" for name in fleet.programs),
        checks="".join(f" && command -v {name} \\\n" for name in fleet.programs),
    )
    found = {"Containerfile": text}
    for model in fleet.models:
        if model.model_image:
            found[f"models/{model.name}.Containerfile"] = _model_text(model)
    return found


def _model_text(model: DeployedModel) -> str:
    """Return what makes an image of a model's files, which lie there as in a cache."""
    copied = "".join(f"COPY {_copied(file.path)}\n" for file in model.files)
    how = f"--timestamp 0 -f THIS -t {model.model_image} CACHE"
    return f"# {HEADER}\n#\n# buildah build {how}\nFROM scratch\n{copied}"


def _copied(path: str) -> str:
    """Return source and target of COPY, without variables and patterns."""
    target = path.replace("$", "\\$")
    source = target.replace("[", "[[]")
    return json.dumps([source, f"/{target}"], ensure_ascii=False)


def health_command() -> list[str]:
    """Return the command that fails unless the server can take requests.

    Not an HTTP probe, for which podman needs curl in the image.
    """
    return ["python3", "-I", "-c", _ASK]
