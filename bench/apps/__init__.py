"""The same service as others would write it: typed, validated, with a key, gzip, and a file of lines.

Each reads `BENCH_KEY`, `BENCH_FILE` and `BENCH_PORT`, keeps events with an append to the file, and
answers when the lines have been handed to the kernel, as ingestd's `ack = "write"` does.
"""
