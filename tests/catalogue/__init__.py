"""Tests of tasks/catalogue."""
