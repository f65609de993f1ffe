"""A server: the process that runs an engine, and what asks it."""
