"""Ensembles: modules that map ``[batch, ...]`` to ``[batch, members, ...]``, one file a method."""

from batchensemble.ensembles.base import Ensemble
from batchensemble.ensembles.methods import METHODS, Method
from batchensemble.ensembles.methods.batch import BatchEnsemble
from batchensemble.ensembles.methods.deep import DeepEnsemble
from batchensemble.ensembles.methods.film import FiLMEnsemble
from batchensemble.ensembles.methods.last_layer import LastLayerEnsemble
from batchensemble.ensembles.methods.masksembles import Masksembles
from batchensemble.ensembles.methods.mc_dropout import MCDropout
from batchensemble.ensembles.methods.mimo import MIMO
from batchensemble.ensembles.methods.single import Single
from batchensemble.ensembles.methods.tabm import TabM, TabMMini

__all__ = [
    "METHODS",
    "MIMO",
    "BatchEnsemble",
    "DeepEnsemble",
    "Ensemble",
    "FiLMEnsemble",
    "LastLayerEnsemble",
    "MCDropout",
    "Masksembles",
    "Method",
    "Single",
    "TabM",
    "TabMMini",
]
