"""The operating system: files, processes, signals, ports, memory."""
