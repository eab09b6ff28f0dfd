"""Deprecated names: they work as before and warn.

A public name that is removed stays for two releases as such a name.
"""

from __future__ import annotations

import pkgutil
import warnings
from collections.abc import Callable
from typing import Any


def moved_to(function: str, *, old: str, until: str) -> Callable[..., Any]:
    """Return a method or function that warns and calls its replacement.

    The replacement is looked up when called, by its public name, so that a method may be replaced
    by a function of a higher package.

    Args:
        function: public name of the replacement, such as ``"batchensemble.calibrate"``.
        old: the deprecated name, for the warning.
        until: the release that removes the deprecated name.

    Example:
        >>> import warnings
        >>> root = moved_to("math.sqrt", old="root", until="0.3")
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     root(9.0), str(caught[0].message)
        (3.0, 'root is now math.sqrt, which takes the same arguments; root goes in release 0.3')
    """

    def forward(*args: Any, **kwargs: Any) -> Any:
        warnings.warn(
            f"{old} is now {function}, which takes the same arguments; {old} goes in release "
            f"{until}",
            DeprecationWarning,
            stacklevel=2,
        )
        return pkgutil.resolve_name(function)(*args, **kwargs)

    forward.__name__ = forward.__qualname__ = old.rpartition(".")[2]
    forward.__doc__ = f"Use :func:`{function}`; this name goes in release {until}."
    return forward
