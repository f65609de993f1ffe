"""Set parameters of the embedded engine from the texts of its flags.

Like `embedded`, this imports nothing of `tasks` but the table of flags.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from tasks.engine.embedded_flags import FLAGS

# types whose values are names: enumeration, prefix of its members, names that differ
_ENUMS: dict[str, tuple[str, str, dict[str, str]]] = {
    "flash": (
        "llama_flash_attn_type",
        "LLAMA_FLASH_ATTN_TYPE_",
        {"on": "ENABLED", "off": "DISABLED"},
    ),
    "rope": ("llama_rope_scaling_type", "LLAMA_ROPE_SCALING_TYPE_", {}),
    "cache": ("ggml_type", "GGML_TYPE_", {}),
    "load": (
        "llama_load_mode",
        "LLAMA_LOAD_MODE_",
        {"mmap+mlock": "MMAP_MLOCK", "dio": "DIRECT_IO"},
    ),
    "lazy": ("llama_lazy_mode", "LLAMA_LAZY_MODE_", {}),
    "numa": ("ggml_numa_strategy", "GGML_NUMA_STRATEGY_", {}),
    "split": ("llama_split_mode", "LLAMA_SPLIT_MODE_", {}),
    "pooling": ("llama_pooling_type", "LLAMA_POOLING_TYPE_", {}),
    "format": ("common_reasoning_format", "COMMON_REASONING_FORMAT_", {}),
    "spec": ("common_speculative_type", "COMMON_SPECULATIVE_TYPE_", {}),
}
_PRIORITIES = {"-1": "LOW", "0": "NORMAL", "1": "MEDIUM", "2": "HIGH", "3": "REALTIME"}
_REASONING = {"on": 1, "off": 0, "auto": -1}
_LAYERS = {"auto": "-1", "all": "-2"}
_LOUDEST = 2**31 - 1
_MEBIBYTE = 1024 * 1024


def apply(engine: Any, params: Any, given: Iterable[tuple[str, str]]) -> None:
    """Set the parameters of the given flags, in order: the last one wins.

    Args:
        engine: the package.
        given: (flag, text of its value).

    Raises:
        ValueError: a value is not one of its type; the text names the flag.
    """
    for name, text in given:
        flag = FLAGS[name]
        for path in flag.attributes:
            holder, attribute = _holder(params, path)
            try:
                before = getattr(holder, attribute)
                setattr(holder, attribute, _value(engine, flag.kind, text, before))
                if flag.kind in ("mask", "range"):
                    holder.mask_valid = True
            except (ValueError, TypeError, OverflowError, OSError) as error:
                raise ValueError(f"{name}: {text!r} is not valid ({error})") from error
        if flag.kind == "rank":
            params.embedding = True
        _mark_sampling(engine, params, flag.attributes[0])


def path_in(name: str, text: str) -> str:
    """Return the path that the engine opens for a flag; "" if it opens none."""
    kind = FLAGS[name].kind
    if kind == "path":
        return text
    if kind == "lora":
        return text.strip('"')
    if kind == "scaled":
        return text.strip('"').rpartition(":")[0]
    return ""


def _holder(params: Any, path: str) -> tuple[Any, str]:
    *parents, attribute = path.split(".")
    for parent in parents:
        params = getattr(params, parent)
    return params, attribute


def _mark_sampling(engine: Any, params: Any, path: str) -> None:
    """Mark a sampling parameter as set, so that the model's own value does not win."""
    parent, _, name = path.rpartition(".")
    if parent != "sampling":
        return
    names = {"penalty_last_n": "PENALTY_LAST_N", "penalty_repeat": "PENALTY_REPEAT"}
    member = f"COMMON_PARAMS_SAMPLING_CONFIG_{names.get(name, name.upper())}"
    bit = getattr(engine.common_params_sampling_config, member, None)
    if bit is not None:
        params.sampling.user_sampling_config |= int(bit)


def _value(engine: Any, kind: str, text: str, before: Any) -> Any:
    """Convert the text of a value.

    Args:
        before: the parameter's value so far; a flag that can be repeated extends it.
    """
    if kind in _ENUMS and kind != "spec":
        return _member(engine, kind, text)
    if kind in _CONVERTERS:
        return _CONVERTERS[kind](text)
    return _SPECIAL[kind](engine, text, before)


