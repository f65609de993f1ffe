"""The real `doit`, run as a user runs it."""
