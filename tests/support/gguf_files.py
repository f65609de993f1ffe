"""Tiny GGUF files that belong to the demo model."""

from __future__ import annotations

from pathlib import Path

LAYERS, WIDTH, INNER, RANK = 4, 192, 512, 4  # of the demo


def lora(path: Path, architecture: str = "llama") -> bytes:
    """Write a LoRA adapter that changes every layer of the demo much; return its bytes.

    Source: llama.cpp convert_lora_to_gguf.py (keys, names and shapes).
    """
    import gguf
    import numpy

    writer = gguf.GGUFWriter(path, architecture)
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 8.0)
    random = numpy.random.default_rng(1)
    for layer in range(LAYERS):
        for name, shape in (("lora_a", (RANK, INNER)), ("lora_b", (WIDTH, RANK))):
            data = random.normal(size=shape).astype(numpy.float32)
            writer.add_tensor(f"blk.{layer}.ffn_down.weight.{name}", data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()
