"""Identify the writer of a partial file among processes of all machines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tasks.system.process_id import ProcessId
from tasks.system.process_identity import LEASE_S, NEAR_LEASE_S, current, may_be_writing

ROOT = Path(__file__).resolve().parents[2]
ELSEWHERE = ProcessId(1, 1.0, "another boot", host="elsewhere")
CHILD = """
import json, sys
from tasks.system.process_identity import current
print(json.dumps(current().as_owner()), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def journal(tmp_path: Path) -> str:
    path = tmp_path / "journal"
    path.write_text("{}")
    return str(path)


def test_it_goes_through_json() -> None:
    """R19: what the journal holds."""
    assert ProcessId.parse_owner(json.loads(json.dumps(current().as_owner()))) == current()


@pytest.mark.parametrize(
    "data", [None, 1, "", "abc", [], [1, 2, 3], ["h", "b", "x", 1], ["h", "b", 1, None], {}]
)
def test_what_is_none(data: Any) -> None:
    """R20: malformed data is not an owner."""
    assert ProcessId.parse_owner(data) is None


def test_this_process_does_not_wait_for_itself(journal: str) -> None:
    """R19: an earlier try of the same process."""
    assert not may_be_writing(current(), journal)


def test_another_process_is_alive_until_it_ends(journal: str) -> None:
    """R19: its pid alone would not do."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", CHILD], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout
        assert child.stdin
        owner = ProcessId.parse_owner(json.loads(child.stdout.readline()))
        assert owner
        assert owner.boot == current().boot
        assert may_be_writing(owner, journal)
        assert not may_be_writing(
            replace(owner, started=owner.started - 100), journal
        )  # its pid was used again
        child.stdin.close()
        child.wait(60)
        assert not may_be_writing(owner, journal)


@pytest.mark.parametrize("age_s", [0.0, LEASE_S / 2, LEASE_S + 1, 1e6])
def test_another_machine_goes_by_the_age_of_its_journal(journal: str, age_s: float) -> None:
    """R19: processes of another machine are not visible here."""
    other = ELSEWHERE
    then = time.time() - age_s
    os.utime(journal, (then, then))
    assert may_be_writing(other, journal) == (age_s < LEASE_S)


def test_a_journal_of_the_future_is_not_waited_for_for_ever(journal: str) -> None:
    """R27: a clock that was wrong; a copy that kept its times."""
    then = time.time() + 30 * 24 * 3600
    os.utime(journal, (then, then))
    assert not may_be_writing(ELSEWHERE, journal)


def test_before_this_machine_started_anew(journal: str) -> None:
    """R19: a process of an earlier boot does not run any more."""
    assert not may_be_writing(replace(current(), boot="another boot"), journal)


def test_without_a_journal_nobody_writes(tmp_path: Path) -> None:
    """R19: it has been published meanwhile."""
    assert not may_be_writing(ELSEWHERE, str(tmp_path / "none"))


def test_an_owner_of_an_earlier_version() -> None:
    """Its journal has no namespace: its pid is looked for here, as before."""
    host, boot, pid, started, _ = current().as_owner()
    assert ProcessId.parse_owner([host, boot, pid, started]) == ProcessId(pid, started, boot, "", host=host)
    assert ProcessId.parse_owner([host, boot, pid, started, "pid:[1]", "more"]) is None


@pytest.mark.parametrize(("age_s", "alive"), [(0.0, True), (NEAR_LEASE_S + 1, False), (1e6, False)])
def test_another_container_goes_by_the_age_of_its_journal(journal: str, age_s: float, alive: bool) -> None:
    """Finding 31: its pids mean other processes here, or none."""
    then = time.time() - age_s
    os.utime(journal, (then, then))
    for pid in (os.getpid(), os.getppid(), 1, 10**9):
        other = replace(current(), host="container", pid=pid, space="pid:[1]")
        assert may_be_writing(other, journal) is alive


@pytest.mark.parametrize("pid", [-1, 0, 10**9, 10**30])
def test_pids_that_cannot_be(journal: str, pid: int) -> None:
    """R20: a journal that somebody has written by hand."""
    assert not may_be_writing(replace(current(), pid=pid, started=1.0), journal)
