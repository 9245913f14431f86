"""Plain text matching: the backend's search when Chroma is away, and its answers, made without a language model."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["best_sentences", "overlap", "words"]

_COMMON_TEXT = (
    "a an and are as at be but by can do does for from has have how i if in is it its me my not of on or our so "
    "that the their them then there they this to was we what when where which who why will with you your"
)
_COMMON = frozenset(_COMMON_TEXT.split())
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def words(text: str) -> frozenset[str]:
    """The words that carry a text's meaning, without case and plural.

    >>> sorted(words("How do the breakers recover?"))
    ['breaker', 'recover']
    """
    found = re.findall(r"\w+", text.lower())
    return frozenset(word.rstrip("s") or word for word in found if word not in _COMMON)


def overlap(query: str, text: str) -> int:
    """How many of the query's words the text holds."""
    return len(words(query) & words(text))


def best_sentences(query: str, passages: Iterable[str], limit: int = 3) -> str:
    """The sentences that share most words with the query, in the order they stand; empty when none shares any."""
    sentences = list(dict.fromkeys(part for passage in passages for part in _SENTENCE_END.split(passage.strip())))
    ranked = sorted(range(len(sentences)), key=lambda place: -overlap(query, sentences[place]))
    chosen = sorted(place for place in ranked[:limit] if overlap(query, sentences[place]) > 0)
    return " ".join(sentences[place] for place in chosen)
