"""SPDX identifiers of the licenses that models and engines use. Pure."""

from __future__ import annotations

_IDENTIFIERS = (
    *("0BSD", "AFL-3.0", "AGPL-3.0-only", "AGPL-3.0-or-later", "Apache-2.0"),
    *("Artistic-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC-BY-3.0"),
    *("CC-BY-4.0", "CC-BY-NC-3.0", "CC-BY-NC-4.0", "CC-BY-NC-ND-4.0"),
    *("CC-BY-NC-SA-4.0", "CC-BY-ND-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0", "CC0-1.0"),
    *("CDLA-Permissive-2.0", "ECL-2.0", "EPL-2.0", "EUPL-1.2", "GPL-2.0-only"),
    *("GPL-2.0-or-later", "GPL-3.0", "GPL-3.0-only", "GPL-3.0-or-later", "ISC"),
    *("LGPL-2.1-only", "LGPL-3.0-only", "LGPL-3.0-or-later", "MIT", "MPL-2.0"),
    *("MS-PL", "NCSA", "OFL-1.1", "OSL-3.0", "PostgreSQL", "Unlicense", "WTFPL"),
    "Zlib",
)
_BY_LOWER_CASE = {name.lower(): name for name in _IDENTIFIERS}


def spdx_id(name: str) -> str:
    """Return the SPDX identifier for a license in any case; "" for another name."""
    return _BY_LOWER_CASE.get(name.lower(), "")
