"""When not to trust a model: sentences for its card, each from what is stored or measured."""

from __future__ import annotations

from batchensemble.data.tables.encoding.encoding import TableEncoding
from batchensemble.ensembles import Ensemble
from batchensemble.losses import MSE, Huber
from batchensemble.report.card.escaping import Raw
from batchensemble.report.card.evaluated import MeasuredScores

NO_SCORES = Raw(
    "This card has no scores, so it says nothing of how good the model is: score it on data of "
    "your own, by `be.evaluate`, before you rely on it."
)
SCORED_ON_TRAINING = Raw(
    "The scores are of the data that the model was trained on, so they do not hold for new data."
)
OTHER_DATA = Raw(
    "The scores hold for data like those that it was scored on. On other data it may be wrong and "
    "certain at once: its uncertainty often grows there, and nothing guarantees it. "
    "`be.detect_shift` measures on data of yours whether it does."
)
ONE_MEMBER = Raw("It is a single network, so its epistemic uncertainty is always 0.")
WITHOUT_NOISE = Raw(
    "Its loss models no noise, so its intervals show only how far the members differ and are too "
    "narrow."
)
TO_DECIDE = Raw(
    "It stores no threshold on its uncertainty, so it always answers. `model.calibrate(X, y)` with "
    "rows that neither training nor scoring used, then `model.decide(risk=...)`, finds one."
)
NO_THRESHOLD = Raw(
    "It stores no threshold on its uncertainty, so it always answers. `be.threshold_for` finds one "
    "on data that neither training nor scoring used."
)


def limits(
    model: Ensemble,
    found: MeasuredScores | None,
    encoding: TableEncoding | None,
    *,
    decided: bool,
    estimator: bool = False,
) -> list[str]:
    """Return when a model should not be trusted, a sentence or two each.

    Args:
        model: any ensemble.
        found: its scores, if there are some.
        encoding: what it does with the columns of a table, if that is known.
        decided: whether a threshold on its uncertainty is known.
        estimator: whether it is one of an estimator, which has methods for that.
    """
    sentences: list[str] = [NO_SCORES] if found is None else []
    if found is not None:
        remark = found.scores.remark()
        sentences += [f"{remark[:1].upper()}{remark[1:]}."] if remark else []
        sentences += [SCORED_ON_TRAINING] if found.trained_on else []
        if found.one_model:
            sentences.append(
                f"Its members are practically one network, and its epistemic uncertainty tells "
                f"little: {found.one_model}"
            )
    if encoding is not None:
        sentences += _out_of_range(encoding)
    sentences += [OTHER_DATA] if found is not None else []
    sentences += [ONE_MEMBER] if model.members == 1 else []
    if isinstance(getattr(model.loss, "loss", model.loss), (MSE, Huber)):
        sentences.append(WITHOUT_NOISE)
    if not decided:
        sentences.append(TO_DECIDE if estimator else NO_THRESHOLD)
    return sentences


def _out_of_range(encoding: TableEncoding) -> list[str]:
    """Return what the model makes of values that its training data did not have."""
    sentences, numbers = [], [one for one in encoding.used if one.kind in ("number", "date")]
    if numbers and encoding.layout == "codes":
        sentences.append(
            "Numbers beyond the ranges of the training data (under Data) are read as the nearest "
            "end of the range: the model cannot see how far out they are, and neither can its "
            "uncertainty."
        )
    elif numbers:
        sentences.append(
            "Numbers far from those of the training data (under Data) are extrapolated, and no "
            "score here is about them."
        )
    if any(one.kind == "category" for one in encoding.used):
        sentences.append(
            "Words that the training data did not have in a column are all read as one unknown "
            "level."
        )
    return sentences
