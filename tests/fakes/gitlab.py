"""Run a job as GitLab's runner does: its scripts in one shell, its cache by the key of files.

Source: GitLab's "CI/CD YAML syntax reference": `extends` merges maps; `cache:key:files` are hashed, and are
`default` where none is there; paths are of the project; a cache is saved if the job succeeds. Its archive is
a zip, whose times are whole seconds.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """What `extends` makes of a template and a job."""
    both = {k: merged(below[k], v) if isinstance(v, Mapping) and k in below else v for k, v in above.items()}
    return {**below, **both}


def job(
    text: str, name: str, template: Path, project: Path, store: Path, env: Mapping[str, str]
) -> tuple[int, str]:
    """Run the job `name` of a .gitlab-ci.yml in the folder of a project; its status and its log.

    Args:
        store: where caches are kept from job to job.
    """
    config = yaml.safe_load(text)
    [include] = config["include"]
    assert template.as_posix().endswith(include["file"])
    one = dict(config[name])
    one.pop("rules", None)  # when it runs
    one = merged(yaml.safe_load(template.read_text("utf-8"))[one.pop("extends")], one)
    assert set(one) == {"variables", "cache", "before_script", "script"}, set(one)
    full = {**env, "CI": "true", "GITLAB_CI": "true", "CI_PROJECT_DIR": str(project)}
    for key, value in one["variables"].items():
        full[key] = re.sub(r"\$(\w+)", lambda found: full[found[1]], value)
    archive = store / _key(one["cache"]["key"], project, full)
    for path in one["cache"]["paths"]:
        shutil.rmtree(project / path, ignore_errors=True)
        if (archive / path).exists():
            shutil.copytree(archive / path, project / path)
            for file in (project / path).rglob("*"):
                os.utime(file, (int(file.stat().st_mtime),) * 2)
    script = "\n".join(["set -eo pipefail", *one["before_script"], *one["script"]])
    done = subprocess.run(
        ["bash"], cwd=project, env=full, input=script.encode(), timeout=600,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    if done.returncode == 0:
        for path in one["cache"]["paths"]:
            assert not Path(path).is_absolute()
            if (project / path).exists():
                shutil.copytree(project / path, archive / path, dirs_exist_ok=True)
    return done.returncode, done.stdout.decode()


def _key(key: Mapping[str, Any], project: Path, variables: Mapping[str, str]) -> str:
    assert len(key["files"]) <= 2
    there = [project / name for name in key["files"] if (project / name).exists()]
    digest = hashlib.sha1(b"".join(path.read_bytes() for path in there)).hexdigest()
    prefix = re.sub(r"\$(\w+)", lambda found: variables[found[1]], key["prefix"])
    assert "/" not in prefix, prefix
    return f"{prefix}-{digest if there else 'default'}"
