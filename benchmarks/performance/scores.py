"""What scores cost: a million predictions of ten classes by four members.

    python benchmarks/performance/scores.py            # about three minutes
    python benchmarks/performance/scores.py --write    # puts the tables into docs/performance.md

Seconds of medians of interleaved repetitions, each from a prediction of which nothing is known yet
but the members' probabilities (320 MB); the peak is of what NumPy and torch allocate on the way,
those probabilities among it, in copies of them. Ratios are to torchmetrics and scikit-learn in the
same run, where they have the same score; all then start from the mean probabilities.
"""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from sklearn.metrics import brier_score_loss, log_loss

import batchensemble as be
from batchensemble import metrics

if not __package__:  # run as a file: imports start at the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.operators import declare_operators
from benchmarks.pages import Lines
from benchmarks.performance.interleaved import medians
from benchmarks.performance.parts import Numbers, Part

EXAMPLES, MEMBERS, CLASSES = 1_000_000, 4, 10
SECONDS, COPIES = 2.0, 3.0  # to reach
Score = Callable[[be.Prediction, np.ndarray], object]

SCORES: dict[str, Score] = {
    "evaluate's: accuracy, NLL, Brier, ECE, mutual information, disagreement": metrics.score,
    "total, aleatoric, epistemic": lambda prediction, _: prediction.entropy,
    "variance of each class, in two parts": lambda prediction, _: prediction.variance,
    "pairwise KL": lambda prediction, _: prediction.pairwise_kl,
    "diversity: disagreement, KL, Q, correlation of errors": metrics.diversity,
    "accuracy and NLL by 1 to 4 members": metrics.by_members,
    "Brier's parts": metrics.brier_parts,
    "calibration error of each class": metrics.classwise,
    "ECE with its interval": metrics.ece_interval,
    "smooth ECE": metrics.smooth_ece,
    "risk and coverage": lambda prediction, labels: be.risk_coverage(prediction, labels),
    "threshold for a risk of half": lambda prediction, labels: be.threshold_for(
        prediction, labels, risk=0.5
    ),
}


def measure(seconds: float) -> Numbers:
    """Time our scores and weigh them, and time those that others have too."""
    probs, labels = drawn(EXAMPLES if seconds else EXAMPLES // 100)
    works = {
        name: lambda score=score: score(be.Prediction(probs), labels)
        for name, score in SCORES.items()
    }
    times = medians(works, seconds=3 * seconds)
    ours: Numbers = [
        {"what": name, "seconds": times[name], "copies": copies_of(works[name], probs)}
        for name in track(works, "memory")
    ]
    return ours + beside_others(probs, labels, seconds)


def drawn(examples: int) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities of members that agree in part, and labels that these tell something of.

    The first half of what is drawn is common to the members.
    """
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(examples, 1, CLASSES, generator=generator, dtype=torch.float64)
    own = torch.randn(examples, MEMBERS, CLASSES, generator=generator, dtype=torch.float64)
    probs = own.add_(common).mul_(2).softmax(2)
    labels = torch.multinomial(probs.mean(1), 1, generator=generator)[:, 0]
    return probs.numpy(), labels.numpy()


def copies_of(work: Callable[[], object], probs: np.ndarray) -> float:
    """Return the peak of memory in copies of the probabilities, themselves among them."""
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return 1 + peak / probs.nbytes


def beside_others(probs: np.ndarray, labels: np.ndarray, seconds: float) -> Numbers:
    """Time the same score by us and by another library, one after the other."""
    torchmetrics = torchmetrics_of()
    mean = probs.mean(1)
    given, truth = torch.from_numpy(mean), torch.from_numpy(labels)
    classes = np.arange(CLASSES)
    pairs: Mapping[str, tuple[str, Score, Callable[[], Any]]] = {
        "accuracy": (
            "torchmetrics",
            lambda prediction, labels: (prediction.labels == labels).mean(),
            lambda: torchmetrics.multiclass_accuracy(given, truth, CLASSES, average="micro"),
        ),
        "ECE": (
            "torchmetrics",
            lambda prediction, labels: metrics.reliability(prediction, labels).ece,
            lambda: torchmetrics.multiclass_calibration_error(given, truth, CLASSES, n_bins=15),
        ),
        "NLL": (
            "scikit-learn",
            lambda prediction, labels: metrics.losses_by_example(prediction, labels).mean(),
            lambda: log_loss(labels, mean, labels=classes),
        ),
        "Brier": (
            "scikit-learn",
            lambda prediction, labels: metrics.losses_by_example(
                prediction, labels, "brier"
            ).mean(),
            lambda: brier_score_loss(labels, mean, labels=classes, scale_by_half=False),
        ),
    }
    found: Numbers = []
    for name, (library, ours, theirs) in track(pairs.items(), "others"):

        def mine(ours: Score = ours) -> Any:
            return ours(be.Prediction(probs, mean), labels)

        np.testing.assert_allclose(mine(), float(theirs()), rtol=1e-4)
        times = medians({"ours": mine, "theirs": theirs}, seconds=3 * seconds)
        found.append({"score": name, "library": library, **times})
    return found


def torchmetrics_of() -> Any:
    """Return the functions of torchmetrics for classes."""
    declare_operators()  # torchmetrics imports torchvision
    from torchmetrics.functional import classification

    return classification


def costs(numbers: Numbers) -> Lines:
    """Return the table of our scores."""
    rows = [
        [each["what"], f"{each['seconds']:.2f}", f"{each['copies']:.2f}"]
        for each in numbers
        if "what" in each
    ]
    first, *others = rows
    first = [first[0], f"{first[1]} ({SECONDS:g})", f"{first[2]} ({COPIES:g})"]
    together = sum(each["seconds"] for each in numbers if "what" in each)
    return [
        ["scores", "seconds (to reach)", "peak, copies of the input (to reach)"],
        first,
        *others,
        ["all of these, each from the start", f"{together:.2f}", "-"],
    ]


def ratios(numbers: Numbers) -> Lines:
    """Return the table of what others take for the same scores."""
    return [
        ["score", "seconds", "by", "seconds", "ours over theirs"],
        *[
            [
                each["score"],
                f"{each['ours']:.3f}",
                each["library"],
                f"{each['theirs']:.3f}",
                f"{each['ours'] / each['theirs']:.2f}",
            ]
            for each in numbers
            if "score" in each
        ],
    ]


PART = Part("scores", __doc__, measure, {"scores": costs, "scores of others": ratios})

if __name__ == "__main__":
    PART.main()
