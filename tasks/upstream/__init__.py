"""What publishers (the Hub, GitHub) state about a file."""
