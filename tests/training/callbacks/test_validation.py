"""Held-out data: scored when asked, the best weights kept, the training ended in time."""

import pytest
import torch
from sklearn.datasets import make_moons
from torch import nn

import batchensemble as be
from batchensemble.losses import ensemble_nll

torch.manual_seed(0)
X, Y = (torch.as_tensor(each) for each in make_moons(240, noise=0.4, random_state=0))
TRAIN, HELD_OUT = (X[:40].float(), Y[:40]), (X[40:].float(), Y[40:])
OVERFITTING = {"epochs": 60, "batch_size": 8, "lr": 0.03, "cooldown": 0.0}


def build(width=32):
    torch.manual_seed(1)
    return be.BatchEnsemble(
        nn.Sequential(nn.Linear(2, width), nn.ReLU(), nn.Linear(width, 2)), members=3
    )


def nll(model):
    with torch.no_grad():
        return ensemble_nll(model.eval()(HELD_OUT[0]), HELD_OUT[1]).mean().item()


def test_patience_ends_the_training_and_brings_the_best_weights_back():
    model = build()
    history = be.fit(model, TRAIN, validation=HELD_OUT, patience=4, **OVERFITTING)
    assert history.epochs < 60
    best = min(history.validation_nll)
    assert history.validation_nll[-1] > best
    assert nll(model) == pytest.approx(best, rel=1e-5)
    step = 5 * (1 + history.validation_nll.index(best))
    assert history.stopped.startswith(f"the validation nll was best at step {step} ({best:.4g})")


def test_without_patience_the_last_weights_stay():
    model = build()
    history = be.fit(model, TRAIN, validation=HELD_OUT, **OVERFITTING)
    assert history.epochs == 60
    assert history.stopped == ""
    assert nll(model) == pytest.approx(history.validation_nll[-1], rel=1e-5)


def test_the_best_accuracy_is_the_highest():
    history = be.fit(
        model := build(), TRAIN, validation=HELD_OUT, patience=5, stop_on="accuracy", **OVERFITTING
    )
    best = max(each["accuracy"] for each in history.evaluations)
    assert be.evaluate(model, HELD_OUT)["accuracy"] == pytest.approx(best)


def test_every_so_many_steps_is_a_scoring():
    history = be.fit(
        build(), TRAIN, validation=HELD_OUT, evaluate_every=2, epochs=3, batch_size=8, lr=1e-3
    )
    assert [each["step"] for each in history.evaluations] == [2, 4, 5, 6, 8, 10, 12, 14, 15]
    assert len(history.validation_nll) == 3
    assert history.validation_nll[2] == history.evaluations[-1]["nll"]


def test_on_a_plateau_the_learning_rate_falls():
    rates = []

    class Rates(be.Callback):
        def on_epoch(self, run):
            rates.append(run.lr)

    be.fit(
        build(),
        TRAIN,
        validation=HELD_OUT,
        schedule=be.Plateau(patience=2, factor=0.5),
        callbacks=[Rates()],
        **OVERFITTING,
    )
    assert rates[0] == 0.03
    assert min(rates) <= 0.03 / 8
    assert set(rates) == {0.03 / 2**k for k in range(len(set(rates)))}


@pytest.mark.parametrize("options", [{"patience": 2}, {"evaluate_every": 5}])
def test_what_goes_by_held_out_data_needs_them(options):
    with pytest.raises(ValueError, match="validation is missing"):
        be.fit(build(), TRAIN, epochs=1, **options)


@pytest.mark.usefixtures("as_users_run_it")
def test_an_unknown_score_is_refused():
    with pytest.raises(ValueError, match="stop_on must be one of nll, brier, ece, accuracy"):
        be.fit(build(), TRAIN, validation=HELD_OUT, stop_on="f1")


@pytest.mark.parametrize(
    ("loss", "standardise", "targets"),
    [
        (loss, standardise, targets)
        for loss in ("gaussian_nll", "mse")
        for standardise in (True, False)
        for targets in (1, 2)
    ],
)
def test_a_loss_of_standardised_targets_is_called_so_beside_scores_that_are_not(
    loss, standardise, targets
):
    """A mean over targets of several units cannot be converted."""
    outputs = (2 if loss == "gaussian_nll" else 1) * targets
    model = be.BatchEnsemble(nn.Linear(2, outputs), members=2)
    X, y = TRAIN[0], 50 * torch.randn(len(TRAIN[0]), targets)
    y *= torch.arange(1, targets + 1)
    options = {"loss": loss, "standardise_targets": standardise, "patience": 1, "lr": 1.0}
    history = be.fit(model, (X, y), validation=(X, -y), epochs=30, **options)
    own = not standardise or targets == 1
    called = "loss" if own else "loss of standardised targets"
    assert history.stopped.startswith(f"the validation {called} was best at step ")
    assert history.standardised is (not own)
    assert be.History.from_dict(history.to_dict()) == history
    assert ("losses of standardised targets" in history._repr_html_()) == (not own)
    assert "held-out NLL" not in history._repr_html_()


