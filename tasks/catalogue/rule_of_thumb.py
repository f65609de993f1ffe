"""Estimate the KV cache of a model whose metadata is not known. Pure."""

from __future__ import annotations

import re

RAM_CONTEXT = 4096  # tokens that are included in `ram:` of an entry


def parse_parameter_count(text: str | None) -> float | None:
    """Parse a number of parameters into billions.

    Forms: `7.24B`, `350M`, `E2B`, `7B+mmproj`. `8x7B` is 7: experts share the cache.
    """
    pattern = r"(?<![\d.])(\d{1,6}(?:\.\d{1,6})?) ?([BM])(?![A-Za-z])"
    match = re.search(pattern, text or "", re.IGNORECASE)
    if match is None:
        return None
    number = float(match[1])
    if match[2] in "Mm":
        return number / 1000
    return number


def kv_estimate(params: str | None, ctx: int) -> int | None:
    """Estimate the bytes of the KV cache; None if impossible.

    56 KiB for each token at 1B parameters, growing with their power 0.42. Within a
    factor of 2 of Llama 3, Mistral, Phi-4 and Qwen 3 (from 1.7B). About 4 times too
    high for other small models and mixtures of experts, and about 4 times too low for
    models without grouped-query attention (Llama 2, Phi-3 mini, OLMo).

    Args:
        params: as in the catalogue.
        ctx: tokens; 0 gives None, since the context as trained is not known here.
    """
    billions = parse_parameter_count(params)
    if not billions or ctx <= 0:
        return None
    per_token: float = 56 * 1024 * billions**0.42
    return round(per_token) * ctx


def kv_beyond_ram(params: str | None, ctx: int) -> int:
    """Estimate the bytes that a context takes beyond what `ram:` includes.

    Args:
        params: as in the catalogue.
        ctx: tokens; 0, as trained, gives 0.
    """
    return kv_estimate(params, ctx - RAM_CONTEXT) or 0
