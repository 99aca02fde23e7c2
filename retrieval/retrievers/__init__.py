"""Retrievers: one module per way from a query to candidates."""
