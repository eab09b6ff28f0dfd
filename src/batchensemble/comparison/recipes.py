"""Recipes: published comparisons, reproduced as they were with this library."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from sklearn.datasets import make_moons
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from batchensemble.comparison.compare import make_run
from batchensemble.comparison.planes import make_plane
from batchensemble.comparison.results import Comparison, Run, Settings
from batchensemble.data.datasets import Data, load_dataset, plane_data
from batchensemble.ensembles import MIMO, BatchEnsemble, DeepEnsemble, Single
from batchensemble.ensembles.networks import multilayer_perceptron
from batchensemble.layers import FastWeights
from batchensemble.metrics import BINS, Labels, Scores
from batchensemble.predictions.predict import Prediction
from batchensemble.training.fit import fit
from batchensemble.training.history import History

OnRun = Callable[[Run], None]
Recipe = Callable[[bool | None, OnRun | None], Comparison]

RECIPE_SEED = 42
MEMBERS = 3

# Loss of the last batch of each epoch, as the notebook prints it; the last five of BatchEnsemble
# are cut off in its output and come from a re-run.
NOTEBOOK_LOSSES = {
    "deep, member 1": "2620 0527 1919 0583 0346 0740 0430 0722 0916 0698",
    "deep, member 2": "1035 1127 1962 0441 0823 0956 0649 1649 0846 1114",
    "deep, member 3": "0909 0889 1157 1122 1417 0681 0268 0825 0891 0462",
    "BatchEnsemble": "2637 1423 2917 1985 1700 0686 1220 0504 0966 0234",
}


def notebook(progress: bool | None = None, on_run: OnRun | None = None) -> Comparison:
    """Run *Batch Ensemble Networks* as it is: its data, its draws in their order, its mistakes.

    A deep ensemble, trained one member after the other, against an additive BatchEnsemble with
    one hidden layer that is trained on the mean of its members' logits.
    """
    settings = Settings(methods=("deep", "batch"), members=MEMBERS, cooldown=0.0)
    comparison = _started("notebook", load_dataset("moons"), settings)
    with _kept_if_interrupted(comparison), torch.random.fork_rng([]):
        torch.manual_seed(RECIPE_SEED)
        _network(comparison)  # built and not used: its draws come first in the notebook too
        batch = BatchEnsemble(
            _undrawn_network(comparison.data),
            MEMBERS,
            mode="additive",
            bias="shared",
            init=_notebook_layer,
        )
        trainings = _deep_ensemble(comparison, progress, on_run)
        history = _fit(comparison, batch, "BatchEnsemble", progress, loss_on="mean_logits")
        trainings["BatchEnsemble"] = history
        _add(comparison, "batch", batch, history, on_run)
        comparison.printed = {
            name: (_losses(name), history.last_batch_losses) for name, history in trainings.items()
        }
        comparison.explanation = _why_wrong(comparison)
    return comparison


def mimo_notebook(progress: bool | None = None, on_run: OnRun | None = None) -> Comparison:
    """Run the sister notebook as it is: MIMO that sees one example three times in training too.

    2,000 points, 250 epochs, loss on the mean of the heads' logits, against a deep ensemble.
    """
    points = plane_data(
        "moons, 2,000 points", *make_moons(2000, noise=0.2, random_state=RECIPE_SEED)
    )
    settings = Settings(methods=("deep", "mimo"), members=MEMBERS, epochs=250, cooldown=0.0)
    comparison = _started("mimo-notebook", points, settings)
    with _kept_if_interrupted(comparison), torch.random.fork_rng([]):
        torch.manual_seed(RECIPE_SEED)
        mimo = MIMO(_network(comparison), MEMBERS)
        _deep_ensemble(comparison, progress, on_run)
        history = _fit(comparison, mimo, "MIMO", progress, loss_on="mean_logits")
        _add(comparison, "mimo", mimo, history, on_run)
        comparison.explanation = _why_alike(comparison)
    return comparison


RECIPES: dict[str, Recipe] = {"notebook": notebook, "mimo-notebook": mimo_notebook}


@contextmanager
def _kept_if_interrupted(comparison: Comparison) -> Iterator[None]:
    """Let Ctrl-C stop the recipe; finished runs stay in the comparison."""
    try:
        yield
    except KeyboardInterrupt:
        comparison.interrupted = True


def _started(name: str, data: Data, settings: Settings) -> Comparison:
    return Comparison(settings, data, make_plane(data), recipe=name)


def _network(comparison: Comparison) -> nn.Sequential:
    data, hidden = comparison.data, comparison.settings.hidden
    return multilayer_perceptron(data.features, hidden, data.classes)


def _undrawn_network(data: Data) -> nn.Sequential:
    """Return the notebook's BatchEnsemble network, one hidden layer, without a random draw."""
    return nn.Sequential(
        nn.utils.skip_init(nn.Linear, data.features, 128),
        nn.ReLU(),
        nn.utils.skip_init(nn.Linear, 128, data.classes),
    )


