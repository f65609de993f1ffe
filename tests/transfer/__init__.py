"""Tests of tasks/transfer."""
