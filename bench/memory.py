"""Compare the memory that engines take to the estimate of `doit plan`.

    python bench/memory.py [--llama-server PATH] [--only NAME] [--write]

Each row starts an engine with a small model of random weights, sends a prompt that
fills a batch, and reads the resident memory (Rss of smaps_rollup; Linux only). The
estimate must be within 10 %. Needs the packages gguf, numpy, psutil and xllamacpp.
--write puts the table into bench/.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import random_gguf  # noqa: E402
from start import free_port  # noqa: E402

from tasks.catalogue import model_memory  # noqa: E402
from tasks.planning.estimate import metadata  # noqa: E402

PROMPT = 600  # tokens, if the context is so long; more than a batch
START_S = 120.0
WITHIN = 0.1
KEYS_Q8 = ("--cache-type-k", "q8_0", "--cache-type-v", "q8_0")
FILLED = ("llama", 4096, ("--parallel", "1"))  # the prompt fills the context
CASES: tuple[tuple[str, int, tuple[str, ...]], ...] = (
    FILLED,
    ("llama", 512, ()),
    ("llama", 4096, ()),
    ("llama", 32768, ()),
    ("llama", 32768, KEYS_Q8),
    ("llama", 4096, ("--parallel", "4")),
    ("llama", 4096, ("--ubatch-size", "128")),
    ("llama", 1024, ("--flash-attn", "off")),
    ("llama-gqa", 32768, ()),
    ("llama-q8", 4096, ()),
    ("llama-q4", 4096, ("--no-repack",)),
    ("llama-vocabulary", 4096, ()),
    ("qwen2", 4096, ()),
    ("qwen2", 32768, KEYS_Q8),
    ("qwen3", 32768, ()),
    ("qwen3", 32768, KEYS_Q8),
    ("qwen3moe", 4096, ()),
    ("qwen3moe", 32768, ()),
    ("gemma3", 512, ()),
    ("gemma3", 4096, ()),
    ("gemma3", 32768, ()),
    ("gemma3", 32768, KEYS_Q8),
    ("gemma3", 32768, ("--parallel", "1")),
    ("gemma3", 32768, ("--swa-full",)),
    ("phi3", 4096, ()),
    ("phi3", 32768, ()),
)
NOTE = """# The memory of an engine

What `doit plan` estimates, and what engines take, in MB: `python bench/memory.py
--write` ([how](README.md#memory)). A prompt of 600 tokens was sent; in the first two
rows, it fills the context. The estimate is that of `doit plan` for such a prompt; `doit
plan` itself counts the buffers for one that fills the context.

The file of llama-q4 is loaded without repacking. With it, the engine copies these
weights, and the pages of the file count as resident until the system needs them.
Models with sliding windows (gemma3) take more with each checkpoint of a context.
"""


class Row(NamedTuple):
    """One measurement; bytes."""

    engine: str
    model: str
    context: int
    arguments: str
    estimate: int
    measured: int

    @property
    def error(self) -> float:
        """Return how far the estimate is from the measurement, as a fraction."""
        return self.estimate / self.measured - 1


def estimated(
    engine: str, path: Path, context: int, words: tuple[str, ...], prompt: int
) -> int:
    """Return the estimate of `doit plan`, but for the prompt that was sent."""
    known = metadata(str(path))
    assert known, path
    use = model_memory.cache_use(engine, words)
    cache = model_memory.kv_cache_bytes(known, context, use)
    own = model_memory.engine_bytes(known, context, engine, use, prompt)
    assert cache is not None
    return path.stat().st_size + cache + own


def measured(program: list[str], count: int, words: list[str], log: Path) -> int | None:
    """Return the resident bytes of an engine after a prompt; None if it ended."""
    port = free_port()
    address = ["--host", "127.0.0.1", "--port", str(port)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*program, *words, *address], env=env, stdout=output, stderr=output
        )
    try:
        if not until_ready(process, port):
            return None
        prompt = [(7 * number) % 1500 for number in range(count)]
        body = {"prompt": prompt, "n_predict": 2, "cache_prompt": False}
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/completion",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        urllib.request.urlopen(request, timeout=600).read()
        return resident(process.pid)
    finally:
        process.kill()
        process.wait()


def until_ready(process: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until /health answers 200; return False if the engine ended."""
    end = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < end:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).read()
            return True
        except OSError:
            time.sleep(0.05)
    return False


def resident(pid: int) -> int:
    """Return the bytes of memory of a process that are resident."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()
    line = next(line for line in lines if line.startswith("Rss:"))
    return int(line.split()[1]) * 1024


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table, MB."""
    lines = [
        "| engine | model | context | arguments | estimate | measured | difference |",
        "|---|---|--:|---|--:|--:|--:|",
    ]
    for row in rows:
        numbers = f"{row.estimate / 1e6:.0f} | {row.measured / 1e6:.0f}"
        facts = f"{row.engine} | {row.model} | {row.context} | {row.arguments}"
        lines.append(f"| {facts} | {numbers} | {row.error:+.0%} |")
    return "\n".join(lines)


def main() -> int:
    """Measure all cases; return 1 if an estimate is wrong by more than 10 %."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--llama-server", default=shutil.which("llama-server"))
    parser.add_argument("--only", default="", help="only this model")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    programs = {"embedded": [sys.executable, "-m", "tasks.engine.embedded"]}
    if options.llama_server:
        programs["llama-server"] = [options.llama_server]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        paths = {}
        for shape in random_gguf.SHAPES:
            paths[shape.name] = Path(folder, f"{shape.name}.gguf")
            random_gguf.write(paths[shape.name], shape)
        for name, context, words in CASES:
            if options.only not in ("", name):
                continue
            prompt = min(PROMPT, context - 8)
            if (name, context, words) == FILLED:
                prompt = context - 8
            for engine, program in programs.items():
                model = paths[name]
                given = ["-m", str(model), "-c", str(context), "-t", "2", *words]
                found = measured(program, prompt, given, Path(folder, "log"))
                label = f"{engine} {name} {context} {' '.join(words)}"
                if found is None:  # this version does not know an argument
                    print(f"{label}: not served", file=sys.stderr, flush=True)
                    continue
                guess = estimated(engine, model, context, words, prompt)
                rows.append(Row(engine, name, context, " ".join(words), guess, found))
                print(f"{label}: {rows[-1].error:+.1%}", file=sys.stderr, flush=True)
    text = table(rows)
    print(text)
    if options.write:
        page = f"{NOTE}\n{text}\n"
        Path(__file__).with_suffix(".md").write_text(page, "utf-8")
    return int(any(abs(row.error) > WITHIN for row in rows))


if __name__ == "__main__":
    sys.exit(main())
