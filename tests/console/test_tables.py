"""Tables fit the terminal: what is shortened, what is left out, what is never lost."""

from __future__ import annotations

import pytest
from tasks.console.tables import Limit, fit

FIXED, SHORT, SPARE = Limit(), Limit(5), Limit(5, optional=True)


@pytest.mark.parametrize(
    ("widths", "limits", "width", "fitted"),
    [
        pytest.param((8, 8), (FIXED, FIXED), 80, (8, 8), id="it fits"),
        pytest.param((8, 8), (FIXED, SHORT), 18, (8, 8), id="it just fits"),
        pytest.param((8, 8), (FIXED, SHORT), 16, (8, 6), id="shortened"),
        pytest.param((9, 40), (SHORT, SHORT), 20, (9, 9), id="the longest first"),
        pytest.param((9, 40), (SHORT, SHORT), 16, (7, 7), id="then both"),
        pytest.param((9, 40), (SHORT, SHORT), 12, (5, 5), id="at their shortest"),
        pytest.param((9, 40), (SHORT, SHORT), 11, (5, 5), id="a terminal wraps the rest"),
        pytest.param((3, 40), (SHORT, SHORT), 12, (3, 7), id="a short one is not made longer"),
        pytest.param((8, 9, 9), (FIXED, SPARE, FIXED), 26, (8, 5, 9), id="shortened rather than left out"),
        pytest.param((8, 9, 9), (FIXED, SPARE, FIXED), 25, (8, None, 9), id="left out"),
        pytest.param((8, 9, 9), (FIXED, SPARE, SPARE), 20, (8, None, 9), id="the first one first"),
        pytest.param((8, 9, 9), (FIXED, SPARE, SPARE), 9, (8, None, None), id="both"),
        pytest.param((8,), (FIXED,), 3, (8,), id="nothing gives way"),
    ],
)
def test_fit(
    widths: tuple[int, ...], limits: tuple[Limit, ...], width: int, fitted: tuple[int | None, ...]
) -> None:
    """The width of each column; None for one that is left out."""
    found = fit(widths, limits, width)
    assert tuple(found.get(index) for index in range(len(widths))) == fitted
