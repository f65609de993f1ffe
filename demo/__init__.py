"""The demo model: its file, and what made it. The recipe reads only the file."""
