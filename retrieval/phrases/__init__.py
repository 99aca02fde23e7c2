"""Exact phrases and n-grams of tokens over the documents of a collection: fields of kind "substring".

config.py       SubstringField: what decides the bytes of such a field
tokenizer.py    the tokenizer of a field: text to tokens and characters
sequences.py    what is indexed: of every document its title and its text, two sequences of tokens; writing them
covered.py      a field as one search sees it: its index, less what was replaced or deleted since
grep.py         where a phrase occurs, exactly
ngrams.py       how often an n-gram occurs, and what follows it
"""

from retrieval.phrases.config import SubstringField

__all__ = ["SubstringField"]
