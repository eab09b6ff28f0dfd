"""The uncertainty of an ensemble at the cost of one network.

>>> import batchensemble as be
>>> from torch import nn
>>> net = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3))
>>> model = be.BatchEnsemble(net, members=4)

Names are imported on first use, so that ``import batchensemble`` costs nothing that is not used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchensemble.ensembles import (
        MIMO as MIMO,
    )
    from batchensemble.ensembles import (
        BatchEnsemble as BatchEnsemble,
    )
    from batchensemble.ensembles import (
        DeepEnsemble as DeepEnsemble,
    )
    from batchensemble.ensembles import (
        Ensemble as Ensemble,
    )
    from batchensemble.ensembles import (
        FiLMEnsemble as FiLMEnsemble,
    )
    from batchensemble.ensembles import (
        LastLayerEnsemble as LastLayerEnsemble,
    )
    from batchensemble.ensembles import (
        Masksembles as Masksembles,
    )
    from batchensemble.ensembles import (
        MCDropout as MCDropout,
    )
    from batchensemble.ensembles import (
        Single as Single,
    )
    from batchensemble.ensembles import (
        TabM as TabM,
    )
    from batchensemble.ensembles import (
        TabMMini as TabMMini,
    )
    from batchensemble.layers.registry import twin as twin

__version__ = "0.1.0"

_HOMES = {
    "Ensemble": "ensembles",
    "Single": "ensembles",
    "DeepEnsemble": "ensembles",
    "BatchEnsemble": "ensembles",
    "MIMO": "ensembles",
    "FiLMEnsemble": "ensembles",
    "LastLayerEnsemble": "ensembles",
    "MCDropout": "ensembles",
    "Masksembles": "ensembles",
    "TabM": "ensembles",
    "TabMMini": "ensembles",
    "History": "training.history",
    "losses": "losses",
    "Callback": "training.callbacks.base",
    "CheckpointError": "training.checkpoints.store",
    "Plateau": "training.optim.schedules",
    "distil": "training.distilling.distil",
    "fit": "training.fit",
    "learn": "training.learning",
    "MultiLabelPrediction": "predictions",
    "Prediction": "predictions",
    "RegressionPrediction": "predictions",
    "predict": "predictions.predict",
    "Scores": "metrics",
    "evaluate": "metrics",
    "column_effect": "metrics",
    "column_importance": "metrics",
    "Exported": "exports",
    "export": "exports",
    "calibrate": "decisions.calibration.calibrate",
    "choose_members": "decisions.members",
    "ConformalIntervals": "decisions",
    "ConformalSets": "decisions",
    "detect_errors": "decisions",
    "detect_shift": "decisions",
    "risk_coverage": "decisions",
    "threshold_for": "decisions",
    "under_shift": "decisions",
    "adapt": "ensembles.adapting.adapt",
    "BatchEnsembleClassifier": "tabular.classifier",
    "BatchEnsembleRegressor": "tabular.regressor",
    "twin": "layers.registry",
    "JsonLines": "training.callbacks.tracking",
    "Tracking": "training.callbacks.tracking",
    "from_pretrained": "ensembles.saving.pretrained",
    "load": "ensembles.saving",
    "load_adapter": "ensembles.saving.adapters",
    "model_card": "report.card",
    "save": "ensembles.saving",
    "save_adapter": "ensembles.saving.adapters",
    "metrics": "metrics",
    "predictions": "predictions",
    "uncertainty": "predictions.uncertainty",
    "weight_diversity": "metrics.members.weights",
}
_MODULES = {"losses", "metrics", "predictions", "uncertainty"}
__all__ = [*sorted(_HOMES), "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    return module if name in _MODULES else getattr(module, name)


def __dir__() -> list[str]:
    return list(__all__)
