"""Tests of tasks/deploy."""