def test_classes_have_no_unit():
    history = be.fit(build(), TRAIN, validation=HELD_OUT, epochs=1)
    assert history.standardised is None
    assert "standardised" not in history.to_dict()


@pytest.mark.parametrize("every", [None, 2])
@pytest.mark.parametrize("score", ["nll", "accuracy"])
def test_the_history_knows_which_evaluation_was_best(every, score):
    options = {**OVERFITTING, "epochs": 6, "evaluate_every": every, "stop_on": score}
    history = be.fit(build(), TRAIN, validation=HELD_OUT, **options)
    values = [each[score] for each in history.evaluations]
    first = values.index(max(values) if score == "accuracy" else min(values))
    assert history.best_score == values[first]
    assert history.best_step == history.evaluations[first]["step"]
    assert history.best_epoch == -(-history.best_step // 5)  # five steps an epoch
    assert be.History.from_dict(history.to_dict()) == history
    named = "NLL" if score == "nll" else score
    shown = f"best: epoch {history.best_epoch}, held-out {named} {history.best_score:.4f}"
    assert (shown in str(history)) == (history.best_epoch < 6)
    assert f"best epoch {history.best_epoch}, held-out {named}" in history._repr_html_()


def test_the_best_epoch_survives_an_interruption(tmp_path):
    class Stop(be.Callback):
        def on_step(self, run):
            if run.step == 58:
                raise KeyboardInterrupt

    options = {**OVERFITTING, "validation": HELD_OUT, "epochs": 20}
    expected = be.fit(build(), TRAIN, **options)
    with pytest.raises(KeyboardInterrupt):
        be.fit(build(), TRAIN, **options, checkpoints=tmp_path, callbacks=[Stop()])
    resumed = be.fit(build(), TRAIN, **options, checkpoints=tmp_path, resume=True)
    assert expected.best_epoch < 12
    assert (resumed.best_epoch, resumed.best_score) == (expected.best_epoch, expected.best_score)


def test_a_history_without_a_best_epoch_is_read():
    written = be.fit(build(), TRAIN, validation=HELD_OUT, epochs=1).to_dict()
    for name in ("best_epoch", "best_step", "best_score"):
        del written[name]
    assert be.History.from_dict(written).best_epoch is None
    assert "best" not in be.fit(build(), TRAIN, epochs=1).to_dict()


class Rates(be.Callback):
    """Keeps the learning rate of the next step, and stops the process if told to."""

    def __init__(self, end=None):
        self.rates, self.end = [], end

    def on_step(self, run):
        self.rates.append(run.lr)
        if run.step == self.end:
            raise KeyboardInterrupt


COOLING = {**OVERFITTING, "patience": 4, "cooldown": 0.3, "validation": HELD_OUT}


def test_a_training_that_stops_early_cools_down_from_the_best_weights():
    rates, model = Rates(), build()
    history = be.fit(model, TRAIN, callbacks=[rates], **COOLING)
    plain = be.fit(build(), TRAIN, **{**COOLING, "cooldown": None})
    stop = plain.epochs * 5
    length = round(0.3 * stop)
    assert history.losses[: plain.epochs] == plain.losses
    assert len(rates.rates) == stop + length
    for step, rate in enumerate(rates.rates, 1):
        share = 1 if step < stop else (stop + length - step) / length
        assert rate == pytest.approx(0.03 * share)
    assert history.best_score <= plain.best_score
    assert nll(model) == pytest.approx(history.best_score, rel=1e-5)
    end = f"in a training that cooled down from step {stop} to {stop + length}"
    assert history.stopped.endswith(end)


def test_a_cooldown_is_kept_only_if_it_is_better():
    model = build()
    options = {**COOLING, "lr": 1e-9, "evaluate_every": None}
    history = be.fit(model, TRAIN, **{**options, "optimizer": "sgd", "patience": 1, "epochs": 9})
    assert nll(model) == pytest.approx(history.best_score, rel=1e-6)


def test_a_cooldown_goes_on_after_an_interruption(tmp_path):
    whole, model = build(), build()
    expected = be.fit(whole, TRAIN, **COOLING)
    end = len(expected.evaluations) * 5 - 6  # in the cooldown
    kept = {"checkpoints": tmp_path, "checkpoint_every": 2}
    with pytest.raises(KeyboardInterrupt):
        be.fit(build(), TRAIN, callbacks=[Rates(end)], **kept, **COOLING)
    with pytest.raises(be.CheckpointError, match="held-out scoring"):
        be.fit(model, TRAIN, resume=True, **kept, **{**COOLING, "cooldown": None})
    found = be.fit(model, TRAIN, resume=True, **kept, **COOLING)
    assert found.evaluations == expected.evaluations
    assert all(map(torch.equal, model.state_dict().values(), whole.state_dict().values()))


def test_by_default_a_training_that_stops_early_has_no_cooldown():
    rates = Rates()
    be.fit(build(), TRAIN, callbacks=[rates], **{**COOLING, "cooldown": None})
    assert set(rates.rates) == {0.03}
