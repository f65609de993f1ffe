"""Downloading one file: connections, ranges, resume, hashing, locks."""
