"""``compare``: methods by seeds on one data set, each trained, scored and priced."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from sklearn.decomposition import PCA
from torch import nn

from batchensemble.checks import fraction, one_of, positive_number, whole_number
from batchensemble.cost import Cost, measure_cost
from batchensemble.data import Data
from batchensemble.ensembles import METHODS, Ensemble, Single
from batchensemble.history import History
from batchensemble.metrics import Scores, score
from batchensemble.prediction import Prediction, predict
from batchensemble.training import fit

GRID = 120  # points on each side of the plane that the decision maps show


@dataclass(frozen=True)
class Settings:
    """What a comparison runs; every argument is checked here, before any training.

    Attributes:
        methods: names of :data:`batchensemble.ensembles.METHODS`.
        members: how many members an ensemble has (M).
        epochs: times the training data are gone through.
        batch_size: examples a step.
        lr: Adam's learning rate.
        cooldown: share of the steps in which it falls to 0, see :func:`batchensemble.fit`.
        hidden: width of each hidden layer of the network.
        seeds: how many times each method is trained, from seeds 0, 1, ...
    """

    methods: tuple[str, ...] = ("single", "deep", "batch", "mimo")
    members: int = 3
    epochs: int = 10
    batch_size: int = 128
    lr: float = 1e-3
    cooldown: float = 0.1
    hidden: tuple[int, ...] = (128, 128)
    seeds: int = 1

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
        positive_number("lr", self.lr)
        fraction("cooldown", self.cooldown)


@dataclass(frozen=True)
class Plane:
    """A grid over two axes of the features, to draw what a network says everywhere.

    Attributes:
        x, y: the grid's coordinates on each axis, ``[GRID]``.
        points: the grid in the space of the features, row by row, ``[GRID * GRID, features]``.
        held_out: the held-out examples on these two axes, ``[examples, 2]``.
        axes: the names of the axes.
        projected: whether the axes are principal components, since there are more features.
    """

    x: Float[np.ndarray, "grid"]
    y: Float[np.ndarray, "grid"]
    points: Float[np.ndarray, "points features"]
    held_out: Float[np.ndarray, "examples 2"]
    axes: tuple[str, str]
    projected: bool


@dataclass(frozen=True)
class Run:
    """One method trained from one seed.

    Attributes:
        method: its name in :data:`batchensemble.ensembles.METHODS`.
        seed: of the network's start and of the order of the examples.
        scores: on the held-out examples.
        cost: what it took.
        history: of the training.
        prediction: on the held-out examples.
        plane: prediction on the points of the comparison's plane, if it has one.
    """

    method: str
    seed: int
    scores: Scores
    cost: Cost
    history: History
    prediction: Prediction
    plane: Prediction | None

    def as_dict(self) -> dict[str, Any]:
        """Return the run as JSON can hold it, without the predictions."""
        return {
            "method": self.method,
            "seed": self.seed,
            "scores": dict(self.scores),
            "cost": self.cost.as_dict(),
            "history": self.history.as_dict(),
        }


@dataclass
class Comparison:
    """All runs of a comparison, in the order they were made.

    Attributes:
        settings: what was asked for.
        data: what it ran on.
        plane: what the decision maps show; ``None`` if the data have one feature.
        runs: the finished ones.
        failures: what happened to the trainings that did not come to an end, a sentence each.
        interrupted: whether some are missing because the user stopped it.
        recipe: name of the recipe that made it, if any.
        explanation: what the recipe says of its results.
        printed: losses that a notebook prints, by training: its own and those of this run.
    """

    settings: Settings
    data: Data
    plane: Plane | None
    runs: list[Run] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    interrupted: bool = False
    recipe: str | None = None
    explanation: str = ""
    printed: dict[str, tuple[list[float], list[float]]] = field(default_factory=dict)

    @property
    def methods(self) -> list[str]:
        """The methods that have a finished run, in the order asked for."""
        done = {run.method for run in self.runs}
        return [method for method in self.settings.methods if method in done]

    def of(self, method: str) -> list[Run]:
        """Return the runs of one method, one a seed."""
        return [run for run in self.runs if run.method == method]

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON can hold it."""
        return {
            "settings": asdict(self.settings),
            "recipe": self.recipe,
            "interrupted": self.interrupted,
            "failures": self.failures,
            "data": {
                "name": self.data.name,
                "target": self.data.target,
                "training_examples": len(self.data.train[0]),
                "held_out_examples": len(self.data.held_out[0]),
                "feature_names": list(self.data.feature_names),
                "class_names": list(self.data.class_names),
                "standardised": self.data.standardised,
            },
            "explanation": self.explanation,
            "printed_losses": {
                name: {"notebook": given, "here": ours}
                for name, (given, ours) in self.printed.items()
            },
            "versions": versions(),
            "runs": [run.as_dict() for run in self.runs],
        }


