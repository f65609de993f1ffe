"""A catalogue with the endpoint `office`: copies of the demo, each with its context."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "demo" / "demo.gguf"


def write(
    path: Path, contexts: dict[str, int], keep: tuple[str, ...], memory: float
) -> Path:
    """Write models.yaml (JSON is YAML); return its path.

    Args:
        contexts: tokens of context by name; `embedder` is of kind embedding.
        memory: GB of the endpoint.
    """
    data = DEMO.read_bytes()
    models = {
        name: {
            "title": "The demo",
            "url": str(DEMO),
            "license": "Apache-2.0",
            "sha256": hashlib.sha256(data).hexdigest(),
            "size": len(data),
            "engine": "llama-server",
            "kind": "embedding" if name == "embedder" else "chat",
            "serve": {"ctx_size": size, "threads": 1},
        }
        for name, size in contexts.items()
    }
    office = {"models": [*models], "keep": list(keep), "memory": memory}
    engines = {"llamafile": {"title": "llamafile", "license": "Apache-2.0"}}
    catalogue = {
        "version": 1,
        "default": next(iter(models)),
        "engines": engines,
        "models": models,
        "endpoints": {"office": office},
    }
    path.write_text(json.dumps(catalogue, indent=1), "utf-8")
    return path
