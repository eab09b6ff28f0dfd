"""``adapt`` a pretrained network to an ensemble that fine-tunes a few weights of each member."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

from torch import nn

from batchensemble.core.arguments import one_of
from batchensemble.ensembles.adapting.targets import norm_names, target_names
from batchensemble.ensembles.base_weights import BaseWeights
from batchensemble.ensembles.conversion.branching import Branch
from batchensemble.ensembles.conversion.checks import check_network
from batchensemble.ensembles.conversion.parameter_groups import parts_of
from batchensemble.ensembles.conversion.rules import Selectors, as_list, selected_names
from batchensemble.ensembles.methods.batch import BatchEnsemble
from batchensemble.ensembles.runner import RunMode

AdaptMethod = Literal["multiplicative", "lora"]
Trained = Literal["member", "shared", "frozen"]

STD = 0.1  # of multiplicative fast weights around 1
RANK = 8  # of each member's LoRA


def adapt(
    network: nn.Module,
    members: int,
    *,
    method: AdaptMethod = "multiplicative",
    targets: Selectors = "linear",
    exclude: Selectors = (),
    heads: Selectors = (),
    rank: int | None = None,
    alpha: float | None = None,
    std: float | None = None,
    norms: Trained = "member",
    biases: Trained = "member",
    one_by_one: Selectors = (),
    batch_axis: int = 0,
    untiled: Collection[str] = (),
    branch_at: str | None = None,
    run: RunMode | None = None,
    inplace: bool = False,
) -> BatchEnsemble:
    """Turn a pretrained network into an ensemble for fine-tuning.

    Its weights are shared by all members and frozen. What trains is each member's own: fast weights
    of the targets, heads, and by default norms and biases. Train it by :func:`batchensemble.fit` or
    any other loop, and save what was trained by :func:`batchensemble.save_adapter`.

    Modules are selected by name, by the end of a name (``"query"`` is every ``"*.query"``), by a
    pattern such as ``"encoder.layer.1?.*"``, by class, or by a function from name and module to a
    boolean. A name that some module has in full is that module alone.

    Args:
        network: any pretrained module that maps ``[batch, ...]`` to ``[batch, ...]``; it is copied.
        members: number of members (M), at least 1.
        method: ``"multiplicative"`` (default): ``W ∘ (s_m r_mᵀ)``, the factors drawn from
            normal(1, ``std``) (BatchEnsemble, arXiv 2002.06715). ``"lora"``: ``W + (alpha / rank)
            S_mᵀ R_m`` with S zero at the start (LoRA-Ensemble, arXiv 2405.14438).
        targets: layers that get fast weights. ``"linear"`` or ``"all-linear"`` (default): all
            linear layers but the output embeddings of a language model. ``"attention"``: those of
            them in modules whose name or class has ``attention`` or ``attn`` in it. Or modules,
            with the layers beneath them but for embeddings.
        exclude: modules that get no fast weights and no norms of their own; by default none.
        heads: modules of which each member has its own copy, drawn anew; by default none.
        rank: rank of each member's change with ``"lora"``; by default 8.
        alpha: scale of the change with ``"lora"``; by default ``rank``, so that the factor is 1.
        std: standard deviation of the factors with ``"multiplicative"``; by default 0.1.
        norms: ``"member"`` (default): each member trains its own norm layers, ``"shared"``: all
            train the same, ``"frozen"``: they stay as they are. Running statistics are each
            member's own.
        biases: the same for the biases of the targets. With ``"member"`` and ``"shared"`` biases of
            other layers train, too, one for all members.
        one_by_one: modules that run once for each member, see :class:`batchensemble.BatchEnsemble`.
        batch_axis: axis of the batch in the inputs: 0 (default), or 1 if the sequence comes first.
        untiled: names of arguments that are not per example, see
            :class:`batchensemble.BatchEnsemble`.
        branch_at: name of the module at which the ensemble begins, see
            :class:`batchensemble.BatchEnsemble`; targets and norms before it are left out.
        run: how the members run, see :class:`batchensemble.BatchEnsemble`.
        inplace: convert ``network`` itself instead of a copy; by default a copy.

    Returns:
        An ensemble; ``report()`` says what trains. Its attribute ``base`` holds the SHA-256 of the
        network's weights, which are read once for that.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of range or does not go with the method, a selector matches
            nothing, or no layer is left; the message names the layers there are.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> model = adapt(net, members=4, heads=["2"])
        >>> print(str(model.report()).splitlines()[-1])
        trainable: 180 of 196 (91.84 %)
    """
    _check_options(method, rank, alpha, std)
    one_of("norms", norms, ("member", "shared", "frozen"))
    one_of("biases", biases, ("member", "shared", "frozen"))
    check_network(network)
    heads = [*dict.fromkeys(selected_names(network, "heads", as_list("heads", heads)) or ())]
    exclude = as_list("exclude", exclude)
    include = target_names(network, targets, exclude, heads)
    include += norm_names(network, exclude, heads, all_=norms == "member")
    if branch_at is not None:
        trunk = Branch.of(network, branch_at).trunk
        include = [each for each in include if not _within(each, trunk)]
    base = BaseWeights.of(network, heads)
    chosen: dict[str, Any] = {"init": "normal", "std": STD if std is None else std}
    if method == "lora":
        rank = RANK if rank is None else rank
        chosen = {"mode": "additive", "rank": rank, "alpha": alpha, "init": "zeros"}
    model = BatchEnsemble(
        network,
        members,
        **chosen,
        include=None if include == [""] else include,  # the network itself is a layer
        independent=heads,
        bias="member" if biases == "member" else "shared",
        norm="member" if norms == "member" else "shared",
        one_by_one=one_by_one,
        batch_axis=batch_axis,
        untiled=untiled,
        branch_at=branch_at,
        run=run,
        inplace=inplace,
    )
    model.base = base
    wanted = {"fast", "heads"}
    wanted |= {"norm"} if norms != "frozen" else set()
    wanted |= {"bias"} if biases != "frozen" else set()
    return model.train_only(*sorted(wanted & {*parts_of(model.network).values()}))


def _within(name: str, modules: Collection[str]) -> bool:
    return any(name == each or name.startswith(f"{each}.") for each in modules)


def _check_options(method: str, rank: int | None, alpha: float | None, std: float | None) -> None:
    one_of("method", method, ("multiplicative", "lora"))
    given = {"rank": rank, "alpha": alpha} if method == "multiplicative" else {"std": std}
    for name, value in given.items():
        if value is not None:
            other = "lora" if method == "multiplicative" else "multiplicative"
            raise ValueError(f"{name} needs method={other!r}, got {name}={value} and {method!r}")
