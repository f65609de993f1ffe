"""Tests of the recipe; run with pytest from the repository root."""