def _member(engine: Any, kind: str, text: str) -> Any:
    enum, prefix, names = _ENUMS[kind]
    name = names.get(text, text.replace("-", "_").upper())
    member = getattr(getattr(engine, enum), prefix + name, None)
    if member is None:
        raise ValueError("an unknown name")
    return member


def _choice(choices: dict[str, Any]) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        if text not in choices:
            raise ValueError(f"expected one of {', '.join(choices)}")
        return choices[text]

    return convert


def _layers(text: str) -> int:
    return int(_LAYERS.get(text, text))


def _names(text: str) -> set[str]:
    return {name.strip() for name in text.split(",") if name.strip()}


def _file(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def _json(text: str) -> dict[str, str]:
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError("expected a JSON object")
    return {key: json.dumps(value) for key, value in values.items()}


def _fields(text: str) -> list[str]:
    """Split a value at commas; a field in quotes may have some."""
    import csv

    return next(csv.reader([text]), [])


def _padded(engine: Any, text: str, before: list[float]) -> list[float]:
    values = [float(word) for word in text.split(",")]
    return values + before[len(values) :]


def _mask(engine: Any, text: str, before: list[bool]) -> list[bool]:
    bits = int(text, 16)
    if not 0 < bits < 1 << len(before):
        raise ValueError(f"expected a mask of at most {len(before)} CPUs")
    return [bool(bits >> cpu & 1) for cpu in range(len(before))]


def _range(engine: Any, text: str, before: list[bool]) -> list[bool]:
    first, _, last = text.partition("-")
    low = int(first or 0)
    high = int(last or len(before) - 1)
    if not 0 <= low <= high < len(before):
        raise ValueError("expected LOWEST-HIGHEST")
    return [low <= cpu <= high for cpu in range(len(before))]


def _targets(engine: Any, text: str, before: list[int]) -> list[int]:
    values = [int(word) * _MEBIBYTE for word in text.split(",")]
    if len(values) == 1:
        values *= len(before)
    return values + before[len(values) :]


def _grammar(engine: Any, text: str) -> Any:
    return engine.CommonGrammar(
        engine.common_grammar_type.COMMON_GRAMMAR_TYPE_USER, text
    )


def _adapter(engine: Any, path: str, scale: float) -> Any:
    adapter = engine.CommonAdapterLoraInfo()
    adapter.path = path
    adapter.scale = scale
    return adapter


def _loras(engine: Any, text: str, before: list[Any]) -> list[Any]:
    return [*before, *(_adapter(engine, path, 1.0) for path in _fields(text))]


def _scaled_loras(engine: Any, text: str, before: list[Any]) -> list[Any]:
    found = list(before)
    for field in _fields(text):
        path, colon, scale = field.rpartition(":")
        if not colon:
            raise ValueError("expected FILE:SCALE")
        found.append(_adapter(engine, path, float(scale)))
    return found


_CONVERTERS: dict[str, Callable[[str], Any]] = {
    "int": int,
    "float": float,
    "text": str,
    "path": str,
    "set": lambda _: True,
    "unset": lambda _: False,
    "loud": lambda _: _LOUDEST,
    "inverse": lambda text: 1 / float(text),
    "seed": lambda text: int(text) % 2**32,  # -1 is random
    "bit": _choice({"0": False, "1": True}),
    "onoff": _choice({"on": True, "off": False}),
    "sampling": _choice({"greedy": False, "probabilistic": True}),
    "reasoning": _choice(_REASONING),
    "layers": _layers,
    "names": _names,
    "list": lambda text: text.split(","),
    "file": _file,
    "json": _json,
}
_SPECIAL: dict[str, Callable[[Any, str, Any], Any]] = {
    "prio": lambda engine, text, _: getattr(
        engine.ggml_sched_priority, "GGML_SCHED_PRIO_" + _choice(_PRIORITIES)(text)
    ),
    "rank": lambda engine, *_: _member(engine, "pooling", "rank"),
    "spec": lambda engine, text, _: [
        _member(engine, "spec", word) for word in text.split(",")
    ],
    "grammar": lambda engine, text, _: _grammar(engine, text),
    "grammars": lambda engine, text, _: _grammar(engine, _file(text)),
    "more": lambda _, text, before: [*before, text],
    "floats": _padded,
    "mask": _mask,
    "range": _range,
    "mebibytes": _targets,
    "lora": _loras,
    "scaled": _scaled_loras,
}
