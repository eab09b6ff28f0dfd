"""Numbers that are written with a unit, a currency or separators of thousands."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

import numpy as np

# What stands before and after a number. Other letters before it make a name, such as CUS0012.
CURRENCIES = "USD|EUR|GBP|CHF|JPY|CNY|INR|CAD|AUD|NZD|SEK|NOK|DKK|PLN|CZK|HUF|BRL|MXN|ZAR|KRW"
BEFORE = rf"(?:US|A|C)?[$€£¥₹]|(?:{CURRENCIES}|Rs\.?) ?"
AFTER = r" ?(?:%|°[CF]?|[$€£¥₹]|[A-Za-zµ]{1,10}[²³]?(?:/[A-Za-z]{1,10}[²³]?)?)"
WITH_UNIT = re.compile(
    rf"(?P<sign>[+-]?)(?P<before>(?:{BEFORE})?) ?(?P<number>[0-9][0-9.,]*)(?P<after>(?:{AFTER})?)"
)
FORM = re.compile(rf"(?:{BEFORE})?#(?:{AFTER})?")
LEAST = 0.9  # share of the words of a column that must be written alike


def form_of(words: Mapping[str, int], decimal: str = ".") -> str:
    """Return how the words of a column are written if they are numbers; empty if they are not.

    Args:
        words: how often each occurs.
        decimal: the decimal sign.

    Returns:
        A ``#`` for the number, with what stands before and after it.

    Example:
        >>> form_of({"$1,200": 1, "$90": 1}), form_of({"12 %": 1}), form_of({"A1": 1, "B2": 1})
        ('$#', '# %', '')
    """
    forms: Counter[str] = Counter()
    for word, count in words.items():
        found = WITH_UNIT.fullmatch(word)
        if found is not None:
            forms[f"{found['before']}#{found['after']}"] += count
    if not forms:
        return ""
    (form, _), *_ = forms.most_common(1)
    alike = sum(
        count for word, count in words.items() if not np.isnan(in_unit(word, form, decimal))
    )
    return form if alike >= LEAST * sum(words.values()) else ""


def in_unit(word: str, form: str, decimal: str = ".") -> float:
    """Return a number that is written in a form; NaN for any other word.

    Example:
        >>> in_unit("-$1,200.50", "$#"), in_unit("12 kg", "#%"), in_unit("1.200", "#", ",")
        (-1200.5, nan, 1200.0)
    """
    found = WITH_UNIT.fullmatch(word)
    if found is None or f"{found['before']}#{found['after']}" != form:
        return np.nan
    thousands = "," if decimal == "." else "."
    number = rf"(?:[0-9]+|[0-9]{{1,3}}(?:{re.escape(thousands)}[0-9]{{3}})+)"
    number += rf"(?:{re.escape(decimal)}[0-9]+)?"
    if not re.fullmatch(number, found["number"]):
        return np.nan
    return float(found["sign"] + found["number"].replace(thousands, "").replace(decimal, "."))
