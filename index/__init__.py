"""Integers and floats only: vectors, token ids, bitmaps and the checksummed files they live in."""
