"""Prediction sets: the scores of three papers, the promised coverage, MAPIE as second source."""

import re

import numpy as np
import pytest
from scipy.stats import betabinom, binom
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import StratifiedShuffleSplit

import batchensemble as be
from batchensemble.decisions import ConformalSets, PredictionSets
from batchensemble.decisions.conformal.quantile import least_examples, rank_of
from batchensemble.predictions import Points

WAYS = [
    ("lac", True),
    ("aps", True),
    ("aps", False),
    ("raps", True),
    ("raps", False),
]


class Given(np.random.Generator):
    """Gives the random numbers that it was given."""

    def __init__(self, numbers):
        super().__init__(np.random.PCG64(0))
        self.numbers = list(numbers)

    def random(self, size):
        found, self.numbers = self.numbers[:size], self.numbers[size:]
        return np.array(found)


def draw(rng, examples, classes=4):
    """Probabilities of a bad model, and labels that it does not know well."""
    probs = rng.dirichlet(np.full(classes, 0.6), (examples, 2))
    true = probs.mean(1) ** 0.3
    true /= true.sum(1, keepdims=True)
    labels = (true.cumsum(1) < rng.random((examples, 1))).sum(1)
    return be.Prediction(probs), np.minimum(labels, classes - 1)


def slow_score(probs, label, u, method, penalty, free):
    """The score of one class of one example, in the words of the papers."""
    if method == "lac":
        return 1 - probs[label]
    order = sorted(range(len(probs)), key=lambda c: -probs[c])
    above = order.index(label)
    score = sum(probs[c] for c in order[:above]) + u * probs[label]
    return score + (penalty * max(0, above + 1 - free) if method == "raps" else 0)


@pytest.mark.parametrize(("method", "randomised"), WAYS)
@pytest.mark.parametrize("by_class", [False, True])
def test_sets_are_those_of_the_slow_loop(method, randomised, by_class):
    rng = np.random.default_rng(1)
    held_out, labels = draw(rng, 90)
    new, _ = draw(rng, 40)
    numbers = rng.random(130)
    conformal = ConformalSets(
        method, 0.8, by_class, randomised, penalty=0.05, free=1, seed=Given(numbers)
    )
    contains = conformal.fit(held_out, labels)(new).contains
    numbers = numbers if randomised else 0 * numbers

    def score(prediction, i, label, u):
        return slow_score(prediction.probs[i], label, u, method, 0.05, 1)

    own = np.array([score(held_out, i, labels[i], numbers[i]) for i in range(90)])
    for label in range(4):
        counted = np.sort(own[labels == label] if by_class else own)
        threshold = counted[rank_of(len(counted), 0.8) - 1]
        assert conformal.thresholds_[label] == pytest.approx(threshold, abs=1e-12)
        for i in range(40):
            expected = score(new, i, label, numbers[90 + i]) <= threshold + 1e-12
            assert contains[i, label] == expected


class Probabilities(ClassifierMixin, BaseEstimator):
    """A classifier of scikit-learn whose inputs are its probabilities."""

    def fit(self, X, y):
        self.classes_ = np.arange(X.shape[1])
        return self

    def predict_proba(self, X):
        return X

    def predict(self, X):
        return X.argmax(1)


@pytest.mark.parametrize("confidence", [0.7, 0.9, 0.95])
@pytest.mark.parametrize("method", ["lac", "aps"])
def test_sets_are_those_of_mapie(method, confidence):
    from mapie.classification import SplitConformalClassifier

    rng = np.random.default_rng(2)
    held_out, labels = draw(rng, 203)
    new, _ = draw(rng, 203)
    model = Probabilities().fit(held_out.probs, labels)
    theirs = SplitConformalClassifier(
        model, confidence, conformity_score=method, prefit=True, random_state=5
    ).conformalize(held_out.probs, labels)
    options = {"include_last_label": "randomized"} if method == "aps" else {}
    _, expected = theirs.predict_set(new.probs, conformity_score_params=options)
    # They draw the same numbers for both, and count them from the other end.
    u = 1 - np.random.RandomState(5).uniform(size=203)
    conformal = ConformalSets(method, confidence, seed=Given([*u, *u])).fit(held_out, labels)
    threshold = theirs._mapie_classifier.conformity_score_function_.quantiles_[0]
    assert conformal.thresholds_ == pytest.approx(np.full(4, threshold), abs=1e-12)
    np.testing.assert_array_equal(conformal(new).contains, expected[..., 0])


