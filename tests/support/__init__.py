"""Helpers shared by tests: projects, servers, terminals."""
