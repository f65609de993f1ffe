"""Engines and their servers: command line, start, readiness, records, logs, failures."""
