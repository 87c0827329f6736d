"""Sealed segments to object storage: a process beside the server, which it knows by its files only."""
