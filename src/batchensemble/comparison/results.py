"""A comparison: its settings, its runs, and how runs are stored in files."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from statistics import fmean
from typing import Any

import numpy as np
import torch

from batchensemble.comparison.cost import Cost
from batchensemble.comparison.files import RunFiles, fingerprint_of
from batchensemble.comparison.planes import Line, Plane
from batchensemble.core.arguments import fraction, one_of, positive_number, whole_number
from batchensemble.core.printed_tables import table
from batchensemble.data.datasets import Data
from batchensemble.ensembles import METHODS
from batchensemble.losses import EnsembleLoss, Quantile, as_loss
from batchensemble.metrics import Scores
from batchensemble.metrics.encoded_columns import ColumnDependence
from batchensemble.predictions import AnyPrediction, Prediction, from_arrays, to_arrays
from batchensemble.training.history import History
from batchensemble.training.table_recipe import TableRecipe

# The losses that a comparison trains with, the default of each task first.
LOSSES_OF: dict[str, tuple[str, ...]] = {
    "classification": ("cross_entropy",),
    "regression": ("gaussian_nll", "mse", "huber", "quantile"),
}

ARCHITECTURES = ("table", "perceptron")  # networks that are made here
QUANTILE_LEVELS = tuple(round(0.05 + 0.1 * step, 2) for step in range(10))  # of quantiles


@dataclass(frozen=True)
class Settings:
    """The settings of a comparison; every argument is checked here, before any training.

    Attributes:
        methods: names of :data:`batchensemble.ensembles.METHODS`.
        members: number of members of an ensemble (M).
        epochs: number of passes over the training data.
        batch_size: examples per step.
        lr: learning rate of the optimiser.
        cooldown: share of the steps, at the end, in which the learning rate falls to 0, see
            :func:`batchensemble.fit`.
        hidden: width of each hidden layer of the network.
        seeds: number of trainings of each method, with the seeds 0, 1, ...
        loss: a name of :data:`batchensemble.losses.LOSSES` for the task; by default the
            cross-entropy for classes, and the Gaussian NLL of standardised targets for numbers.
        architecture: one of :data:`ARCHITECTURES`; ``"table"`` needs encoded columns of a file.
        dropout: probability of dropout of the network of tables.
        optimizer: a name that :func:`batchensemble.fit` knows.
        weight_decay: weight decay of the weights of layers.
        patience: epochs without a better score on the rows kept for that before training stops;
            by default it never stops early.
    """

    methods: tuple[str, ...] = ("single", "deep", "batch", "mimo")
    members: int = 3
    epochs: int = 10
    batch_size: int = 128
    lr: float = 1e-3
    cooldown: float = 0.1
    hidden: tuple[int, ...] = (128, 128)
    seeds: int = 1
    loss: str | None = None
    architecture: str = "perceptron"
    dropout: float | None = None
    optimizer: str = "adam"
    weight_decay: float = 0.0
    patience: int | None = None

    @classmethod
    def of_table(cls, rows: int, **given: Any) -> Settings:
        """Return settings for a table in files: those of the recipe, overridden by the given ones.

        Args:
            rows: number of rows to train on.
            given: settings by name.
        """
        recipe = TableRecipe()
        found = {**recipe.fit_arguments(rows), "members": recipe.members, "hidden": recipe.hidden}
        for name in ("batches", "stop_on"):
            del found[name]
        if given.get("architecture", "table") == "table":
            found |= {"architecture": "table", "dropout": recipe.dropout}
        return cls(**{**found, **given})

    def __post_init__(self) -> None:
        if not self.methods:
            raise ValueError(f"methods must name at least one of {', '.join(METHODS)}, got none")
        for name in self.methods:
            one_of("methods", name, METHODS)
        if len(set(self.methods)) < len(self.methods):
            raise ValueError(f"methods must differ, got {', '.join(self.methods)}")
        for name in ("members", "epochs", "batch_size", "seeds"):
            whole_number(name, getattr(self, name))
        if not isinstance(self.hidden, (tuple, list)):
            raise TypeError(
                "hidden must be the widths of the hidden layers, such as (128, 128), got "
                f"{self.hidden!r}"
            )
        for width in self.hidden:
            whole_number("hidden", width)
        one_of("architecture", self.architecture, ARCHITECTURES)
        if self.patience is not None:
            whole_number("patience", self.patience)
        positive_number("lr", self.lr)
        fraction("cooldown", self.cooldown)
        if self.loss is not None:
            one_of("loss", self.loss, [name for names in LOSSES_OF.values() for name in names])


@dataclass(frozen=True)
class Run:
    """One method trained from one seed.

    Attributes:
        method: its name in :data:`batchensemble.ensembles.METHODS`.
        seed: seed of the initial weights and of the order of the examples.
        scores: scores on the held-out examples.
        cost: cost of training and prediction.
        history: history of the training.
        prediction: prediction on the held-out examples.
        plane: prediction on the points of the comparison's plane or line; ``None`` without one.
    """

    method: str
    seed: int
    scores: Scores
    cost: Cost
    history: History
    prediction: AnyPrediction
    plane: AnyPrediction | None

    @property
    def classes(self) -> Prediction:
        """The prediction on the held-out examples, which is one of classes."""
        assert isinstance(self.prediction, Prediction)
        return self.prediction

    def to_dict(self) -> dict[str, Any]:
        """Return the run as a dictionary for JSON, without the predictions."""
        return {
            "method": self.method,
            "seed": self.seed,
            "scores": dict(self.scores),
            "cost": self.cost.to_dict(),
            "history": self.history.to_dict(),
        }

    def predictions(self) -> dict[str, np.ndarray]:
        """Return the predictions as arrays by name, which :meth:`to_dict` leaves out."""
        parts = {"held_out": self.prediction, "plane": self.plane}
        return {
            f"{part}.{name}": values
            for part, prediction in parts.items()
            if prediction is not None
            for name, values in to_arrays(prediction).items()
        }

    @classmethod
    def from_parts(cls, values: dict[str, Any], predictions: dict[str, np.ndarray]) -> Run:
        """Return the run from what :meth:`to_dict` and :meth:`predictions` returned."""

        def part(start: str) -> dict[str, np.ndarray]:
            own = {name: each for name, each in predictions.items() if name.startswith(start)}
            return {name.removeprefix(start): each for name, each in own.items()}

        plane = part("plane.")
        return cls(
            values["method"],
            values["seed"],
            Scores(values["scores"]),
            Cost(**values["cost"]),
            History.from_dict(values["history"]),
            from_arrays(part("held_out.")),
            from_arrays(plane) if plane else None,
        )


@dataclass
class Comparison:
    """All runs of a comparison, in the order asked for: seed by seed, method by method.

    Attributes:
        settings: the settings of the comparison.
        data: the data set.
        plane: where predictions are drawn; ``None`` where they cannot be.
        runs: the finished runs.
        read: number of runs that were read from files.
        failures: a sentence for each training that failed.
        interrupted: whether runs are missing because the user stopped the comparison.
        recipe: name of the recipe, if any.
        explanation: the recipe's explanation of its results.
        printed: losses that a notebook prints and those of this run, by training.
        dependence: of one trained model on a table: which columns its prediction depends on.
    """

    settings: Settings
    data: Data
    plane: Plane | Line | None
    runs: list[Run] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    interrupted: bool = False
    read: int = 0
    recipe: str | None = None
    explanation: str = ""
    printed: dict[str, tuple[list[float], list[float]]] = field(default_factory=dict)
    dependence: ColumnDependence | None = None

    @property
    def methods(self) -> list[str]:
        """The methods with a finished run, in the order asked for."""
        done = {run.method for run in self.runs}
        return [method for method in self.settings.methods if method in done]

    def of(self, method: str) -> list[Run]:
        """Return the runs of one method, one for each seed."""
        return [run for run in self.runs if run.method == method]

    def _repr_html_(self) -> str:
        scores = self.runs[0].scores if self.runs else {}
        names = [name for name, each in scores.items() if isinstance(each, float)]
        rows = [
            [method, len(own), *(fmean(run.scores[name] for run in own) for name in names)]
            for method in self.methods
            if (own := self.of(method))
        ]
        caption = f"{self.data.name}: means over the seeds"
        return table(caption, ["method", "seeds", *(n.replace("_", " ") for n in names)], rows)

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as a dictionary for JSON."""
        return {
            "settings": asdict(self.settings),
            "recipe": self.recipe,
            "interrupted": self.interrupted,
            "failures": self.failures,
            "data": {
                "name": self.data.name,
                **({} if self.data.path is None else {"path": self.data.path}),
                "task": self.data.task,
                "target": self.data.target,
                "training_examples": len(self.data.train[0]),
                "held_out_examples": len(self.data.held_out[0]),
                "feature_names": list(self.data.feature_names),
                "class_names": list(self.data.class_names),
                "standardised": self.data.standardised,
                "dialect": asdict(self.data.dialect),
                "choices": asdict(self.data.choices),
            },
            "explanation": self.explanation,
            "printed_losses": {
                name: {"notebook": given, "here": ours}
                for name, (given, ours) in self.printed.items()
            },
            "versions": environment_versions(),
            "runs": [run.to_dict() for run in self.runs],
        }


