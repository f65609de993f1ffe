"""Tests of tasks/network."""
