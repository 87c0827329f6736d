"""Tests of the storage: format, recovery, flusher, reader."""
