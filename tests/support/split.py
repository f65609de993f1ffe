"""Split the demo model into several files, as llama.cpp's tools do."""

from __future__ import annotations

from pathlib import Path

from tests.support.project import REPO

DEMO = REPO / "demo" / "demo.gguf"


def split_demo(folder: Path, tensors: int, name: str = "d") -> list[Path]:
    """Write parts with `tensors` tensors each; return their paths in order.

    Source: gguf-py gguf_writer.py (split_max_tensors), llama.cpp's llama_split_path.
    """
    import gguf

    reader = gguf.GGUFReader(DEMO)
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(folder / f"{name}.gguf", architecture, split_max_tensors=tensors)
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        kind, inner = field.types[0], field.types[-1] if len(field.types) > 1 else None
        writer.add_key_value(key, field.contents(), kind, inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(folder.glob(f"{name}-*-of-*.gguf"))
