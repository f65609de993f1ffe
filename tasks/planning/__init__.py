"""What a command will need: bytes, disk space, memory."""
