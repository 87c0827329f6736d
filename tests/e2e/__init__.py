"""The real process, end to end: over sockets, signals and files."""
