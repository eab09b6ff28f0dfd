"""Are the members of a training well: apart from each other, each right by itself, none lost?"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from batchensemble.core.inputs import Inputs
from batchensemble.data.batches import ArrayBatches, Batches
from batchensemble.ensembles import Ensemble
from batchensemble.layers.modes import evaluating
from batchensemble.losses import cross_entropy
from batchensemble.losses.targets import Weighted, parted
from batchensemble.metrics.members.weights import fast_weight_spread
from batchensemble.training.callbacks.base import Callback, TrainingState
from batchensemble.training.callbacks.validation import how_much
from batchensemble.training.distributed.strategy import Strategy

# Examples that are looked at, and when something is worth a warning.
EXAMPLES = 512
COLLAPSED_DISAGREEMENT, COLLAPSED_SPREAD = 1e-4, 1e-3
LOST_MEMBER = 2.0
LEANING = 0.25  # nats


def diagnose(
    model: Ensemble,
    inputs: Inputs,
    targets: Tensor,
    sharing: Strategy | None = None,
    *,
    counting: Tensor | None = None,
) -> dict[str, Any]:
    """Return what the members are like on some examples, without a trace in the model.

    Args:
        model: an ensemble whose outputs are logits ``[batch, members, classes]``.
        inputs: examples that all members see; the first 512 are used.
        targets: their classes, ``[examples]``.
        sharing: among processes, each of which computes some of the outputs.
        counting: which of them count, ``[examples]``; by default all do.

    Returns:
        ``disagreement``: the mean total variation distance of two members' probabilities, 0 to 1;
        ``fast_weight_spread``: the standard deviation of the fast weights over the members, over
        their size, ``None`` without fast weights; ``member_nll``, nats; ``mean_logits_nll``: of the
        mean of their logits, nats; ``one_class``, only where all members name this class for all
        examples, and it is not that of all. Empty for other outputs and targets; examples whose
        target is no class are left out.
    """
    inputs, targets = inputs[:EXAMPLES], targets[:EXAMPLES]
    with evaluating(model), torch.no_grad(), torch.random.fork_rng([]):
        outputs = model(inputs) if sharing is None else sharing.outputs(model, inputs)
        if not isinstance(outputs, Tensor) or outputs.dim() != 3:
            return {}
        if targets.dim() == 2 and targets.shape[1] == 1:  # a column
            targets = targets[:, 0]
        if targets.dim() != 1 or targets.is_floating_point():
            return {}
        classes = (targets >= 0) & (targets < outputs.shape[2])
        if counting is not None:
            classes &= counting[:EXAMPLES]
        if not classes.any():
            return {}
        outputs, targets = outputs[classes].double(), targets[classes].long()
        probs, members = outputs.softmax(-1), outputs.shape[1]
        gaps = (probs.unsqueeze(1) - probs.unsqueeze(2)).abs().sum(-1) / 2
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
    """Looks at the members after each epoch, and warns once of each thing that is wrong.

    Args:
        batches: held-out data; without them the last batch of the epoch is looked at.
        sharing: among processes, which have some of the members each.
    """

    every_process = optional_state = True
    key, earlier_keys = "diagnostics", ("Watching",)

    def __init__(self, batches: Batches | None = None, sharing: Strategy | None = None) -> None:
        self.batches, self.sharing = batches, sharing
        self.said: set[str] = set()

    def on_epoch(self, run: TrainingState) -> None:
        """Write down what the members are like, and warn."""
        if not run.objective.loss.logits:  # the limits are nats of classes
            run.history.diagnostics.append({})
            return
        inputs, targets = self._examples(run)
        found = {}
        if inputs is not None:
            loss, (targets, weights) = run.objective.loss, parted(targets)
            counting = how_much(loss.counts(targets) if targets.dim() == 1 else None, weights)
            counting = None if counting is None else counting > 0
            found = diagnose(run.scored, inputs, targets, self.sharing, counting=counting)
        run.history.diagnostics.append(found)
        for what, sentence in complaints(found, run.history.member_losses[-1]).items():
            if what not in self.said:
                self.said.add(what)
                warnings.warn(sentence, stacklevel=2)

    def _examples(self, run: TrainingState) -> tuple[Inputs | None, Any]:
        """Return examples that all members can see, and their targets with their weights."""
        if self.batches is not None:
            with torch.random.fork_rng([]):
                return next(iter(self.batches), (None, None))
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
        """Return what was said."""
        return {"said": sorted(self.said)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.said = set(state["said"])


def complaints(found: dict[str, Any], member_losses: list[float]) -> dict[str, str]:
    """Return what is wrong with the members, a sentence each.

    Args:
        found: of :func:`diagnose`.
        member_losses: of the epoch, one a member.

    Example:
        >>> list(complaints({}, [0.1, 0.1, 3.0])), list(complaints({}, [-0.2, -0.2, 0.1]))
        (['lost'], [])
    """
    result = {}
    losses = sorted(member_losses)
    median = losses[len(losses) // 2]
    scale = median if median > 0 else 1.0  # the NLL of a density may be below 0; then a nat counts
    if len(losses) > 2 and losses[-1] - median > (LOST_MEMBER - 1) * scale + LEANING:
        lost = member_losses.index(losses[-1])
        result["lost"] = (
            f"member {lost} has left the others: its loss is {losses[-1]:.3g}, the median member's "
            f"{median:.3g}; a lower learning rate or clip= may keep it"
        )
    members = found.get("member_nll", ())
    if len(members) < 2:
        return result
    mean, together = sum(members) / len(members), found["mean_logits_nll"]
    if mean > 2 * together + LEANING:
        result["leaning"] = (
            f"the members live off each other: the mean of their logits has an NLL of "
            f"{together:.3g}, one by one they have {mean:.3g}, and their probabilities do not "
            "average to a good answer; train with loss_on='members'"
        )
    spread, apart = found["fast_weight_spread"], found["disagreement"]
    if apart < COLLAPSED_DISAGREEMENT and (spread is None or spread < COLLAPSED_SPREAD):
        own = "" if spread is None else f" and by {spread:.1e} in their fast weights"
        result["collapsed"] = (
            f"the members have become one: two of them differ by {apart:.1e} in probability{own}; "
            "their uncertainty says nothing. Start them apart, with init='random_sign' or a larger "
            "std="
        )
    return result