def test_penalised_thresholds_are_those_of_mapie():
    """Their random sets count the penalty of the last rank otherwise, so sets are not compared."""
    from mapie.classification import SplitConformalClassifier

    prediction, labels = draw(np.random.default_rng(3), 203, classes=8)
    model = Probabilities().fit(prediction.probs, labels)
    theirs = SplitConformalClassifier(
        model, 0.8, conformity_score="raps", prefit=True, random_state=5
    ).conformalize(prediction.probs, labels)
    theirs.predict_set(prediction.probs)
    found = theirs._mapie_classifier.conformity_score_function_
    # They choose penalty and ranks on a part of the held-out examples, which then does not count.
    split = StratifiedShuffleSplit(1, test_size=found.size_raps, random_state=5)
    kept, _ = next(split.split(prediction.probs, labels))
    conformal = ConformalSets(
        "raps",
        0.8,
        penalty=float(found.lambda_star),
        free=int(found.k_star[0]),
        seed=Given(1 - np.random.RandomState(5).uniform(size=len(kept))),
    ).fit(be.Prediction(prediction.member_probs[kept]), labels[kept])
    assert conformal.penalty > 0
    assert conformal.free < 7
    assert conformal.thresholds_ == pytest.approx(np.full(8, found.quantiles_[0]), abs=1e-12)


@pytest.mark.parametrize(
    ("method", "by_class"), [("lac", False), ("aps", False), ("aps", True), ("raps", True)]
)
def test_coverage_of_200_draws_is_as_the_theory_says(method, by_class):
    """Given the number held out, the covered of so many new ones are beta-binomial."""
    draws, counts = 200, []
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        held_out, labels = draw(rng, 250)
        new, truth = draw(rng, 500)
        sets = ConformalSets(method, 0.85, by_class, penalty=0.1, free=2, seed=seed).fit(
            held_out, labels
        )(new)
        # By class, the promise is for class 1 alone.
        kept = (labels == 1, truth == 1) if by_class else (labels >= 0, truth >= 0)
        covered = sets.contains[np.arange(500), truth][kept[1]].sum()
        counts.append((int(kept[0].sum()), kept[1].sum(), covered))
    held, asked, covered = np.array(counts).T
    rank = np.array([rank_of(int(number), 0.85) for number in held])
    law = betabinom(asked, rank, held + 1 - rank)
    assert (law.ppf(1e-6) <= covered).all()
    assert (covered <= law.ppf(1 - 1e-6)).all()
    # Between its two ends, the level of a count is uniform.
    levels = law.cdf(covered - 1) + np.random.default_rng(0).random(draws) * law.pmf(covered)
    for share in (0.1, 0.5, 0.9):
        low, high = binom(draws, share).ppf([0.0005, 0.9995])
        assert low <= (levels <= share).sum() <= high


def test_thresholds_by_class_cover_each_class_where_one_for_all_does_not():
    rng = np.random.default_rng(3)
    labels = rng.integers(2, size=8000)
    # Of class 1 the model knows little.
    sure = np.where(labels == 0, rng.uniform(0.8, 1, 8000), rng.uniform(0.1, 0.9, 8000))
    probs = np.where(labels[:, None] == [0, 1], sure[:, None], 1 - sure[:, None])
    prediction = be.Prediction(probs[:, None])
    one = ConformalSets("lac", 0.9).fit(prediction, labels)(prediction)
    each = ConformalSets("lac", 0.9, by_class=True).fit(prediction, labels)(prediction)
    assert one.coverage_by_class(labels)[1] < 0.85
    assert each.coverage_by_class(labels) == pytest.approx([0.9, 0.9], abs=0.002)


def test_the_same_call_gives_the_same_sets_and_a_generator_goes_on():
    prediction, labels = draw(np.random.default_rng(4), 500)
    fixed = ConformalSets(seed=3).fit(prediction, labels)
    again = ConformalSets(seed=3).fit(prediction, labels)
    first = fixed(prediction).contains
    np.testing.assert_array_equal(first, fixed(prediction).contains)
    np.testing.assert_array_equal(first, again(prediction).contains)
    other = ConformalSets(seed=4).fit(prediction, labels)
    assert (first != other(prediction).contains).any()
    going_on = ConformalSets(seed=np.random.default_rng(3)).fit(prediction, labels)
    assert (going_on(prediction).contains != going_on(prediction).contains).any()


def test_held_out_and_new_examples_have_random_numbers_of_their_own():
    prediction, labels = draw(np.random.default_rng(4), 3000)
    conformal = ConformalSets("aps", 0.9, seed=0).fit(prediction, labels)
    # Were they the same, exactly ceil(0.9 * 3001) of the examples of fit would be covered.
    assert conformal(prediction).contains[np.arange(3000), labels].sum() != 2701


def test_sets_may_be_empty_unless_they_must_not():
    prediction, labels = draw(np.random.default_rng(5), 800)
    some = ConformalSets("aps", 0.3).fit(prediction, labels)(prediction)
    none = ConformalSets("aps", 0.3, allow_empty=False).fit(prediction, labels)(prediction)
    assert some.empty.any()
    assert not none.empty.any()
    assert (none.sizes - some.sizes)[some.empty].tolist() == [1] * some.empty.sum()
    assert all(
        none.classes(i) == [prediction.labels[i]] for i in np.flatnonzero(some.empty).tolist()
    )
    without = ConformalSets("aps", 0.3, randomised=False).fit(prediction, labels)(prediction)
    assert not without.empty.any()


