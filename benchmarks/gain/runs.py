"""The trainings of the page on gain: what is compared, and finished runs as files that are kept.

A run is one method, data set and seed. The seed draws the split, the plain network that every
method starts from, and the order of the examples; so differences of methods are those of pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

import batchensemble as be
from batchensemble.comparison.files import RunFiles, fingerprint_of
from batchensemble.comparison.jobs import Failure, prepare_backend, run_many
from batchensemble.ensembles.networks import multilayer_perceptron
from benchmarks.gain.data import MOST, Parts, Source, split

MEMBERS = 4
HIDDEN = (128, 128)
BATCH_SIZE = 128
LR = 1e-3
BLOCK = 5  # seeds that all data sets get before any gets more

Sampling = Literal["shared", "independent", "split"]


@dataclass(frozen=True)
class Method:
    """One way to spend members.

    Attributes:
        title: of its rows.
        make: the ensemble of a plain network.
        batches: what the members see of a batch, if not what is the method's own.
    """

    title: str
    make: Callable[[nn.Module], be.Ensemble]
    batches: Sampling | None = None


def _rank_one(network: nn.Module, **options: list[str]) -> be.Ensemble:
    return be.BatchEnsemble(network, MEMBERS, **options)


def _deep(network: nn.Module) -> be.Ensemble:
    # A perceptron runs as stacked twins: the numbers of copies, in less time.
    return be.DeepEnsemble(network, MEMBERS, stacked=True)


SINGLE, DEEP, DEFAULT = "single", "deep", "shared"
METHODS = {
    SINGLE: Method("one network", be.Single),
    DEEP: Method("deep ensemble", _deep),
    DEFAULT: Method("rank-one (default)", _rank_one, "shared"),
    "independent": Method("rank-one, own order", _rank_one, "independent"),
    "split": Method("rank-one, batch split", _rank_one, "split"),
    "first": Method("independent first layer", partial(_rank_one, independent=["0"]), "shared"),
}
RULES = [name for name in METHODS if name not in (SINGLE, DEEP)]


@dataclass(frozen=True)
class Job:
    """One training to be done.

    Attributes:
        source: the data set.
        seed: of the split, the network and the order.
        method: key of :data:`METHODS`.
    """

    source: Source
    seed: int
    method: str

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.source.name}-{self.seed}-{self.method}"

    def files(self, folder: Path) -> RunFiles:
        """Return the folder of finished runs, as seen with this data and these settings."""
        return RunFiles(folder, _fingerprint(self.source))

    def read(self, folder: Path) -> dict[str, np.ndarray] | None:
        """Return what was kept: ``held_out``, ``labels`` and, with classes left out, ``left_out``.

        Probabilities are ``[examples, members, classes]``. ``None`` where it is yet to be done.
        """
        found = self.files(folder).read(self.name)
        return None if found is None else found[1]

    def run(self, folder: Path) -> None:
        """Train, predict and keep."""
        torch.set_num_threads(1)
        parts = split(self.source, self.seed)
        model = _trained(METHODS[self.method], parts, self.seed, self.source.epochs)
        X, y = parts.held_out
        kept = {"held_out": _probabilities(model, X), "labels": y.astype(np.uint8)}
        if parts.left_out is not None:
            kept["left_out"] = _probabilities(model, parts.left_out)
        self.files(folder).write(self.name, {}, kept)


def jobs_of(sources: Iterable[Source], seeds: int) -> Iterator[Job]:
    """Yield all trainings, so that an interrupted run leaves whole seeds of every data set."""
    sources = list(sources)
    for first in range(0, seeds, BLOCK):
        for source in sources:
            for seed in range(first, min(first + BLOCK, seeds)):
                for method in METHODS:
                    yield Job(source, seed, method)


def run_all(todo: Sequence[Job], folder: Path, processes: int) -> Iterator[tuple[Job, str]]:
    """Do all jobs; yield each and why it failed, or an empty text."""
    if processes == 1:
        for job in todo:
            job.run(folder)
            yield job, ""
        return
    for number, result in run_many(
        Job.run, [(job, folder) for job in todo], jobs=prepare_backend(processes)
    ):
        yield todo[number], result.reason if isinstance(result, Failure) else ""


def after_epochs(source: Source, seed: int, epochs: int) -> float:
    """Return the held-out NLL of one network after so many epochs, nats."""
    parts = split(source, seed)
    return float(be.evaluate(_trained(METHODS[SINGLE], parts, seed, epochs), parts.held_out)["nll"])


def _trained(method: Method, parts: Parts, seed: int, epochs: int) -> be.Ensemble:
    torch.manual_seed(seed)
    network = multilayer_perceptron(parts.train[0].shape[1], HIDDEN, parts.classes)
    model = method.make(network)
    be.fit(
        model,
        parts.train,
        epochs=epochs,
        batch_size=BATCH_SIZE,
        lr=LR,
        batches=method.batches,
        seed=seed,
        progress=False,
    )
    return model


def _probabilities(model: be.Ensemble, X: np.ndarray) -> np.ndarray:
    prediction = be.predict(model, X)
    assert isinstance(prediction, be.Prediction)  # of classes
    return prediction.member_probs.astype(np.float32)


@cache
def _fingerprint(source: Source) -> str:
    settings = {
        "source": [source.name, source.epochs, *source.left_out],
        "settings": [MEMBERS, *HIDDEN, BATCH_SIZE, LR, MOST],
    }
    return fingerprint_of(settings, source.examples())
