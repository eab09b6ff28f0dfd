"""Prediction sets of a decision: with one threshold for all classes, or one for each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from batchensemble.cli.workflows.decision import smallest_sets
from batchensemble.decisions import ConformalSets
from batchensemble.decisions.conformal.quantile import least_examples
from batchensemble.metrics.labels import Labels
from batchensemble.metrics.values import class_name
from batchensemble.predictions import Prediction

RARE = 0.1  # share of the smallest class below which sets are by class,
OF_EQUAL = 0.5  # if it is also below this part of an equal share: a tenth is not rare among ten
ENOUGH = 20  # rows of each class that a threshold of its own needs to vary little


def fitted_sets(
    prediction: Prediction,
    labels: Labels,
    coverage: float,
    by_class: bool | None = None,
    class_names: Sequence[str] = (),
) -> tuple[ConformalSets, tuple[str, ...]]:
    """Return the sets of a decision, and sentences about a rare class.

    A threshold for all classes covers a share of all rows. Where one class has few of them, nearly
    all of its rows may be among those not covered. With a threshold for each class the coverage
    holds in each (Mondrian conformal prediction; Vovk et al. 2005).

    Args:
        prediction: the ensemble's prediction on held-out rows.
        labels: their true classes, ``[rows]``.
        coverage: nominal coverage.
        by_class: whether each class has its own threshold; by default where the smallest class has
            less than a tenth of the rows and half of an equal share, and each class has 20 rows or
            more, or as many as the coverage needs.
        class_names: the classes in the order of their numbers.

    Example:
        >>> probs = np.tile([0.9, 0.1], (400, 1)) + np.linspace(-0.08, 0.08, 400)[:, None] * [1, -1]
        >>> sets, (why,) = fitted_sets(Prediction(probs[:, None]), np.arange(400) // 380, 0.9)
        >>> sets.by_class, why.partition(":")[0]
        (True, 'The sets are by class, since class 1 has 5.0% of these rows')
    """
    counts = np.bincount(labels, minlength=prediction.probs.shape[1])
    rarest = int(counts.argmin())
    name, share = class_name(rarest, class_names), counts[rarest] / len(labels)
    enough = max(ENOUGH, least_examples(coverage))
    rare, few = share < min(RARE, OF_EQUAL / len(counts)), counts[rarest] < enough
    of_all = smallest_sets(coverage).fit(prediction, labels)
    if by_class is False or (by_class is None and not rare):
        return of_all, ()
    held = of_all(prediction).coverage_by_class(labels)[rarest]
    if by_class is None and few:
        found = f", and contain it for {held:.1%} of them" if counts[rarest] else ""
        return of_all, (
            f"Class {name} has {counts[rarest]:,} of these rows, too few for sets by class, which "
            f"need {enough} of each. The sets contain the true class for {coverage:.1%} of all "
            f"rows, not of each class{found}. Give more rows with --data.",
        )
    why = f"since class {name} has {share:.1%} of these rows" if rare else "as asked for"
    now = f": with one threshold for all they would contain it for {held:.1%} of them"
    sets = smallest_sets(coverage, by_class=True).fit(prediction, labels)
    return sets, (f"The sets are by class, {why}{now if rare and counts[rarest] else ''}.",)
