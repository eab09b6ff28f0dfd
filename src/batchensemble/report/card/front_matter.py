"""The front matter of a model card: YAML that the Hugging Face Hub reads."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from batchensemble.comparison.wording import printable
from batchensemble.metrics.by_name import HIGHER_IS_BETTER

LIBRARY = "batchensemble"
TASK_OF_KIND = {"classes": "classification", "labels": "classification", "numbers": "regression"}


def front_matter(
    *,
    title: str,
    tags: Iterable[str],
    license: str | None,
    task: str | None,
    base_model: str | None,
    data: str | None,
    kind: str | None,
    scores: Mapping[str, Any] | None,
) -> str:
    """Return the front matter of a card, between lines of dashes.

    Texts are written as JSON, which is YAML in quotes, so that no text can end a value.

    Args:
        title: of the card.
        tags: what the Hub lists the model under.
        license: its identifier, such as ``"mit"``, if it is known.
        task: the Hub's name of the task, such as ``"text-classification"``, if it is known.
        base_model: name on the Hub of the network that was adapted, if it is known.
        data: name of the data that the model was scored on; scores are listed if it is known, as
            the Hub lists none without.
        kind: what the model predicts, if that is known.
        scores: its scores, if there are some.

    Example:
        >>> known = {"license": "mit", "task": None, "base_model": None, "kind": None}
        >>> print(front_matter(title="Moons", tags=["x"], data=None, scores={"nll": 0.5}, **known))
        ---
        library_name: "batchensemble"
        license: "mit"
        tags:
        - "x"
        metrics:
        - "nll"
        ---
    """
    lines = ["---", f"library_name: {quoted(LIBRARY)}"]
    single = {"license": license, "pipeline_tag": task, "base_model": base_model}
    lines += [f"{name}: {quoted(text)}" for name, text in single.items() if text is not None]
    lines += ["tags:", *(f"- {quoted(tag)}" for tag in tags)]
    ranked = {} if scores is None else _ranked(scores)
    lines += ["metrics:", *(f"- {quoted(name)}" for name in ranked)] if ranked else []
    if ranked and data is not None:
        lines += _model_index(title, task or TASK_OF_KIND.get(kind or "", "other"), data, ranked)
    return "\n".join([*lines, "---"])


def quoted(text: str) -> str:
    """Return a text in quotes as YAML reads it, on one line and without control characters.

    Example:
        >>> print(quoted("a: b\\n--- # é"))
        "a: b --- # é"
    """
    return json.dumps(printable(text), ensure_ascii=False)


def _ranked(scores: Mapping[str, Any]) -> dict[str, float]:
    """Return the scores that have a better end and a value."""
    return {
        name: float(scores[name])
        for name in scores
        if name in HIGHER_IS_BETTER and math.isfinite(scores[name])
    }


def _model_index(title: str, task: str, data: str, scores: Mapping[str, float]) -> list[str]:
    return [
        "model-index:",
        f"- name: {quoted(title)}",
        "  results:",
        "  - task:",
        f"      type: {quoted(task)}",
        "    dataset:",
        f"      name: {quoted(data)}",
        f"      type: {quoted(data)}",
        "    metrics:",
        *(
            line
            for name, value in scores.items()
            for line in (f"    - type: {quoted(name)}", f"      value: {_number(value)}")
        ),
    ]


def _number(value: float) -> str:
    """Return a number as YAML 1.1 reads it: a power of ten only after a point."""
    text = f"{value:.6g}"
    return text if "e" not in text or "." in text else text.replace("e", ".0e")
