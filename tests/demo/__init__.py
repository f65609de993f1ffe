"""The demo model and its corpus."""
