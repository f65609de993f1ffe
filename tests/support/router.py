"""A real router of llama.cpp, started without the recipe."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tasks.server.client import send_request
from tasks.server.server_record import Mode, ServerRecord

from tests.support.ports import free_port
from tests.support.project import wait_until


@contextmanager
def running(
    program: Path, folder: Path, preset: str, *options: str, key: str = "", keep: Sequence[str] = ()
) -> Iterator[ServerRecord]:
    """Run a router with a preset file, folder/p.ini; yield its record."""
    port = free_port()
    path = folder / "p.ini"
    path.write_text(preset)
    log = folder / f"office-{port}.log"
    command = [str(program), "--models-preset", str(path), "--host", "127.0.0.1", "--port", str(port)]
    env = {**os.environ, "LLAMA_API_KEY": key} if key else dict(os.environ)
    with open(log, "wb") as output:
        router = subprocess.Popen(
            [*command, "--offline", *options], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True, env=env,
        )  # fmt: skip
    try:
        wait_until(lambda: send_request("127.0.0.1", port, "/health") or router.poll() is not None)
        yield ServerRecord(
            name="office", mode=Mode.START, host="127.0.0.1", port=port, spec={}, command=command,
            log=str(log), mark="0" * 16, key=key,
        )  # fmt: skip
    finally:
        router.kill()
        router.wait()
