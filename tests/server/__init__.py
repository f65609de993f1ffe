"""Tests of tasks/server."""
