"""Tests of tasks/effects: real files, sockets and processes."""
