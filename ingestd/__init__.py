"""ingestd: HTTP events in, durable zstd NDJSON segments out."""

__version__ = "0.1.0"
