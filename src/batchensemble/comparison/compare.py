"""``compare``: train and score every method from every seed on one data set."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from batchensemble.comparison.cost import measure_cost
from batchensemble.comparison.files import RunFiles
from batchensemble.comparison.jobs import Failure, prepare_backend, run_many
from batchensemble.comparison.planes import make_plane
from batchensemble.comparison.results import (
    Comparison,
    Run,
    Settings,
    compared_loss,
    comparison_loss,
    read_run,
    run_fingerprint,
    write_run,
)
from batchensemble.data.datasets import Data
from batchensemble.ensembles import METHODS, Ensemble
from batchensemble.ensembles.networks import multilayer_perceptron
from batchensemble.losses import outputs_for
from batchensemble.metrics import ConstantNumber, score
from batchensemble.predictions.predict import model_loss, predict
from batchensemble.training.fit import fit
from batchensemble.training.history import History
from batchensemble.training.table_recipe import TableRecipe, build_table_ensemble

__all__ = ["Comparison", "Run", "Settings", "build_ensemble", "compare", "make_run"]


def compare(
    data: Data,
    settings: Settings | None = None,
    *,
    jobs: int = 1,
    backend: str = "loky",
    address: str | None = None,
    folder: str | Path | None = None,
    progress: bool | None = None,
    on_run: Callable[[Run], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> Comparison:
    """Train and score every method from every seed on one data set.

    Ctrl-C stops it early: the finished runs are returned and ``interrupted`` is set. A training
    that diverges is recorded in ``failures`` and the others continue; with several jobs, so is one
    that raises any other error or whose process is killed.

    Args:
        data: a data set, from :func:`batchensemble.data.datasets.load_dataset`.
        settings: the settings; the defaults are the notebook's.
        jobs: number of trainings at once, each in its own process with its share of the cores;
            1 trains in this process. The scores are the same; the times are not, since jobs share
            memory and caches.
        backend: ``"loky"``, processes on this machine, or ``"ray"``.
        address: address of a running Ray; ``"auto"`` for the one on this machine. By default a Ray
            is started here.
        folder: folder for a file of each finished run; files of the same data and settings are
            read instead of training again. By default nothing is stored.
        progress: whether to show a progress bar for each training of this process; by default only
            in a terminal.
        on_run: called with each finished run, read or trained.
        say: with several jobs, called with a sentence when a training begins, while Ray starts,
            and when nothing has finished on Ray for 30 s.

    Raises:
        TypeError, ValueError, ImportError, OSError: jobs, backend or address are not valid, or the
            loss is not one for the data's task.

    Example:
        >>> from batchensemble.data.datasets import load_dataset
        >>> quick = Settings(methods=("batch",), epochs=1)
        >>> [run.method for run in compare(load_dataset("breast_cancer"), quick).runs]
        ['batch']
    """
    settings = settings or Settings()
    comparison_loss(settings, data)
    _check_table(settings, data)
    comparison = Comparison(settings, data, make_plane(data))
    say = say or (lambda sentence: None)
    jobs = prepare_backend(jobs, backend, address, say)
    files = None if folder is None else RunFiles(folder, run_fingerprint(settings, data))
    order = [(method, seed) for seed in range(settings.seeds) for method in settings.methods]
    left = list(order)
    try:
        for each in order:
            run = None if files is None else read_run(files, *each)
            if run is not None:
                left.remove(each)
                comparison.read += 1
                _add(comparison, run, on_run)
        outcomes = _outcomes(comparison, left, jobs, backend, progress, say)
        for (method, seed), outcome in outcomes:
            if isinstance(outcome, Failure):
                comparison.failures.append(f"{method}, seed {seed}: {outcome.reason}")
                continue
            if files is not None:
                write_run(files, outcome, comparison)
            _add(comparison, outcome, on_run)
    except KeyboardInterrupt:
        comparison.interrupted = True
    comparison.runs.sort(key=lambda run: order.index((run.method, run.seed)))
    return comparison


def _check_table(settings: Settings, data: Data) -> None:
    """Raise ``ValueError`` if settings for a table meet data that are none."""
    if settings.architecture == "table" and (
        data.encoding is None or data.encoding.layout != "codes"
    ):
        raise ValueError(
            f"architecture table is for files that are loaded with layout='codes', and {data.name} "
            "is none; leave it out"
        )
    if settings.patience is not None and data.stopping is None:
        raise ValueError(
            f"patience needs rows to stop by, and {data.name} has none; load a file with "
            "stopping=True, or leave it out"
        )


def _outcomes(
    comparison: Comparison,
    left: Sequence[tuple[str, int]],
    jobs: int,
    backend: str,
    progress: bool | None,
    say: Callable[[str], None],
) -> Iterator[tuple[tuple[str, int], Run | Failure]]:
    """Yield the outcome of each remaining training, here or in other processes."""
    if jobs > 1:
        asked = Comparison(comparison.settings, comparison.data, comparison.plane)
        tasks = [(asked, method, seed, False) for method, seed in left]
        count = itertools.count(1)

        def begun(number: int) -> None:
            method, seed = left[number]
            say(f"{method}, seed {seed}: begun, {next(count)} of {len(left)}")

        ways: dict[str, Any] = {"jobs": jobs, "backend": backend, "begun": begun, "say": say}
        for number, outcome in run_many(_run, tasks, **ways):
            yield left[number], outcome
        return
    for each in left:
        try:
            yield each, _run(comparison, *each, progress)
        except FloatingPointError as error:
            yield each, Failure(str(error))


def _add(comparison: Comparison, run: Run, on_run: Callable[[Run], None] | None) -> None:
    comparison.runs.append(run)
    if on_run is not None:
        on_run(run)


def _run(comparison: Comparison, method: str, seed: int, progress: bool | None) -> Run:
    settings, data = comparison.settings, comparison.data
    model = build_ensemble(method, settings, data, seed)
    history = fit(
        model,
        data.train,
        validation=data.held_out if settings.patience is None else data.stopping,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        lr=settings.lr,
        optimizer=settings.optimizer,
        weight_decay=settings.weight_decay,
        patience=settings.patience,
        cooldown=settings.cooldown,
        loss=compared_loss(settings, data),
        standardise_targets=data.task == "regression",
        seed=seed,
        progress=progress,
        label=f"{method}, seed {seed}",
    )
    return make_run(comparison, method, seed, model, history)


def make_run(
    comparison: Comparison, method: str, seed: int, model: Ensemble, history: History
) -> Run:
    """Return the run of a trained ensemble: its scores, cost and predictions."""
    data, plane = comparison.data, comparison.plane
    prediction = predict(model, data.held_out[0])
    examples = comparison.settings.batch_size
    targets = torch.from_numpy(data.train[1][:examples])
    return Run(
        method,
        seed,
        score(prediction, data.held_out[1], constant=ConstantNumber.of_training(model_loss(model))),
        measure_cost(
            model,
            torch.from_numpy(data.train[0][:examples]),
            targets.float() if data.task == "regression" else targets,
            history,
        ),
        history,
        prediction,
        None if plane is None else predict(model, plane.points),
    )


def build_ensemble(method: str, settings: Settings, data: Data, seed: int) -> Ensemble:
    """Return an untrained ensemble of the comparison's network.

    Args:
        method: a name of :data:`batchensemble.ensembles.METHODS`.
        settings: settings with the number of members, the architecture and its sizes.
        data: the data set, for the numbers of features and outputs.
        seed: seed of the initial weights; the caller's random state stays as it is.
    """
    outputs = outputs_for(compared_loss(settings, data), data.classes)
    if settings.architecture == "table":
        assert data.encoding is not None
        recipe = TableRecipe(method, settings.members, settings.hidden, settings.dropout or 0.0)
        return build_table_ensemble(recipe, data.encoding, data.train[0], outputs, seed=seed)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        network = multilayer_perceptron(data.features, settings.hidden, outputs)
        return METHODS[method].build(network, settings.members)
