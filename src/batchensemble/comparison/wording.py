"""Names of methods in titles and sentences, and lists of names."""

from __future__ import annotations

from collections.abc import Sequence

from batchensemble.ensembles.methods import METHODS


def method_title(method: str) -> str:
    """Return a method's title, such as in tables; an unknown method's own name.

    Example:
        >>> method_title("deep"), method_title("another")
        ('Deep ensemble', 'another')
    """
    return METHODS[method].title if method in METHODS else printable(method)


def method_phrase(method: str) -> str:
    """Return a method's name within a sentence; an unknown method's own name.

    Example:
        >>> method_phrase("deep"), method_phrase("batch")
        ('the deep ensemble', 'BatchEnsemble')
    """
    return METHODS[method].phrase if method in METHODS else printable(method)


def capitalised(sentence: str) -> str:
    """Return a sentence that begins with a capital.

    Example:
        >>> capitalised("the deep ensemble is best.")
        'The deep ensemble is best.'
    """
    return sentence[:1].upper() + sentence[1:]


def printable(text: str) -> str:
    """Return a name on one line, without control characters.

    Example:
        >>> printable("plants\\n\\x1b[31m.csv")
        'plants [31m.csv'
    """
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def join_names(names: Sequence[str]) -> str:
    """Return names joined by commas and "and".

    Example:
        >>> join_names(["a"]), join_names(["a", "b"]), join_names(["a", "b", "c"])
        ('a', 'a and b', 'a, b and c')
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
