"""Tests of tasks/engine."""
