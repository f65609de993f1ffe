"""Doing: one kind of input or output per module; what to do is decided in `tasks.core`."""