def test_too_few_examples_give_all_classes_and_say_so():
    prediction, labels = draw(np.random.default_rng(6), 8)
    with pytest.warns(UserWarning, match="at least 9 held-out examples, got 8: every set contains"):
        conformal = ConformalSets(confidence=0.9).fit(prediction, labels)
    assert conformal(prediction).contains.all()
    assert least_examples(0.9) == 9


def test_a_class_without_enough_examples_is_in_every_set_and_named():
    prediction, labels = draw(np.random.default_rng(7), 600)
    rare = np.append(np.flatnonzero(labels != 2), np.flatnonzero(labels == 2)[:5])
    part = be.Prediction(prediction.member_probs[rare])
    conformal = ConformalSets("lac", 0.9, by_class=True)
    with pytest.warns(UserWarning, match="fewer than 9 of each of the classes 2: these classes"):
        conformal.fit(part, labels[rare])
    contains = conformal(prediction).contains
    assert contains[:, 2].all()
    assert not contains[:, [0, 1, 3]].all()


@pytest.mark.parametrize(("method", "randomised"), WAYS)
def test_equal_and_certain_probabilities(method, randomised):
    even = be.Prediction(np.full((40, 1, 4), 0.25))
    labels = np.arange(40) % 4
    sets = ConformalSets(method, 0.9, randomised=randomised).fit(even, labels)(even)
    assert sets.coverage(labels) >= 0.75
    certain = be.Prediction(np.eye(4)[labels][:, None])
    sets = ConformalSets(method, 0.9, randomised=False).fit(certain, labels)(certain)
    np.testing.assert_array_equal(sets.contains, np.eye(4, dtype=bool)[labels])


def test_one_new_example_and_none():
    prediction, labels = draw(np.random.default_rng(8), 100)
    conformal = ConformalSets().fit(prediction, labels)
    assert len(conformal(be.Prediction(prediction.member_probs[:1]))) == 1
    none = conformal(be.Prediction(prediction.member_probs[:0]))
    assert len(none) == 0
    assert np.isnan(none.mean_size)
    with pytest.raises(ValueError, match="at least one example to score, got none"):
        none.coverage([])
    with pytest.raises(ValueError, match="at least one example to score, got none"):
        ConformalSets().fit(be.Prediction(prediction.member_probs[:0]), [])


def test_coverage_of_a_class_without_examples_is_not_a_number():
    sets = PredictionSets(np.array([[True, False], [False, True]]), 0.9)
    assert np.isnan(sets.coverage_by_class([0, 0])[1])
    assert sets.coverage_by_class([0, 0])[0] == 0.5


def test_wrong_calls_get_a_sentence():
    prediction, labels = draw(np.random.default_rng(9), 100)
    with pytest.raises(RuntimeError, match="call fit with held-out examples"):
        ConformalSets()(prediction)
    with pytest.raises(ValueError, match=r"labels must have the shape \[100\]"):
        ConformalSets().fit(prediction, labels[:50])
    with pytest.raises(TypeError, match="labels must be whole numbers"):
        ConformalSets().fit(prediction, labels + 0.5)
    conformal = ConformalSets().fit(prediction, labels)
    with pytest.raises(ValueError, match="must have 4 classes as in fit, got 3"):
        conformal(draw(np.random.default_rng(9), 10, classes=3)[0])
    broken = prediction.member_probs.copy()
    broken[3, 0, 1] = np.nan
    for call in (lambda p: conformal.fit(p, labels), conformal):
        with pytest.raises(ValueError, match="the probabilities must be finite, got NaN"):
            call(be.Prediction(broken))


@pytest.mark.usefixtures("as_users_run_it")
def test_predictions_of_anything_but_a_class_an_example_are_refused():
    prediction, labels = draw(np.random.default_rng(9), 100)
    conformal = ConformalSets().fit(prediction, labels)
    for call in (lambda p: conformal.fit(p, labels), conformal):
        with pytest.raises(TypeError, match="must be of classes, got Points"):
            call(Points(np.zeros((100, 2))))
        with pytest.raises(ValueError, match="must have one class for each example, got the shape"):
            call(be.Prediction(np.full((100, 2, 4, 7), 0.25)))


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"method": "abs"}, "method must be one of lac, aps, raps, got 'abs'; did you mean"),
        ({"confidence": 1.0}, "confidence must be a number above 0 and below 1, got 1.0"),
        ({"penalty": -1.0}, "penalty must be a finite number of at least 0, got -1.0"),
        ({"free": -1}, "free must be at least 0, got -1"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_wrong_options_get_a_sentence(options, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        ConformalSets(**options)
