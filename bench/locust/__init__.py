"""Realistic mixes of clients, for Locust."""
