"""Run + qrels -> numbers."""
