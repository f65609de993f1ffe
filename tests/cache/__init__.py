"""Tests of tasks/cache."""
