"""Cases that have shown a defect, as small as they could be made; each with what happened."""

from __future__ import annotations

from tests.fuzz.case import Case

CASES: dict[str, Case] = {"an empty argument": Case((("download", "--model", ""),), warm=False)}
