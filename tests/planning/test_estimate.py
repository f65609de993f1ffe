"""What a command line will need, and whether that can work (issue 5.5)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tasks.cache.space import SPACE_MARGIN
from tasks.planning import estimate
from tasks.planning.estimate import OVERHEAD, FilePlan, MemoryEstimate
from tasks.planning.plan_report import state_text

GB = 10**9


def a_need(state: str, size: int | None = GB, taken: int = 0) -> FilePlan:
    return FilePlan("m", "/cache/m", state, "https://example.org/m", size, taken)


def a_memory(weights: int | None = GB, cache: int | None = GB, **more: Any) -> MemoryEstimate:
    return MemoryEstimate("m", weights, cache, 4096, True, False)._replace(**more)


@pytest.mark.parametrize(
    ("file_plan", "to_fetch", "to_write", "words"),
    [
        pytest.param(a_need("have"), 0, 0, "have", id="here"),
        pytest.param(a_need("changed"), 0, 0, "changed", id="to be read again"),
        pytest.param(a_need("fetch"), GB, GB, "fetch", id="whole"),
        pytest.param(a_need("fetch", None), None, None, "fetch", id="nobody says how large"),
        pytest.param(a_need("resume", GB, GB // 4), GB * 3 // 4, GB * 3 // 4, "resume from 25 %", id="rest"),
        pytest.param(a_need("resume", None, 5000), None, None, "resume from 5.00 kB", id="rest of unknown"),
        pytest.param(a_need("adopt"), 0, GB, "adopt", id="another program's: disk, no network"),
        pytest.param(a_need("copy", None), 0, 0, "copy", id="a copy of unknown size"),
        pytest.param(a_need("nowhere"), 0, 0, "nowhere", id="nobody says where"),
    ],
)
def test_bytes_of_a_file(file_plan: FilePlan, to_fetch: int | None, to_write: int | None, words: str) -> None:
    """Issue 5.5: what goes over the network, and what the disk has to take."""
    assert (file_plan.to_fetch, file_plan.to_write) == (to_fetch, to_write)
    assert state_text(estimate.as_json(file_plan)) == words


def test_memory_is_weights_cache_and_overhead() -> None:
    """Issue 5.5: and what the catalogue says where one of them is not known."""
    assert a_memory(5 * GB, 2 * GB).needed == 7 * GB + OVERHEAD
    assert a_memory(None).needed is None
    assert a_memory(5 * GB, None, declared=7 * GB).needed == 7 * GB
    assert a_memory(None, 2 * GB, declared=7 * GB, beyond=GB).needed == 8 * GB


@pytest.mark.parametrize(
    ("need", "remedy"),
    [
        (a_memory(7 * GB, 2 * GB), "a smaller --ctx-size, or a smaller model"),
        (a_memory(7 * GB, 2 * GB, engine=90 * GB), "a smaller --ctx-size, or a smaller model"),  # buffers
        (a_memory(9 * GB, 2 * GB), "a smaller model"),
        (a_memory(None, 2 * GB, declared=7 * GB, beyond=2 * GB), "a smaller --ctx-size, or a smaller model"),
        (a_memory(None, 2 * GB, declared=50 * GB, beyond=2 * GB), "a smaller model"),
        (a_memory(None, 2 * GB, declared=50 * GB), "a smaller model"),
        (a_memory(9 * GB, variant="q4"), "--variant q4, or a smaller model"),
        (a_memory(7 * GB, 2 * GB, variant="q4"), "a smaller --ctx-size, or --variant q4, or a smaller model"),
    ],
)
def test_a_remedy_that_helps(need: MemoryEstimate, remedy: str) -> None:
    """Issue 14.2: 8 GB are here; a smaller context does not help if the weights alone are too large."""
    [(_, fix)] = estimate.blockers([], 0, [need], 8 * GB)
    assert fix == f"{remedy} (`doit catalogue --fits` shows them)"
    named = estimate.memory_remedy(need, 8 * GB, "phi")
    assert named == f"{remedy}, such as phi (`doit catalogue --fits` shows them)"


@pytest.mark.parametrize(
    ("needs", "free", "memory", "expected"),
    [
        pytest.param([], 0, [], [], id="nothing needs nothing"),
        pytest.param([a_need("have")], 0, [], [], id="a full disk is enough for what is here"),
        pytest.param([a_need("fetch")], GB + SPACE_MARGIN, [], [], id="just enough"),
        pytest.param(
            [a_need("fetch")],
            GB,
            [],
            ["the disk has 1.00 GB free: 67.1 MB are missing for 1.00 GB and 67.1 MB that stay free"],
            id="margin",
        ),
        pytest.param(
            [a_need("fetch"), a_need("adopt")],
            GB,
            [],
            ["the disk has 1.00 GB free: 1.07 GB are missing for 2.00 GB and 67.1 MB that stay free"],
            id="all files together",
        ),
        pytest.param(
            [], 0, [a_memory(9 * GB)], ["m needs 10.3 GB of memory, and 8.00 GB are here"], id="memory"
        ),
        pytest.param([], 0, [a_memory(9 * GB, gpu=True)], [], id="a GPU's memory is not known here"),
        pytest.param([], 0, [a_memory(None)], [], id="nothing known, nothing said"),
    ],
)
def test_what_cannot_work(
    needs: list[FilePlan], free: int, memory: list[MemoryEstimate], expected: list[str]
) -> None:
    """Issue 5.5: each reason with a remedy."""
    found = estimate.blockers(needs, free, memory, 8 * GB)
    assert [what for what, _ in found] == expected
    assert all(fix for _, fix in found)


_NEEDS = st.builds(
    a_need,
    st.sampled_from(["have", "changed", "fetch", "resume", "adopt", "copy", "nowhere"]),
    st.one_of(st.none(), st.integers(1, 10**12)),
    st.integers(0, 10**12),
)


@given(st.lists(_NEEDS), st.integers(0, 10**13))
def test_more_disk_never_hurts(needs: list[FilePlan], free: int) -> None:
    """Issue 5.5: and what comes is never less than what goes over the network."""
    if not estimate.blockers(needs, free, [], 0):
        assert not estimate.blockers(needs, free + 1, [], 0)
    assert estimate.total([n.to_write for n in needs])[0] >= estimate.total([n.to_fetch for n in needs])[0]
