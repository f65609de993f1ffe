"""models.yaml and models.lock: validation, and resolving a command line to files."""
