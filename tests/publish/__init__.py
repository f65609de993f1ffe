"""What is written to registries."""
