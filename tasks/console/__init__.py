"""Output for people and CI systems: text, tables, progress, log lines."""
