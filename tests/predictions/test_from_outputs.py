"""What outputs mean by their loss, from a trained network to a prediction in the targets' unit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import batchensemble as be
from batchensemble.losses import (
    MSE,
    BinaryCrossEntropy,
    CrossEntropy,
    Custom,
    EnsembleLoss,
    GaussianNLL,
    Huber,
    Ordinal,
    Quantile,
    Standardised,
    from_dict,
    standardised,
    to_dict,
)
from batchensemble.metrics import score
from batchensemble.predictions import (
    MultiLabelPrediction,
    Normals,
    Points,
    Prediction,
    Quantiles,
    from_arrays,
    reading,
    to_arrays,
)


def trained(loss: object, outputs: int, y: Tensor, **options: object) -> be.BatchEnsemble:
    torch.manual_seed(0)
    model = be.BatchEnsemble(nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, outputs)), 4)
    X = torch.randn(len(y), 3)
    be.fit(model, (X, y), loss=loss, epochs=1, batch_size=16, **options)  # type: ignore[arg-type]
    return model


NUMBERS = torch.linspace(100, 300, 32)


@pytest.mark.parametrize(
    ("loss", "outputs", "kind"),
    [
        ("mse", 1, Points),
        ("huber", 1, Points),
        ("gaussian_nll", 2, Normals),
        (Quantile([0.1, 0.9]), 2, Quantiles),
    ],
    ids=["mse", "huber", "gaussian_nll", "quantile"],
)
@pytest.mark.parametrize("standard", [False, True])
def test_predict_reads_numbers_as_they_were_trained(
    loss: object, outputs: int, kind: type, standard: bool
) -> None:
    model = trained(loss, outputs, NUMBERS, standardise_targets=standard)
    X = torch.randn(5, 3)
    prediction = be.predict(model, X)
    assert isinstance(prediction, kind)
    assert prediction.mean.shape == (5,)
    out = model.eval()(X).detach().double()
    mean, deviation = (NUMBERS.mean().item(), NUMBERS.std(correction=0).item())
    scale, shift = (deviation, mean) if standard else (1.0, 0.0)
    if kind is Quantiles:
        assert isinstance(prediction, Quantiles)
        slow = out.sort(2).values * scale + shift
        np.testing.assert_allclose(prediction.values, slow, rtol=1e-4)
    else:
        slow = out[..., 0] * scale + shift
        np.testing.assert_allclose(prediction.member_means, slow, rtol=1e-4)
    if isinstance(prediction, Normals):
        raw = (nn.functional.softplus(out[..., 1]) + GaussianNLL().floor) * scale
        np.testing.assert_allclose(prediction.deviations, raw, rtol=1e-4)
    scores = be.evaluate(model, (torch.randn(6, 3), NUMBERS[:6]))
    assert scores["rmse"] > 0
    assert len(scores["member_rmses"]) == 4


def test_standardised_targets_are_learnt_and_come_back_in_their_unit() -> None:
    torch.manual_seed(0)
    X = torch.randn(512, 2)
    y = 1e5 + 3e3 * X[:, 0]
    model = be.BatchEnsemble(nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 2)), 4)
    be.fit(model, (X, y), loss="gaussian_nll", standardise_targets=True, epochs=20, lr=1e-2)
    scores = be.evaluate(model, (X, y))
    assert scores["r2"] > 0.95
    assert abs(be.predict(model, X).mean.mean() - 1e5) < 500  # type: ignore[union-attr]


def test_several_targets_have_a_scale_each() -> None:
    y = torch.stack([NUMBERS, NUMBERS / 1000], 1)
    for loss, outputs in [("mse", 2), ("gaussian_nll", 4), (Quantile([0.1, 0.5, 0.9]), 6)]:
        model = trained(loss, outputs, y, standardise_targets=True)
        prediction = be.predict(model, torch.zeros(3, 3))
        assert prediction.mean.shape == (3, 2)  # type: ignore[union-attr]
        # Untrained outputs are near 0 in standard units, so near the mean in their own.
        apart = abs(prediction.mean - y.mean(0).numpy()) / y.std(0).numpy()  # type: ignore[union-attr]
        assert apart.max() < 3


def test_labels_that_are_there_or_not() -> None:
    y = torch.randint(2, (32, 3)).float()
    model = trained("binary_cross_entropy", 3, y)
    X = torch.randn(5, 3)
    prediction = be.predict(model, X)
    assert isinstance(prediction, MultiLabelPrediction)
    np.testing.assert_allclose(
        prediction.member_probs, model.eval()(X).detach().double().sigmoid(), rtol=1e-6
    )
    y[0, 0] = torch.nan
    scores = be.evaluate(model, (torch.randn(32, 3), y))
    assert 0 <= scores["exact_match"] <= scores["accuracy"] <= 1
    one = trained("binary_cross_entropy", 1, y[:, 1])
    assert be.predict(one, X).labels.shape == (5,)  # type: ignore[union-attr]


def test_ordered_classes_are_classes() -> None:
    model = trained("ordinal", 3, torch.arange(32) % 4)
    prediction = be.predict(model, torch.randn(5, 3))
    assert isinstance(prediction, Prediction)
    assert prediction.probs.shape == (5, 4)
    np.testing.assert_allclose(prediction.probs.sum(1), 1)
    assert be.evaluate(model, (torch.randn(4, 3), torch.arange(4)))["nll"] > 0


class PerPixel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def test_classes_of_pixels_are_scored_pixel_by_pixel_without_those_ignored() -> None:
    torch.manual_seed(0)
    model = be.BatchEnsemble(PerPixel(), 4)
    X, y = torch.randn(8, 1, 4, 5), torch.randint(3, (8, 4, 5))
    y[:, 0] = 255
    be.fit(model, (X, y), ignore_index=255, epochs=1, batch_size=4)
    prediction = be.predict(model, X)
    assert isinstance(prediction, Prediction)
    assert prediction.member_probs.shape == (8, 4, 3, 4, 5)
    assert prediction.labels.shape == prediction.epistemic.shape == (8, 4, 5)
    probs = model.eval()(X).detach().double().softmax(2).mean(1)
    known = y != 255
    nll = -probs.log().gather(1, y.clamp(max=2).unsqueeze(1))[:, 0][known].mean()
    scores = be.evaluate(model, (X, y))
    assert scores["nll"] == pytest.approx(nll.item(), rel=1e-6)
    assert scores["accuracy"] == pytest.approx((probs.argmax(1) == y)[known].double().mean().item())
    with pytest.raises(ValueError, match="one for each predicted class"):
        score(prediction, y[:, 0].numpy())


def test_a_function_of_the_users_own_is_read_as_classes_or_as_told() -> None:
    def error(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs[..., 0] - targets[:, None]).square()

    model = trained(error, 1, NUMBERS)
    with pytest.raises(ValueError, match=r"at least 2 classes.*loss='mse'"):
        be.predict(model, torch.randn(5, 3))
    assert isinstance(be.predict(model, torch.randn(5, 3), loss="mse"), Points)


def test_a_loss_that_is_not_known_is_refused() -> None:
    class Other(EnsembleLoss):
        def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor: ...
        def of_ensemble(self, outputs: Tensor, targets: Tensor) -> Tensor: ...
        def read(self, targets: Tensor, dtype: torch.dtype) -> Tensor: ...
        def check(self, outputs_shape: object, targets: Tensor) -> None: ...

    with pytest.raises(TypeError, match="does not know what outputs"):
        reading(Other())


def test_outputs_that_do_not_divide_are_refused() -> None:
    model = be.BatchEnsemble(nn.Linear(3, 3), 2)
    with pytest.raises(ValueError, match=r"with 2 for each target.*\[5, 2, 3\]"):
        be.predict(model, torch.randn(5, 3), loss="gaussian_nll")


@pytest.mark.parametrize(
    "loss",
    [
        MSE(),
        Huber(delta=2.0),
        GaussianNLL(floor=0.01, beta=0.5),
        Quantile([0.2, 0.8]),
        BinaryCrossEntropy(),
        Ordinal(ignore_index=-1),
        CrossEntropy(label_smoothing=0.1, class_weight={1: 3.0}),
        Standardised(Quantile([0.2, 0.8]), [1.0], [2.0]),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_a_loss_can_be_written_down(loss: EnsembleLoss) -> None:
    import json

    again = from_dict(json.loads(json.dumps(to_dict(loss))))
    assert to_dict(again) == to_dict(loss)
    assert type(again) is type(loss)


def test_a_saved_model_knows_what_its_outputs_are(tmp_path: Path) -> None:
    model = trained("gaussian_nll", 2, NUMBERS, standardise_targets=True)
    X = torch.randn(5, 3)
    again = be.load(be.save(model, tmp_path), network=model.member(0))
    np.testing.assert_array_equal(be.predict(again, X).mean, be.predict(model, X).mean)  # type: ignore[union-attr]


def batches_of(y: Tensor) -> list[Callable[[], object]]:
    from torch.utils.data import DataLoader, TensorDataset

    X = torch.zeros(len(y), 3)
    return [lambda: (X, y), lambda: DataLoader(TensorDataset(X, y), batch_size=8, shuffle=True)]


def test_loaders_are_gone_through_once_for_the_scale() -> None:
    for data in batches_of(NUMBERS):
        model = be.BatchEnsemble(nn.Linear(3, 1), 2)
        be.fit(model, data(), loss="mse", standardise_targets=True, epochs=1, batches="independent")
        assert isinstance(model.loss, Standardised)
        assert model.loss.mean[0] == pytest.approx(200.0)
        assert model.loss.deviation[0] == pytest.approx(NUMBERS.std(correction=0).item())


def test_unknown_targets_do_not_count_and_constant_ones_keep_their_unit() -> None:
    y = torch.tensor([[1.0, 5.0], [3.0, 5.0], [torch.nan, 5.0]])
    found = standardised(MSE(), (1, 4, 2), [y])
    assert found.mean == (2.0, 5.0)
    assert found.deviation == (1.0, 1.0)
    with pytest.raises(ValueError, match="at least one known number"):
        standardised(MSE(), (1, 4, 2), [torch.full((3, 2), torch.nan)])
    with pytest.raises(ValueError, match="regression losses"):
        standardised(CrossEntropy(), (1, 4, 2), [torch.zeros(3)])


def test_the_deviation_of_large_numbers_is_not_lost() -> None:
    y = 1e9 + torch.arange(1000, dtype=torch.float64)
    found = standardised(MSE(), (1, 4, 1), [y[:500], y[500:]])
    assert found.deviation[0] == pytest.approx(y.std(correction=0).item(), rel=1e-9)


def test_a_scale_of_another_number_of_targets_is_refused() -> None:
    model = be.BatchEnsemble(nn.Linear(3, 2), 2)
    with pytest.raises(ValueError, match=r"each of the 2 targets.*got 1"):
        be.fit(
            model, (torch.zeros(4, 3), torch.zeros(4, 2)), loss=Standardised(MSE(), [0.0], [1.0])
        )


def test_a_custom_loss_keeps_no_meaning() -> None:
    model = trained(Custom(lambda outputs, targets: outputs.mean(2)), 2, NUMBERS)
    assert model.loss is None


NAMES: dict[str, tuple[type, dict[str, np.ndarray]]] = {
    "Prediction": (Prediction, {"member_probs": np.full((2, 3, 2), 0.5)}),
    "MultiLabelPrediction": (MultiLabelPrediction, {"member_probs": np.full((2, 3, 2), 0.5)}),
    "Points": (Points, {"values": np.zeros((2, 3))}),
    "Normals": (Normals, {"means": np.zeros((2, 3)), "deviations": np.ones((2, 3))}),
    "Quantiles": (Quantiles, {"values": np.zeros((2, 3, 2)), "levels": np.array([0.1, 0.9])}),
}


@pytest.mark.parametrize("name", NAMES)
def test_files_keep_the_name_of_a_prediction_whose_class_is_renamed(name: str) -> None:
    kind, parts = NAMES[name]
    stored = {f"{name}.{part}": values for part, values in parts.items()}
    kind.__name__ = "Renamed"
    try:
        found = from_arrays(stored)
        assert type(found) is kind
        assert list(to_arrays(found)) == list(stored)
    finally:
        kind.__name__ = name
