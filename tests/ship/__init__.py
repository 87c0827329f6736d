"""Shipping: sealed segments to object storage, against a real store."""
