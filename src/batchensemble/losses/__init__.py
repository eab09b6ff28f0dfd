"""Losses of each member on each example: outputs ``[batch, members, ...]`` to ``[batch, members]``.

``fit`` takes the mean over the examples and the sum over the members, so that each member gets the
same gradient as if it were trained alone.

>>> import batchensemble as be
>>> be.losses.Huber(delta=2.0)
Huber(delta=2.0)
"""

from batchensemble.core.deprecation import moved_to
from batchensemble.losses.as_json import from_dict, to_dict
from batchensemble.losses.base import Custom, EnsembleLoss
from batchensemble.losses.by_name import (
    LOSSES,
    Loss,
    LossOn,
    as_loss,
    make_loss,
    outputs_for,
    with_balance,
)
from batchensemble.losses.classes import (
    ClassLoss,
    CrossEntropy,
    Ordinal,
    cross_entropy,
    ensemble_nll,
)
from batchensemble.losses.distilled import (
    Distilled,
    DistilledClasses,
    DistilledLabels,
    DistilledNormals,
    DistilledPoints,
    FromTeacher,
    as_distilled,
)
from batchensemble.losses.numbers import (
    MSE,
    BinaryCrossEntropy,
    GaussianNLL,
    Huber,
    NumberLoss,
    Quantile,
)
from batchensemble.losses.standardised import Standardised, standardised

as_dict = moved_to("batchensemble.losses.to_dict", old="batchensemble.losses.as_dict", until="0.3")

__all__ = [
    "LOSSES",
    "MSE",
    "BinaryCrossEntropy",
    "ClassLoss",
    "CrossEntropy",
    "Custom",
    "Distilled",
    "DistilledClasses",
    "DistilledLabels",
    "DistilledNormals",
    "DistilledPoints",
    "EnsembleLoss",
    "FromTeacher",
    "GaussianNLL",
    "Huber",
    "Loss",
    "LossOn",
    "NumberLoss",
    "Ordinal",
    "Quantile",
    "Standardised",
    "as_distilled",
    "as_loss",
    "cross_entropy",
    "ensemble_nll",
    "from_dict",
    "make_loss",
    "outputs_for",
    "standardised",
    "to_dict",
    "with_balance",
]
