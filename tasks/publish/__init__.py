"""Publish a model: write its files and a manifest to a registry."""
