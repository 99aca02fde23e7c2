"""Text, ids, models and pipelines: everything from a query to a ranking."""
