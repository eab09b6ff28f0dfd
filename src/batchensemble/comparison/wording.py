"""How methods are called, and lists of names in a sentence."""

from __future__ import annotations

from collections.abc import Sequence

# The long names are for prose and figures; the short ones are what users type.
METHOD_NAMES = {
    "single": "Single network",
    "deep": "Deep ensemble",
    "batch": "BatchEnsemble",
    "mimo": "MIMO",
}
# Within a sentence, where they differ from that.
SPOKEN = {"single": "the single network", "deep": "the deep ensemble"}


def spoken(method: str) -> str:
    """Return a method's name within a sentence.

    Example:
        >>> spoken("deep"), spoken("batch")
        ('the deep ensemble', 'BatchEnsemble')
    """
    return SPOKEN.get(method, METHOD_NAMES.get(method, method))


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
