"""The wire: framing, guards, inflate, answers. Knows the ring, never the disk."""