def comparison_loss(settings: Settings, data: Data) -> str:
    """Return the name of the loss that a comparison trains with.

    Raises:
        ValueError: the loss is not one for the data's task.
    """
    allowed = LOSSES_OF[data.task]
    if settings.loss is None:
        return allowed[0]
    if settings.loss not in allowed:
        raise ValueError(
            f"loss must be one of {', '.join(allowed)} for {data.task}, which {data.name} is for, "
            f"got {settings.loss!r}"
        )
    return settings.loss


def compared_loss(settings: Settings, data: Data) -> EnsembleLoss:
    """Return the loss that a comparison trains with; its quantiles allow 90% intervals."""
    name = comparison_loss(settings, data)
    return Quantile(QUANTILE_LEVELS) if name == "quantile" else as_loss(name)


def run_fingerprint(settings: Settings, data: Data) -> str:
    """Return a checksum of everything that a run depends on, except its method and seed."""
    asked, usual = asdict(settings), asdict(Settings())
    del asked["methods"], asked["seeds"]
    for name in ("architecture", "dropout", "optimizer", "weight_decay", "patience"):
        if asked[name] == usual[name]:  # as in runs of versions without them
            del asked[name]
    names = [data.name, data.target, data.feature_names, data.class_names, data.standardised]
    made_by = {"batchensemble": version("batchensemble"), "torch": torch.__version__}
    return fingerprint_of(
        {"settings": asked, "data": names, **made_by},
        [*data.train, *data.held_out, *(data.stopping or ())],
    )


def read_run(files: RunFiles, method: str, seed: int) -> Run | None:
    """Return a finished run from its file; ``None`` if it is of other data or settings."""
    found = files.read(f"{method}-seed-{seed}")
    if found is None:
        return None
    try:
        return Run.from_parts(*found)
    except (KeyError, TypeError, ValueError, AttributeError):  # not what this version writes
        return None


def write_run(files: RunFiles, run: Run, comparison: Comparison) -> None:
    """Write a run to its file; on a full disk it still is in the comparison."""
    try:
        files.write(f"{run.method}-seed-{run.seed}", run.to_dict(), run.predictions())
    except OSError as error:
        comparison.failures.append(f"{run.method}, seed {run.seed}: {error}")


def environment_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a result depends on."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": torch.__version__,  # names the build, CPU or CUDA, as well
        **{package: version(package) for package in ("batchensemble", "numpy", "scikit-learn")},
    }
