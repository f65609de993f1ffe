"""Record the first minute: run the README's commands and write first-minute.svg.

    pip install '.[embedded]' && python -m demo.picture

The commands print everything in the picture. Only the temporary home directory is
replaced by /home/you. POSIX only; port 8080 must be free.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shlex
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[1]
PICTURE = Path(__file__).with_name("first-minute.svg")
COLUMNS = 104
WITHIN = 60.0  # seconds for any of the commands
PROMPT = "\x1b[1;32m$\x1b[0m"
SERVE = "doit serve --model demo"
ASK = 'doit chat demo "Hello"'
FRAME = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" \
xmlns="http://www.w3.org/2000/svg">
<title>{alt}</title>
<style>
.{unique_id}-matrix {{ \
font-family: "Fira Code", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font: bold 18px sans-serif; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" \
clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
""".replace("{alt}", "The demo model is served and asked")


class Terminal:
    """A command in a pseudo-terminal, and its output."""

    def __init__(self, command: str, folder: Path, environment: dict[str, str]) -> None:
        ours, its = pty.openpty()
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
        self.process = subprocess.Popen(
            shlex.split(command), cwd=folder, env=environment, stdin=its, stdout=its,
            stderr=its, start_new_session=True,
        )  # fmt: skip
        os.close(its)
        self._from, self._bytes = ours, b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            while got := os.read(self._from, 65536):
                self._bytes += got
        except OSError:  # on Linux, when the other end is closed
            pass

    def wait_for(self, text: str) -> None:
        """Wait until the command has printed a text."""
        deadline = time.monotonic() + WITHIN
        while text not in self._bytes.decode(errors="replace"):
            if self.process.poll() is not None or time.monotonic() > deadline:
                sys.exit(
                    f"{text!r} did not come:\n{self._bytes.decode(errors='replace')}"
                )
            time.sleep(0.02)

    def finish(self) -> None:
        """Wait until the command ends and its output is read."""
        self.process.wait(WITHIN)
        self._reader.join(WITHIN)

    @property
    def lines(self) -> list[str]:
        """Return what a terminal shows in the end: a line drawn again counts once.

        The bar of a download is erased when the download ends.
        """
        text = self._bytes.decode(errors="replace").replace("\r\n", "\n")
        text = re.sub(r"[^\n]*\n(?:\x1b\[\?25h)?\r?\x1b\[1A\x1b\[2K", "", text)
        lines = text.rstrip("\n").split("\n")
        return [re.split(r"\r(?:\x1b\[2K)?", line)[-1] for line in lines]


def first_minute(home: Path) -> list[str]:
    """Serve and ask; return the lines of both terminals."""
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
    }
    server = Terminal(SERVE, ROOT, environment)
    try:
        server.wait_for("stop     Ctrl-C")
        client = Terminal(ASK, ROOT, environment)
        client.finish()
        shown = server.lines
        if client.process.returncode:
            sys.exit("\n".join(client.lines))
    finally:
        server.process.send_signal(signal.SIGINT)
        server.finish()
    remark = "\x1b[2;3m# in a second terminal\x1b[0m"
    lines = [
        f"{PROMPT} {SERVE}",
        *shown,
        "",
        f"{PROMPT} {ASK}   {remark}",
        *client.lines,
    ]
    return [line.replace(str(home), "/home/you") for line in lines]


def main() -> None:
    """Write the picture."""
    with tempfile.TemporaryDirectory() as home:
        lines = first_minute(Path(home).resolve())
    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True)
    for line in lines:  # a longer line ends in "…"; the README has the whole text
        console.print(Text.from_ansi(line), no_wrap=True, overflow="ellipsis")
    svg = console.export_svg(
        title="llamafile-recipe", code_format=FRAME, unique_id="first-minute"
    )
    PICTURE.write_text(
        "\n".join(line.rstrip() for line in svg.splitlines()) + "\n", "utf-8"
    )
    print("\n".join(re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line) for line in lines))


if __name__ == "__main__":
    main()
