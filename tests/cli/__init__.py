"""The real `doit`, run as a user runs it, where a test is about several capabilities."""
