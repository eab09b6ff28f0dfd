"""What a file says of itself, as JSON: what its numbers mean, and where they come from."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import torch

from batchensemble.ensembles import Ensemble
from batchensemble.ensembles.methods import method_of
from batchensemble.exports.prediction_graph import AnswerRule, PredictionGraph
from batchensemble.losses import EnsembleLoss, to_dict

FORMAT = 1  # of the metadata
MEANINGS = {
    "classes": {
        "mean": "the probability of each class",
        "total": "entropy of the mean, nats",
        "aleatoric": "mean entropy of the members, nats",
        "epistemic": "mutual information of class and member, nats",
        "confidence": "the probability of the most probable class",
        "label": "the number of the most probable class, from 0",
        "members": "each member's probabilities",
    },
    "labels": {
        "mean": "the probability of each label",
        "total": "entropy of each label's mean probability, nats",
        "aleatoric": "mean entropy of the members for each label, nats",
        "epistemic": "mutual information of label and member, nats",
        "label": "1 where a label has a probability above 0.5",
        "members": "each member's probabilities",
    },
    "numbers": {
        "mean": "the mean, in the target's unit",
        "total": "variance of the members' mixture, in the square of that unit",
        "aleatoric": "mean of the members' variances",
        "epistemic": "variance of the members' means",
        "quantiles": "the quantiles at the levels in 'quantiles'",
        "members": "each member's mean",
        "member_variances": "each member's variance",
    },
}
ANSWER = "whether the threshold accepts the example"


def metadata_of(
    model: Ensemble,
    loss: EnsembleLoss,
    prediction: PredictionGraph | None,
    names: Sequence[str],
    levels: Sequence[float],
    rule: AnswerRule | None,
    extra: Mapping[str, Any],
) -> str:
    """Return the metadata of a file.

    Args:
        model: the ensemble.
        loss: that defines the prediction.
        prediction: what the outputs are; ``None``: those of the members as they are.
        names: of the outputs.
        levels: of quantiles.
        rule: when to answer.
        extra: what else there is to say.
    """
    method, calibrator = method_of(model), model.calibrator
    meanings = {**MEANINGS.get(prediction.kind if prediction else "", {}), "answer": ANSWER}
    found = {
        "format": FORMAT,
        "kind": "raw" if prediction is None else prediction.kind,
        "outputs": {
            name: meanings.get(name, "outputs [batch, members, ...] of the network")
            for name in names
        },
        "members": model.members,
        "method": type(model).__name__ if method is None else method.name,
        "class_names": list(model.class_names),
        "target_names": list(model.target_names or ()),
        "quantiles": list(levels),
        "threshold": None if rule is None else threshold_as_json(rule),
        "loss": to_dict(loss),
        "calibration": None if calibrator is None else calibrator.settings(),
        "versions": {"batchensemble": version("batchensemble"), "torch": torch.__version__},
        **extra,
    }
    return json.dumps(found)


def threshold_as_json(rule: AnswerRule) -> dict[str, Any]:
    """Return a threshold as JSON can hold it, which knows no infinite numbers."""
    value = float(rule.value)
    infinite = "always" if value > 0 else "never"
    return {
        "by": rule.by,
        "value": value if math.isfinite(value) else None,
        "answers": "below the value" if math.isfinite(value) else infinite,
        "guarantee": str(rule),
    }
