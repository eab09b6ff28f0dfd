"""How an ensemble for tables is built and trained where nothing else is said."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from batchensemble.core.arguments import one_of
from batchensemble.data.tables.encoding.encoding import TableEncoding
from batchensemble.ensembles import METHODS, Ensemble
from batchensemble.ensembles.table_embedding import table_bins
from batchensemble.ensembles.table_network import TableNetwork
from batchensemble.layers.rank_one.initialisation import (
    MULTIPLICATIVE,
    feature_normals,
    feature_signs,
)
from batchensemble.layers.rank_one.options import Initialisation

# Examples a step by training rows: the most rows for which each is used.
BATCH_SIZES = ((1_000, 64), (6_400, 128), (32_000, 256), (108_000, 512))
LARGEST_BATCH = 1024
BY_FEATURE = {"feature_signs": feature_signs, "feature_normals": feature_normals}
START = "feature_signs"
STARTED = ("batch", "tabm", "tabm_mini")  # methods whose fast weights have an initialisation


@dataclass(frozen=True)
class TableRecipe:
    """How an ensemble for tables is built and trained.

    ``benchmarks/tables/`` measures the defaults beside other methods. The network follows TabM
    (Gorishniy et al. 2025, arXiv 2410.24210).

    Attributes:
        method: a name of :data:`~batchensemble.ensembles.methods.METHODS`.
        members: number of members (M).
        hidden: widths of the hidden layers.
        dropout: probability of dropout after each.
        epochs: most passes over the training rows.
        batch_size: examples a step; by default by the number of rows, see :func:`batch_size_for`.
        lr: learning rate of AdamW.
        weight_decay: weight decay of the weights of layers.
        patience: epochs without a better score on the stopping rows before training stops.
        batches: which examples a member sees, see :func:`batchensemble.fit`; by default that of the
            method. ``"split"`` costs as much as one network.
        stop_on: the score on the stopping rows that decides, see :func:`batchensemble.fit`.
        init: how the members of ``method="batch"`` differ at the start: ``"feature_signs"`` or
            ``"feature_normals"``, one draw for each column, or another initialisation of
            :class:`~batchensemble.BatchEnsemble`; by default signs.

    Example:
        >>> print(TableRecipe(members=4))
        TableRecipe(members=4)
    """

    method: str = "batch"
    members: int = 8
    hidden: tuple[int, ...] = (128, 128)
    dropout: float = 0.1
    epochs: int = 200
    batch_size: int | None = None
    lr: float = 2e-3
    weight_decay: float = 3e-4
    patience: int = 12
    batches: str | None = None
    stop_on: str = "nll"
    init: str | None = None

    def __str__(self) -> str:
        """Return what is not the default."""
        values = ((each, getattr(self, each.name)) for each in fields(self))
        changed = [f"{each.name}={value!r}" for each, value in values if value != each.default]
        return f"{type(self).__name__}({', '.join(changed)})"

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as JSON can hold it."""
        return {**asdict(self), "hidden": list(self.hidden)}

    def fit_arguments(self, rows: int) -> dict[str, Any]:
        """Return the arguments of :func:`batchensemble.fit` for a number of training rows.

        Example:
            >>> TableRecipe().fit_arguments(5_000)["batch_size"]
            128
        """
        return {
            "epochs": self.epochs,
            "batch_size": self.batch_size or batch_size_for(rows),
            "lr": self.lr,
            "optimizer": "adamw",
            "weight_decay": self.weight_decay,
            "cooldown": 0.0,
            "patience": self.patience,
            "batches": self.batches,
            "stop_on": self.stop_on,
        }


def batch_size_for(rows: int) -> int:
    """Return the examples a step for a number of training rows.

    Example:
        >>> batch_size_for(1_000), batch_size_for(50_000), batch_size_for(10**6)
        (64, 512, 1024)
    """
    return next((size for most, size in BATCH_SIZES if rows <= most), LARGEST_BATCH)


def build_table_ensemble(
    recipe: TableRecipe,
    encoding: TableEncoding,
    X: Float[np.ndarray, "rows inputs"],
    outputs: int,
    *,
    seed: int | None = None,
    **options: Any,
) -> Ensemble:
    """Return an untrained ensemble for a table.

    Args:
        recipe: how it is built.
        encoding: of the table, in the layout ``"codes"``.
        X: encoded training rows, which the bins of the numbers are computed from.
        outputs: number of outputs of a member.
        seed: of the weights; the caller's random state is not changed. ``None``: drawn from it.
        options: further arguments of the method.

    Raises:
        ValueError: an argument is out of range.
    """
    one_of("method", recipe.method, METHODS)
    if recipe.init is not None and recipe.method not in STARTED:
        raise ValueError(
            f"init is for method={', '.join(map(repr, STARTED))}, got {recipe.init!r} and "
            f"{recipe.method!r}"
        )
    inputs = encoding.inputs
    with nullcontext() if seed is None else torch.random.fork_rng([]):
        if seed is not None:
            torch.manual_seed(seed)
        network = TableNetwork(
            inputs.numbers,
            inputs.flags,
            inputs.levels,
            outputs,
            hidden=recipe.hidden,
            dropout=recipe.dropout,
            bins=table_bins(torch.from_numpy(np.ascontiguousarray(X[:, : inputs.numbers]))),
        )
        method = METHODS[recipe.method]
        members = method.fixed_members or recipe.members
        found = {**_options(recipe.method), **options}
        if recipe.method in STARTED:
            found["init"] = _init(found, recipe, network)
        return method.build(network, members, **found)


def _init(
    options: Mapping[str, Any], recipe: TableRecipe, network: TableNetwork
) -> Initialisation | None:
    """Return the initialisation: the one asked for, or else signs."""
    multiplicative = options.get("mode", "multiplicative") == "multiplicative"
    init: Initialisation | None = options.get("init") or recipe.init
    if init is None and multiplicative:
        init = START
    if isinstance(init, str) and multiplicative:
        one_of("init", init, {**BY_FEATURE, **MULTIPLICATIVE})
    if isinstance(init, str) and init in BY_FEATURE:
        return BY_FEATURE[init](network.sections)
    return init


def _options(method: str) -> dict[str, Any]:
    """Return the arguments with which a method suits the network of tables."""
    # The network is known to keep rows apart, so that nothing has to find that out.
    after_embedding = {"branch_at": "backbone", "run": "together"}
    options: dict[str, dict[str, Any]] = {
        "batch": {**after_embedding, "independent": ["head"]},
        "deep": {"run": "together"},
        "mimo": {"branch_at": "backbone"},
        "film": after_embedding,
        "last_layer": {"run": "together"},
        "masksembles": after_embedding,
        "mc_dropout": after_embedding,
        "tabm": after_embedding,
        "tabm_mini": after_embedding,
    }
    return options.get(method, {})