def _notebook_layer(layer: FastWeights) -> None:
    """Draw a layer as the notebook does: W, then r, then s; biases are zero."""
    assert layer.bias is not None
    layer.weight.normal_(std=0.1)
    layer.bias.zero_()
    layer.r.normal_()
    layer.s.normal_()


def _deep_ensemble(
    comparison: Comparison, progress: bool | None, on_run: OnRun | None
) -> dict[str, History]:
    """Train the members in turn, each built just before its training."""
    singles, histories = [], {}
    for number in range(1, MEMBERS + 1):
        label = f"deep, member {number}"
        single = Single(_network(comparison))
        histories[label] = _fit(comparison, single, label, progress)
        singles.append(single.member(0))
    ensemble, history = (
        DeepEnsemble.from_members(singles),
        one_after_the_other([*histories.values()]),
    )
    _add(comparison, "deep", ensemble, history, on_run)
    return histories


def _fit(
    comparison: Comparison, model: Any, label: str, progress: bool | None, **options: Any
) -> History:
    X, y = (torch.from_numpy(part) for part in comparison.data.train)
    settings = comparison.settings
    with warnings.catch_warnings():
        # That its members rely on each other is what the recipe shows.
        warnings.filterwarnings("ignore", "the members rely on each other")
        return fit(
            model,
            DataLoader(TensorDataset(X, y), settings.batch_size, shuffle=True),
            epochs=settings.epochs,
            lr=settings.lr,
            cooldown=settings.cooldown,
            seed=None,
            progress=progress,
            label=label,
            **options,
        )


def _add(
    comparison: Comparison, method: str, model: Any, history: History, on_run: OnRun | None
) -> None:
    run = make_run(comparison, method, RECIPE_SEED, model, history)
    theirs = notebook_ece(run.classes, comparison.data.held_out[1])
    run = replace(run, scores=Scores({**run.scores, "notebook_ece": theirs}))
    comparison.runs.append(run)
    if on_run is not None:
        on_run(run)


def one_after_the_other(histories: Sequence[History]) -> History:
    """Return the history of networks trained in turn as that of one ensemble.

    Example:
        >>> once = History([0.5], [[0.5]], [0.4], [], [2.0], [10], [3])
        >>> one_after_the_other([once, once]).seconds
        [4.0]
    """
    epochs = range(len(histories[0].losses))

    def each(name: str, epoch: int) -> list[Any]:
        return [getattr(history, name)[epoch] for history in histories]

    return History(
        losses=[float(np.mean(each("losses", epoch))) for epoch in epochs],
        member_losses=[list(chain(*each("member_losses", epoch))) for epoch in epochs],
        last_batch_losses=[float(np.mean(each("last_batch_losses", epoch))) for epoch in epochs],
        seconds=[sum(each("seconds", epoch)) for epoch in epochs],
        examples=[sum(each("examples", epoch)) for epoch in epochs],
        forward_calls=[sum(each("forward_calls", epoch)) for epoch in epochs],
    )


def notebook_ece(prediction: Prediction, labels: Labels) -> float:
    """Return the notebook's expected calibration error: a confidence of exactly 1 is in no bin.

    Example:
        >>> sure_and_wrong = Prediction(np.array([[[1.0, 0.0]]]))
        >>> notebook_ece(sure_and_wrong, np.array([1]))
        0.0
    """
    confidence = prediction.confidence
    index = np.searchsorted(np.linspace(0, 1, BINS + 1), confidence, side="right") - 1
    gaps = np.bincount(index, (prediction.labels == labels) - confidence, minlength=BINS)
    return float(np.abs(gaps[:BINS]).sum() / len(confidence))


def _losses(name: str) -> list[float]:
    return [int(digits) / 10_000 for digits in NOTEBOOK_LOSSES[name].split()]


def _why_wrong(comparison: Comparison) -> str:
    """Return in two sentences why the notebook's BatchEnsemble fails, with this run's numbers."""
    run = comparison.runs[-1]
    accuracies = run.scores["member_accuracies"]
    return (
        "Only the mean of the members' logits is trained here, so a member may be wrong as long as "
        f"the others compensate. The accuracy of single members is {min(accuracies):.0%} to "
        f"{max(accuracies):.0%} on the held-out examples, and that of their mean probabilities, "
        f"the ensemble's prediction, {run.scores['accuracy']:.0%}."
    )


def _why_alike(comparison: Comparison) -> str:
    """Return in two sentences what the second notebook's MIMO lacks, with this run's numbers."""
    deep, mimo = comparison.runs
    share = mimo.scores["mutual_information"] / deep.scores["mutual_information"]
    return (
        "All inputs are the same example here, in training too, and only the mean of the heads' "
        "logits is trained, so nothing makes the members differ. Their mutual information is "
        f"{share:.2f} times the deep ensemble's: one network with three heads, whereas in the "
        "paper each member is trained on examples of its own."
    )
