"""Tests of tasks/upstream."""
