"""Diagnostics of the members during a training: collapse, divergence, mutual reliance."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from batchensemble.core.inputs import Inputs
from batchensemble.data.batches import ArrayBatches
from batchensemble.ensembles import Ensemble
from batchensemble.layers.modes import evaluating
from batchensemble.losses import cross_entropy
from batchensemble.losses.targets import Weighted, parted
from batchensemble.metrics.members.weights import fast_weight_spread
from batchensemble.training.callbacks.base import Callback, TrainingState
from batchensemble.training.callbacks.validation import EXAMPLES, EarlyStopping, example_weights
from batchensemble.training.distributed.strategy import Strategy

# The thresholds of the warnings.
COLLAPSED_DISAGREEMENT, COLLAPSED_SPREAD = 1e-4, 1e-3
LOST_MEMBER = 2.0
LEANING = 0.25  # nats


def diagnose(
    model: Ensemble,
    inputs: Inputs,
    targets: Tensor,
    strategy: Strategy | None = None,
    *,
    counting: Tensor | None = None,
) -> dict[str, Any]:
    """Return diagnostics of the members on some examples; the model is not changed.

    Args:
        model: an ensemble whose outputs are logits ``[batch, members, classes]``.
        inputs: examples that all members see; the first 512 are used.
        targets: their classes, ``[examples]``.
        strategy: how processes share the computation; ``None`` for a single process.
        counting: which of the examples count, a mask ``[examples]``; by default all do.

    Returns:
        ``disagreement``: the mean total variation distance of two members' probabilities, 0 to 1;
        ``fast_weight_spread``: the standard deviation of the fast weights over the members, over
        their size, ``None`` without fast weights; ``member_nll``, nats; ``mean_logits_nll``: of the
        mean of their logits, nats; ``one_class``, only if all members predict this class for all
        examples although the targets differ. Empty for other outputs and targets; examples whose
        target is not a class are left out.
    """
    inputs = inputs[:EXAMPLES]
    with evaluating(model), torch.no_grad(), torch.random.fork_rng([]):
        outputs = model(inputs) if strategy is None else strategy.outputs(model, inputs)
    return diagnose_outputs(model, outputs, targets, counting=counting)


def diagnose_outputs(
    model: Ensemble, outputs: Any, targets: Tensor, *, counting: Tensor | None = None
) -> dict[str, Any]:
    """Return what :func:`diagnose` does, from outputs that are known already.

    Args:
        model: the ensemble.
        outputs: its outputs for the first 512 examples.
        targets: the targets of the examples.
        counting: which of the examples count, a mask ``[examples]``; by default all do.
    """
    targets = targets[:EXAMPLES]
    with torch.no_grad():
        if not isinstance(outputs, Tensor) or outputs.dim() != 3:
            return {}
        if targets.dim() == 2 and targets.shape[1] == 1:  # a column
            targets = targets[:, 0]
        if targets.dim() != 1 or targets.is_floating_point():
            return {}
        classes = (targets >= 0) & (targets < outputs.shape[2])
        if counting is not None:
            classes &= counting[:EXAMPLES]
        if not classes.all():
            outputs, targets = outputs[classes], targets[classes]
        if not len(targets):
            return {}
        outputs, targets = outputs.double(), targets.long()
        probs, members = outputs.softmax(-1), outputs.shape[1]
        gaps = torch.cdist(probs, probs, p=1) / 2
        named = probs.argmax(-1)
        alike = bool((named == named[0, 0]).all()) and not bool((targets == named[0, 0]).all())
        return {
            **({"one_class": int(named[0, 0])} if alike else {}),
            "disagreement": (gaps.sum((1, 2)) / max(members * (members - 1), 1)).mean().item(),
            "fast_weight_spread": fast_weight_spread(model),
            "member_nll": cross_entropy(outputs, targets).mean(0).tolist(),
            "mean_logits_nll": cross_entropy(outputs.mean(1, keepdim=True), targets).mean().item(),
        }


class MemberDiagnostics(Callback):
    """Records diagnostics of the members after each epoch, and warns once of each problem.

    Args:
        held_out: the evaluations on held-out data, whose outputs are used; by default the network
            runs on training data.
        strategy: how processes share the training; ``None`` for a single process.
    """

    every_process = optional_state = True
    key, earlier_keys = "diagnostics", ("Watching",)

    def __init__(
        self, held_out: EarlyStopping | None = None, strategy: Strategy | None = None
    ) -> None:
        self.held_out, self.strategy = held_out, strategy
        self.warned: set[str] = set()

    def on_epoch(self, run: TrainingState) -> None:
        """Record the diagnostics, and warn."""
        if not run.objective.loss.logits:  # the limits are nats of classes
            run.history.diagnostics.append({})
            return
        known = None if self.held_out is None else self.held_out.first
        inputs, targets = self._examples(run) if known is None else (None, known.targets)
        found = {}
        if targets is not None:
            loss, (targets, weights) = run.objective.loss, parted(targets)
            counting = example_weights(
                loss.counts(targets) if targets.dim() == 1 else None, weights
            )
            counting = None if counting is None else counting > 0
            if known is not None:
                found = diagnose_outputs(run.scored, known.outputs, targets, counting=counting)
            elif inputs is not None:
                found = diagnose(run.scored, inputs, targets, self.strategy, counting=counting)
        run.history.diagnostics.append(found)
        for what, sentence in find_problems(found, run.history.member_losses[-1]).items():
            if what not in self.warned:
                self.warned.add(what)
                warnings.warn(sentence, stacklevel=2)

    def _examples(self, run: TrainingState) -> tuple[Inputs | None, Any]:
        """Return examples that all members can see, and their targets with their weights."""
        if isinstance(run.batches, ArrayBatches):
            first = slice(EXAMPLES)
            targets, weights = run.batches.targets[first], run.batches.weights
            return run.batches.inputs[first], (
                targets if weights is None else Weighted(targets, weights[first])
            )
        if run.last_inputs is None or run.last_targets is None:
            return None, None
        inputs, (targets, weights) = run.last_inputs, parted(run.last_targets)
        if run.objective.own_examples:
            inputs = inputs[:, 0]
        if run.objective.own_examples or (
            targets.dim() == 2 and bool((targets == targets[:, :1]).all())
        ):
            targets = targets[:, 0]
        if weights is None:
            return inputs, targets
        return inputs, Weighted(targets, weights[:, 0] if weights.dim() == 2 else weights)

    def state_dict(self) -> dict[str, Any]:
        """Return which warnings were given."""
        return {"said": sorted(self.warned)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        self.warned = set(state["said"])


def find_problems(found: dict[str, Any], member_losses: list[float]) -> dict[str, str]:
    """Return a sentence for each problem of the members, by its name.

    Args:
        found: the result of :func:`diagnose`.
        member_losses: each member's mean loss in the epoch.

    Example:
        >>> list(find_problems({}, [0.1, 0.1, 3.0])), list(find_problems({}, [-0.2, -0.2, 0.1]))
        (['lost'], [])
    """
    result = {}
    losses = sorted(member_losses)
    median = losses[len(losses) // 2]
    scale = median if median > 0 else 1.0  # the NLL of a density may be below 0; then a nat counts
    if len(losses) > 2 and losses[-1] - median > (LOST_MEMBER - 1) * scale + LEANING:
        lost = member_losses.index(losses[-1])
        result["lost"] = (
            f"member {lost} diverged from the others: its loss is {losses[-1]:.3g}, the median "
            f"member's {median:.3g}; try a lower learning rate, or clip="
        )
    members = found.get("member_nll", ())
    if len(members) < 2:
        return result
    mean, together = sum(members) / len(members), found["mean_logits_nll"]
    if mean > 2 * together + LEANING:
        result["leaning"] = (
            f"the members rely on each other: the mean of their logits has an NLL of "
            f"{together:.3g}, but alone they have {mean:.3g}, so their mean probability is a poor "
            "prediction; train with loss_on='members'"
        )
    spread, apart = found["fast_weight_spread"], found["disagreement"]
    if apart < COLLAPSED_DISAGREEMENT and (spread is None or spread < COLLAPSED_SPREAD):
        own = "" if spread is None else f" and by {spread:.1e} in their fast weights"
        result["collapsed"] = (
            f"the members have collapsed: two of them differ by {apart:.1e} in probability{own}, "
            "so their uncertainty is meaningless. Give them different starts, with "
            "init='random_sign' or a larger std="
        )
    return result
