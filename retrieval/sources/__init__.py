"""Readers of documents: one module per source format."""
