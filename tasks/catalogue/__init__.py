"""models.yaml and models.lock: types, validation, and resolving a command line to files."""
