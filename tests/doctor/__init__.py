"""Tests of tasks/doctor."""
