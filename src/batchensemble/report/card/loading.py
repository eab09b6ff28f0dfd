"""The lines of Python on a card that load its model."""

from __future__ import annotations

from typing import Any

from torch import nn

from batchensemble.ensembles.saving.architectures import record_of

PRETRAINED = "# network: the pretrained network, with its weights"
SAME = "# network: one of the same architecture; its weights do not matter"


def loading(
    where: str,
    plain: nn.Module,
    *,
    estimator: str | None = None,
    network: str | None = None,
    adapter: bool = False,
    base: str | None = None,
) -> list[str]:
    """Return the lines of Python that load a model and predict.

    Args:
        where: its name on the Hub, or its folder.
        plain: one of its members as a plain network.
        estimator: the class of the estimator that it is of, if it is of one.
        network: the function that its folder names to build the network, if it names one.
        adapter: whether its folder holds an adapter.
        base: name on the Hub of the network that was adapted, if it is known.

    Example:
        >>> print("\\n".join(loading("ann/moons", nn.Linear(2, 3))))
        import batchensemble as be
        # network: one of the same architecture; its weights do not matter
        model = be.from_pretrained('ann/moons', network)
        prediction = be.predict(model, X)
    """
    if estimator is not None:
        return [
            f"from batchensemble import {estimator}",
            f"model = {estimator}.from_pretrained({where!r})",
            "predictions, uncertainty = model.predict(X), model.predict_uncertainty(X)",
        ]
    before, arguments = [], repr(where)
    if adapter:
        before, arguments = _base(plain, base), f"{where!r}, network"
    elif network is not None:
        package = network.partition(":")[0].partition(".")[0]
        arguments = f"{where!r}, trust=[{package!r}]"
    elif record_of(plain) is None:
        before, arguments = [SAME], f"{where!r}, network"
    return [
        "import batchensemble as be",
        *before,
        f"model = be.from_pretrained({arguments})",
        "prediction = be.predict(model, X)",
    ]


def _base(plain: nn.Module, base: str | None) -> list[str]:
    """Return the lines that load the base, which are known for networks of transformers."""
    kind = type(plain)
    if base is None or kind.__module__.partition(".")[0] != "transformers":
        return [PRETRAINED]
    arguments = repr(base)
    if kind.__name__.endswith("Classification"):  # as many outputs as the adapter's own head
        config: Any = plain.config
        arguments += f", num_labels={config.num_labels}"
    return [
        f"from transformers import {kind.__name__}",
        f"network = {kind.__name__}.from_pretrained({arguments})",
    ]
