"""Results, style and script inside the page, with a policy that blocks everything else."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from typing import Any

from markupsafe import Markup


def finite(content: Any) -> Any:
    """Return JSON data with ``None`` for what JSON has no number for: NaN and infinities.

    Example:
        >>> finite({"losses": [0.5, float("nan")]})
        {'losses': [0.5, None]}
    """
    if isinstance(content, dict):
        return {key: finite(each) for key, each in content.items()}
    if isinstance(content, (list, tuple)):
        return [finite(each) for each in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content


def json_block(content: Any) -> Markup:
    """Return JSON for a ``<script type="application/json">``, which no text in it can end.

    Args:
        content: JSON data; NaN and infinities become ``null``.

    Example:
        >>> json_block({"name": "</script><b>"})
        Markup('{"name":"\\\\u003c/script\\\\u003e\\\\u003cb\\\\u003e"}')
    """
    text = json.dumps(finite(content), separators=(",", ":"), allow_nan=False)
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)


def policy(style: str, script: str) -> str:
    """Return a Content-Security-Policy: embedded images, this style and this script only.

    Args:
        style, script: the exact texts between the tags.

    Example:
        >>> policy("", "").split("; ")[:2]
        ["default-src 'none'", 'img-src data:']
    """
    allowed = {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": _hash(style),
        "script-src": _hash(script),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{what} {source}" for what, source in allowed.items())


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
