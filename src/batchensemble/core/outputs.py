"""What a network returns: a tensor, or an output with logits, as those of Hugging Face."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor


def logits_of(outputs: Any) -> Any:
    """Return the logits of an output that has some; anything else as it is.

    Example:
        >>> import torch
        >>> logits_of({"loss": torch.tensor(1.0), "logits": torch.zeros(2, 3)}).shape
        torch.Size([2, 3])
    """
    if isinstance(outputs, Tensor):
        return outputs
    named = outputs.get("logits") if isinstance(outputs, Mapping) else None
    logits = getattr(outputs, "logits", named)
    return logits if isinstance(logits, Tensor) else outputs


def with_logits(outputs: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return an output with its logits changed, or a changed tensor."""
    logits = logits_of(outputs)
    if logits is outputs:
        return change(outputs)
    if isinstance(outputs, Mapping):
        outputs["logits"] = change(logits)  # type: ignore[index]
    else:
        outputs.logits = change(logits)
    return outputs
