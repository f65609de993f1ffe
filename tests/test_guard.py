"""The guard of conftest guards: a test that tries to leave this machine fails."""

from __future__ import annotations

import os
import socket

import pytest

from tests.conftest import NetworkRefused


def test_only_loopback_is_reached() -> None:
    """A connection to any other address is refused before a packet leaves."""
    with socket.socket() as sock, pytest.raises(NetworkRefused):
        sock.connect(("192.0.2.1", 80))


def test_the_users_environment_is_not_seen(tmp_path: object) -> None:
    """Neither tokens nor caches of the user reach a test."""
    assert os.environ["HOME"] == f"{tmp_path}/home"
    assert not [name for name in os.environ if name.startswith(("HF_", "LLAMAFILE_"))]
