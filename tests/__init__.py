"""Tests of ingestd."""
