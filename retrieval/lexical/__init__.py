"""Lexical engines behind one protocol."""
