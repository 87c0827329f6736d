"""The disk: segments, recovery, the flusher. Knows the ring, never the wire."""
