"""How the words of a command become values, for both commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cyclopts import Token, convert


def strictly(hint: Any, words: Sequence[Token]) -> Any:
    """Converts words as cyclopts does, but refuses to round: `--days 1.5` is no 2.

    Raises:
        ValueError: a fraction stands where a whole number is expected.
    """
    return convert(hint, words, converter=_convert_one)


def _convert_one(hint: Any, word: str) -> Any:
    if hint is int and "." in word and not float(word).is_integer():
        raise ValueError(f"Expected a whole number, got {word}.")
    return convert(hint, (word,))
