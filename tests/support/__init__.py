"""Helpers of several tests: projects, servers, terminals."""
