"""Ensembles: modules that map ``[batch, ...]`` to ``[batch, members, ...]``, one file a method."""

from batchensemble.ensembles.base import Ensemble
from batchensemble.ensembles.batch import BatchEnsemble
from batchensemble.ensembles.deep import DeepEnsemble
from batchensemble.ensembles.mimo import MIMO
from batchensemble.ensembles.single import Single

METHODS: dict[str, type[Ensemble]] = {
    "single": Single,
    "deep": DeepEnsemble,
    "batch": BatchEnsemble,
    "mimo": MIMO,
}

__all__ = ["METHODS", "MIMO", "BatchEnsemble", "DeepEnsemble", "Ensemble", "Single"]
