"""How methods are called, and lists of names in a sentence."""

from __future__ import annotations

from collections.abc import Sequence

from batchensemble.ensembles.methods import METHODS


def titled(method: str) -> str:
    """Return a method's long name; that of one which is not known here is what it is called.

    Example:
        >>> titled("deep"), titled("another")
        ('Deep ensemble', 'another')
    """
    return METHODS[method].title if method in METHODS else printable(method)


def spoken(method: str) -> str:
    """Return a method's name within a sentence.

    Example:
        >>> spoken("deep"), spoken("batch")
        ('the deep ensemble', 'BatchEnsemble')
    """
    return METHODS[method].phrase if method in METHODS else printable(method)


def begin(sentence: str) -> str:
    """Return a sentence with a capital at its beginning.

    Example:
        >>> begin("the deep ensemble is best.")
        'The deep ensemble is best.'
    """
    return sentence[:1].upper() + sentence[1:]


def printable(text: str) -> str:
    """Return a name on one line, without what would steer a terminal.

    Example:
        >>> printable("plants\\n\\x1b[31m.csv")
        'plants [31m.csv'
    """
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def listed(names: Sequence[str]) -> str:
    """Return names with commas and an "and".

    Example:
        >>> listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])
        ('a', 'a and b', 'a, b and c')
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