def compare(
    data: Data,
    settings: Settings | None = None,
    *,
    progress: bool | None = None,
    on_run: Callable[[Run], None] | None = None,
) -> Comparison:
    """Train and score every method from every seed on one data set.

    Ctrl-C ends it early: the finished runs are returned, ``interrupted`` is set. A training that
    diverges is written down in ``failures``, and the others go on.

    Args:
        data: from :func:`batchensemble.data.load`.
        settings: what to run; the defaults are the notebook's.
        progress: show a bar for each training; by default only in a terminal.
        on_run: called with each finished run.

    Example:
        >>> from batchensemble.data import load
        >>> quick = Settings(methods=("batch",), epochs=1)
        >>> [run.method for run in compare(load("breast_cancer"), quick).runs]
        ['batch']
    """
    settings = settings or Settings()
    comparison = Comparison(settings, data, make_plane(data))
    try:
        for seed in range(settings.seeds):
            for method in settings.methods:
                try:
                    run = _run(comparison, method, seed, progress)
                except FloatingPointError as error:
                    comparison.failures.append(f"{method}, seed {seed}: {error}")
                    continue
                comparison.runs.append(run)
                if on_run is not None:
                    on_run(run)
    except KeyboardInterrupt:
        comparison.interrupted = True
    return comparison


def _run(comparison: Comparison, method: str, seed: int, progress: bool | None) -> Run:
    settings, data = comparison.settings, comparison.data
    model = build(method, settings, data, seed)
    history = fit(
        model,
        data.train,
        validation=data.held_out,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        lr=settings.lr,
        cooldown=settings.cooldown,
        seed=seed,
        progress=progress,
        label=f"{method}, seed {seed}",
    )
    return make_run(comparison, method, seed, model, history)


def make_run(
    comparison: Comparison, method: str, seed: int, model: Ensemble, history: History
) -> Run:
    """Score and price a trained ensemble."""
    data, plane = comparison.data, comparison.plane
    prediction = predict(model, data.held_out[0])
    examples = comparison.settings.batch_size
    return Run(
        method,
        seed,
        score(prediction, data.held_out[1]),
        measure_cost(
            model,
            torch.from_numpy(data.train[0][:examples]),
            torch.from_numpy(data.train[1][:examples]),
            history,
        ),
        history,
        prediction,
        None if plane is None else predict(model, plane.points),
    )


def build(method: str, settings: Settings, data: Data, seed: int) -> Ensemble:
    """Return an untrained ensemble of the comparison's network.

    Args:
        method: a name of :data:`batchensemble.ensembles.METHODS`.
        settings: how many members, how wide.
        data: how many features and classes.
        seed: of the random start; the caller's random state stays as it is.
    """
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        network = multilayer_perceptron(data.features, settings.hidden, data.classes)
        if method == "single":
            return Single(network)
        return METHODS[method](network, settings.members)  # type: ignore[call-arg]


def multilayer_perceptron(features: int, hidden: Sequence[int], classes: int) -> nn.Sequential:
    """Return linear layers of these widths with ReLU between.

    Example:
        >>> len(multilayer_perceptron(2, (128, 128), 2))
        5
    """
    layers: list[nn.Module] = []
    widths = [features, *hidden, classes]
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def make_plane(data: Data) -> Plane | None:
    """Return a grid over the held-out examples: two features, or two principal components."""
    if data.features < 2:
        return None
    if data.features == 2:
        shown = data.held_out[0]
        axes = (data.feature_names[0], data.feature_names[1])
        pca = None
    else:
        pca = PCA(2).fit(data.train[0])
        shown = pca.transform(data.held_out[0])
        shares = [f"{share:.0%}" for share in pca.explained_variance_ratio_]
        axes = (
            f"principal component 1 ({shares[0]} of the variance)",
            f"principal component 2 ({shares[1]})",
        )
    low, high = shown.min(0), shown.max(0)
    margin = 0.15 * (high - low)
    x, y = (np.linspace(a, b, GRID) for a, b in zip(low - margin, high + margin, strict=True))
    points = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
    if pca is not None:
        points = pca.inverse_transform(points)
    return Plane(x, y, points.astype(np.float32), shown, axes, pca is not None)


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": torch.__version__,  # names the build, CPU or CUDA, as well
        **{package: version(package) for package in ("batchensemble", "numpy", "scikit-learn")},
    }
