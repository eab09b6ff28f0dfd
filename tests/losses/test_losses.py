"""Losses of every member on every example are those computed by hand."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import batchensemble as be
from batchensemble.losses import as_loss, cross_entropy, ensemble_nll, make_loss

LOG_ODDS = torch.tensor([[[math.log(3.0), 0.0], [0.0, 0.0]], [[0.0, math.log(4.0)], [9.0, 9.0]]])
"""Two examples, two members; probabilities 3/4 1/4, 1/2 1/2; 1/5 4/5, 1/2 1/2."""


def test_cross_entropy_is_minus_the_log_of_the_true_class_probability():
    losses = cross_entropy(LOG_ODDS, torch.tensor([0, 1]))
    expected = -torch.log(torch.tensor([[3 / 4, 1 / 2], [4 / 5, 1 / 2]]))
    torch.testing.assert_close(losses, expected)


def test_each_member_may_have_its_own_target():
    losses = cross_entropy(LOG_ODDS, torch.tensor([[0, 1], [0, 1]]))
    expected = -torch.log(torch.tensor([[3 / 4, 1 / 2], [1 / 5, 1 / 2]]))
    torch.testing.assert_close(losses, expected)


@pytest.mark.parametrize("own", [False, True])
def test_members_losses_are_those_of_torch_one_by_one(own):
    outputs = torch.randn(6, 3, 4)
    targets = torch.randint(4, (6, 3) if own else (6,))
    losses = cross_entropy(outputs, targets)
    for member in range(3):
        mine = targets[:, member] if own else targets
        expected = F.cross_entropy(outputs[:, member], mine, reduction="none")
        torch.testing.assert_close(losses[:, member], expected)


def test_ensemble_nll_is_of_the_mean_probability_not_of_the_mean_logit():
    nll = ensemble_nll(LOG_ODDS, torch.tensor([0, 0]))
    torch.testing.assert_close(nll, -torch.log(torch.tensor([5 / 8, (1 / 5 + 1 / 2) / 2])))


def test_ensemble_nll_stays_finite_where_probabilities_underflow():
    outputs = torch.tensor([[[0.0, 1000.0], [0.0, 1000.0]]])
    assert ensemble_nll(outputs, torch.tensor([0])).item() == 1000.0


def test_the_loss_on_mean_logits_is_that_of_the_members_mean_output():
    outputs, targets = torch.randn(6, 3, 4), torch.randint(4, (6,))
    losses = make_loss("cross_entropy", "mean_logits")(outputs, targets)
    assert losses.shape == (6, 1)
    expected = F.cross_entropy(outputs.mean(1), targets, reduction="none")
    torch.testing.assert_close(losses[:, 0], expected)


def test_a_function_of_ones_own_is_taken_as_it_is():
    def squared(outputs, targets):
        return (outputs - targets[:, None, None]).pow(2).mean(-1)

    assert make_loss(squared) is squared
    outputs, targets = torch.randn(6, 3, 1), torch.randn(6)
    losses = make_loss(squared, "mean_logits")(outputs, targets)
    torch.testing.assert_close(losses[:, 0], (outputs.mean(1)[:, 0] - targets).pow(2))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("cross_entropie",), "loss must be one of cross_entropy.* did you mean 'cross_entropy'"),
        (("rmse",), "loss must be one of cross_entropy, .*; did you mean 'mse'"),
    ],
)
def test_an_unknown_loss_is_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_loss(*arguments)


B, M, NAN = 7, 3, float("nan")


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def classes(number, *entry):
    return torch.randint(number, (B, *entry))


def some_missing(targets, missing=NAN):
    """Mask a third of the entries, and all of the first example where it has several."""
    mask = torch.rand(targets.shape) < 0.3
    if targets.dim() > 1:
        mask[0] = True
    return torch.where(mask, missing, targets)


def gaussian(outputs, targets):
    mean, raw = outputs.chunk(2, 1)
    return F.gaussian_nll_loss(
        mean, targets.view_as(mean), (F.softplus(raw) + 1e-3) ** 2, full=True, reduction="none"
    )


def pinball(outputs, targets):
    losses = []
    for level, quantile in zip((0.1, 0.5, 0.9), outputs.chunk(3, 1), strict=True):
        over = targets.view_as(quantile) - quantile
        losses.append(torch.where(over > 0, level * over, (level - 1) * over))
    return sum(losses) / 3


def corn(outputs, targets):
    """Say of each class in turn whether it is beyond, as long as it was."""
    losses = []
    for logits, target in zip(outputs, targets, strict=True):
        loss = -F.logsigmoid(logits[:target]).sum()
        losses.append(loss if target == len(logits) else loss - F.logsigmoid(-logits[target]))
    return torch.stack(losses)


def bce(outputs, targets):
    return F.binary_cross_entropy_with_logits(outputs, targets.view_as(outputs), reduction="none")


def alone(outputs, targets):
    return F.cross_entropy(outputs, targets, reduction="none")


torch.manual_seed(0)
WEIGHT = torch.tensor([0.5, 2.0, 0.0, 1.0], dtype=torch.float64)
CASES = {
    # loss, its value of one member, outputs, targets
    "cross_entropy": ("cross_entropy", alone, normal(B, M, 4), classes(4)),
    "tokens": ("cross_entropy", alone, normal(B, M, 4, 5), classes(4, 5)),
    "pixels": ("cross_entropy", alone, normal(B, M, 4, 2, 3), classes(4, 2, 3)),
    "mse": ("mse", lambda o, t: (o - t) ** 2, normal(B, M, 2), normal(B, 2)),
    "mse of one": ("mse", lambda o, t: (o[:, 0] - t) ** 2, normal(B, M, 1), normal(B)),
    "mse without an axis": ("mse", lambda o, t: (o - t) ** 2, normal(B, M), normal(B)),
    "mse of a column": ("mse", lambda o, t: (o - t) ** 2, normal(B, M, 1), normal(B, 1)),
    "mse of images": ("mse", lambda o, t: (o - t) ** 2, normal(B, M, 2, 3, 4), normal(B, 2, 3, 4)),
    "huber": (
        be.losses.Huber(delta=0.3),
        lambda o, t: F.huber_loss(o, t, delta=0.3, reduction="none"),
        normal(B, M, 2),
        normal(B, 2),
    ),
    "gaussian_nll": ("gaussian_nll", gaussian, normal(B, M, 2), normal(B)),
    "gaussian_nll of images": ("gaussian_nll", gaussian, normal(B, M, 4, 3), normal(B, 2, 3)),
    "quantile": ("quantile", pinball, normal(B, M, 3), normal(B)),
    "quantile of two": ("quantile", pinball, normal(B, M, 6), normal(B, 2)),
    "binary_cross_entropy": ("binary_cross_entropy", bce, normal(B, M, 5), classes(2, 5).double()),
    "binary of one": ("binary_cross_entropy", bce, normal(B, M, 1), classes(2).double()),
    "ordinal": ("ordinal", corn, normal(B, M, 3), classes(4)),
}


@pytest.fixture(params=CASES)
def case(request):
    loss, member, outputs, targets = CASES[request.param]
    return as_loss(loss), member, outputs, targets


def mean_by_hand(losses, targets):
    """Return the mean of each example's known entries."""
    if losses.dim() == 1:
        return losses
    return losses.flatten(1).mean(1)


def test_each_members_loss_is_torchs_of_its_outputs(case):
    loss, member, outputs, targets = case
    losses = loss(outputs, targets)
    assert losses.shape == (B, M)
    for index in range(M):
        expected = mean_by_hand(member(outputs[:, index], targets), targets)
        torch.testing.assert_close(losses[:, index], expected, rtol=1e-10, atol=1e-10)


def test_each_member_may_have_targets_of_its_own(case):
    loss, _, outputs, targets = case
    own = torch.stack([targets, targets.flip(0), targets.roll(1, 0)], 1)
    losses = loss(outputs, own, per_member=True)
    for index in range(M):
        expected = loss(outputs, own[:, index])[:, index]
        torch.testing.assert_close(losses[:, index], expected, rtol=1e-12, atol=1e-12)


def test_gradients_are_those_of_a_member_alone(case):
    loss, member, outputs, targets = case
    outputs = outputs.clone().requires_grad_()
    [found] = torch.autograd.grad(loss(outputs, targets).mean(0).sum(), outputs)
    for index in range(M):
        mine = outputs[:, index].detach().clone().requires_grad_()
        [expected] = torch.autograd.grad(member(mine, targets).mean(), mine)
        torch.testing.assert_close(found[:, index], expected, rtol=1e-10, atol=1e-10)


def test_gradients_are_those_of_finite_differences(case):
    loss, _, outputs, targets = case
    few = outputs[:2].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda o: loss(o, targets[:2]), few)


def test_one_member_together_is_that_member_alone(case):
    loss, _, outputs, targets = case
    one = outputs[:, :1]
    torch.testing.assert_close(loss.of_ensemble(one, targets), loss(one, targets)[:, 0])


def test_one_example_and_none_are_taken(case):
    loss, _, outputs, targets = case
    for rows in (1, 0):
        assert loss(outputs[:rows], targets[:rows]).shape == (rows, M)
        assert loss.of_ensemble(outputs[:rows], targets[:rows]).shape == (rows,)


def test_half_precision_is_computed_in_float32(case):
    loss, _, outputs, targets = case
    half = outputs.bfloat16()
    found, expected = loss(half, targets), loss(half.double(), targets)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)
    assert loss.of_ensemble(half, targets).dtype == torch.float32


def test_targets_that_fit_are_let_through_and_others_get_a_sentence(case):
    loss, _, outputs, targets = case
    loss.check(outputs.shape, targets)
    with pytest.raises(ValueError, match=r"y must have the shape \[examples"):
        loss.check(outputs.shape, targets.unsqueeze(-1).repeat(*[1] * targets.dim(), 9))


def test_a_loss_can_be_copied_compared_and_pickled(case):
    loss = case[0]
    assert copy.deepcopy(loss) == loss == pickle.loads(pickle.dumps(loss))


@pytest.mark.parametrize(
    "name", ["mse", "huber", "binary_cross_entropy", "gaussian_nll", "quantile"]
)
def test_unknown_numbers_do_not_matter(name):
    loss = as_loss(name)
    per_target = getattr(loss, "outputs_a_target", 1)
    outputs = normal(B, M, per_target * 2).requires_grad_()
    targets = classes(2, 2).double()
    targets[0], targets[1, 1] = NAN, NAN
    losses = loss(outputs, targets)
    parted = outputs.unflatten(2, (per_target, 2))
    first_alone = loss(parted[..., 0], targets[:, :1])
    assert losses[0].tolist() == [0.0] * M
    torch.testing.assert_close(losses[1], first_alone[1])
    torch.testing.assert_close(loss(parted[..., 1], targets[:, 1:])[1], torch.zeros(M).double())
    [gradient] = torch.autograd.grad(losses.sum(), outputs)
    gradient = gradient.unflatten(2, (per_target, 2))
    assert gradient.isfinite().all()
    assert (gradient[0] == 0).all()
    assert (gradient[1, ..., 1] == 0).all()
    assert loss.of_ensemble(outputs, targets)[0] == 0
    assert loss.weights(targets).tolist() == [0.0, 1.0] + [2.0] * (B - 2)


@pytest.mark.parametrize("entry", [(), (5,), (2, 3)])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("ignored", [None, -100, 3])
def test_the_weighted_mean_of_a_batch_is_torchs(entry, smoothing, ignored):
    weight = WEIGHT + 0.1
    outputs, targets = normal(B, M, 4, *entry), classes(4, *entry)
    options = {"label_smoothing": smoothing}
    loss = as_loss("cross_entropy", class_weight=weight, ignore_index=ignored, **options)
    if ignored is not None:
        targets = some_missing(targets, ignored)
        options["ignore_index"] = ignored
    shares = loss.weights(targets)[:, None]
    losses = (loss(outputs, targets) * shares).sum(0) / shares.sum(0)
    for index in range(M):
        expected = F.cross_entropy(outputs[:, index], targets, weight=weight, **options)
        torch.testing.assert_close(losses[index], expected, rtol=1e-10, atol=1e-10)


def test_what_is_ignored_does_not_matter_to_the_ensemble():
    loss = as_loss("cross_entropy", ignore_index=-1)
    outputs, targets = normal(1, M, 4, 5), torch.tensor([[0, -1, 2, 3, -1]])
    kept = [0, 2, 3]
    expected = loss.of_ensemble(outputs[..., kept], targets[:, kept])
    torch.testing.assert_close(loss.of_ensemble(outputs, targets), expected)
    assert loss.of_ensemble(outputs, targets * 0 - 1).tolist() == [0.0]
    assert loss(outputs, targets * 0 - 1).tolist() == [[0.0] * M]


def test_the_ensemble_is_scored_by_its_mean_probability():
    outputs, targets = normal(B, M, 4, 5), classes(4, 5)
    nll = F.nll_loss(outputs.softmax(2).mean(1).log(), targets, reduction="none").mean(1)
    torch.testing.assert_close(as_loss("cross_entropy").of_ensemble(outputs, targets), nll)
    labels = classes(2, 4).double()
    probability = normal(B, M, 4).sigmoid()
    logits, mean = probability.logit(), probability.mean(1)
    nll = F.binary_cross_entropy(mean, labels, reduction="none").mean(1)
    torch.testing.assert_close(as_loss("binary_cross_entropy").of_ensemble(logits, labels), nll)


def test_the_ensemble_is_scored_by_its_mixture():
    outputs, targets = normal(B, M, 2), normal(B)
    mean, scale = outputs[..., 0], F.softplus(outputs[..., 1]) + 1e-3
    density = torch.distributions.Normal(mean, scale).log_prob(targets[:, None]).exp().mean(1)
    found = as_loss("gaussian_nll").of_ensemble(outputs, targets)
    torch.testing.assert_close(found, -density.log())


@pytest.mark.parametrize("name", ["mse", "huber", "quantile"])
def test_the_ensemble_is_scored_by_its_mean_prediction(name):
    loss, outputs, targets = as_loss(name), normal(B, M, 3), normal(B, 3)
    targets = targets[:, 0] if name == "quantile" else targets
    expected = loss(outputs.mean(1, keepdim=True), targets)[:, 0]
    torch.testing.assert_close(loss.of_ensemble(outputs, targets), expected)


def test_ordinal_probabilities_are_a_distribution():
    log_probs = be.losses.Ordinal().log_probs(normal(B, M, 3))
    torch.testing.assert_close(log_probs.exp().sum(2), torch.ones(B, M).double())
    sure = be.losses.Ordinal()(torch.full((1, 1, 3), 1000.0), torch.tensor([0]))
    assert sure.item() == 1000.0


def test_gaussian_nll_stays_finite_for_any_raw_scale():
    outputs = torch.tensor([[[0.0, -1e4], [0.0, 1e4]]], requires_grad=True)
    losses = be.losses.GaussianNLL()(outputs, torch.tensor([1.0]))
    losses.sum().backward()
    assert losses.isfinite().all()
    assert outputs.grad.isfinite().all()


def test_beta_weighs_a_target_by_its_variance():
    outputs, targets = normal(B, M, 2), normal(B)
    losses = be.losses.GaussianNLL(beta=0.5)(outputs, targets)
    scale = F.softplus(outputs[..., 1]) + 1e-3
    torch.testing.assert_close(losses, be.losses.GaussianNLL()(outputs, targets) * scale)
    assert torch.equal(
        be.losses.GaussianNLL(beta=0.5).of_ensemble(outputs, targets),
        be.losses.GaussianNLL().of_ensemble(outputs, targets),
    )


@pytest.mark.parametrize(
    "given", [[1, 2.0], np.array([1.0, 2.0]), torch.tensor([1.0, 2.0]), {1: 2}]
)
def test_class_weights_are_taken_in_any_form(given):
    loss = as_loss("cross_entropy", class_weight=given)
    assert loss.weights(torch.tensor([0, 1, 1])).tolist() == [1.0, 2.0, 2.0]


def test_balanced_weights_are_scikit_learns():
    from sklearn.utils.class_weight import compute_class_weight

    targets = torch.tensor([0, 0, 0, 2, 2, 5])
    loss = as_loss("cross_entropy", class_weight="balanced").balanced(targets)
    expected = compute_class_weight("balanced", classes=np.array([0, 2, 5]), y=targets.numpy())
    assert list(loss.class_weight.values()) == pytest.approx(expected)


CE, BCE = ("cross_entropy", (4, 3, 5)), ("binary_cross_entropy", (4, 3, 2))


@pytest.mark.parametrize(
    ("of", "options", "targets", "sentence"),
    [
        (
            CE,
            {},
            torch.tensor([0, 1, 2, 5]),
            "from 0 to 4, since .* 5 outputs, got 5; .* 6 outputs",
        ),
        (CE, {}, torch.tensor([0, 1, 2, -1]), "class numbers from 0 on, got -1"),
        (("ordinal", (4, 3, 4)), {}, torch.tensor([5] * 4), "from 0 to 4, .* got 5; .* 5 outputs"),
        (("cross_entropy", (4, 3)), {}, torch.zeros(4).long(), r"has the shape \[4, 3\]"),
        (("cross_entropy", (4, 3, 1)), {}, torch.zeros(4).long(), "at least 2, the network has 1"),
        (CE, {"class_weight": [1.0]}, torch.zeros(4).long(), "for each of the 5 classes, got 1"),
        (CE, {"class_weight": {7: 1}}, torch.zeros(4).long(), "from 0 to 4, got one of class 7"),
        (CE, {"class_weight": "balanced"}, torch.zeros(4).long(), "needs arrays, tables or files"),
        (BCE, {}, torch.full((4, 2), 3.0), "y must hold 0 or 1 for each label .* got 3"),
        (("mse", (4, 3, 1)), {}, torch.tensor([0, 1, NAN, 2]), "got nan in row 3; drop"),
        (("mse", (4, 3, 1)), {}, torch.tensor([0, 1, 2, math.inf]), "infinite target in row 4"),
        (("gaussian_nll", (4, 3, 3)), {}, torch.zeros(4), "two outputs for each target, first"),
        (("quantile", (4, 3, 2)), {}, torch.zeros(4), "takes 3 outputs for each target, one for"),
    ],
)
def test_targets_that_do_not_fit_get_a_sentence(of, options, targets, sentence):
    name, shape = of
    with pytest.raises(ValueError, match=sentence):
        as_loss(name, **options).check(shape, targets)


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda: be.losses.Huber(delta=0), ValueError, "delta must be a finite number above 0"),
        (lambda: be.losses.GaussianNLL(floor=-1), ValueError, "floor must be"),
        (lambda: be.losses.GaussianNLL(beta=2), ValueError, "beta must be a number from 0 to 1"),
        (lambda: be.losses.Quantile([0.5, 1.0]), ValueError, "levels must be numbers above 0 and"),
        (lambda: be.losses.Quantile([]), ValueError, "levels must be"),
        (lambda: be.losses.CrossEntropy(label_smoothing=2), ValueError, "label_smoothing must be"),
        (lambda: be.losses.CrossEntropy(ignore_index=0.5), TypeError, "ignore_index must be"),
        (lambda: be.losses.CrossEntropy(class_weight=[0, 0]), ValueError, "a number above 0"),
        (lambda: be.losses.CrossEntropy(class_weight=[1, NAN]), ValueError, "finite numbers"),
        (lambda: be.losses.CrossEntropy(class_weight=3), TypeError, "class_weight must be a list"),
        (lambda: be.losses.CrossEntropy(class_weight="even"), TypeError, "got 'even'"),
        (
            lambda: as_loss("mse", class_weight=[1, 2]),
            ValueError,
            "class_weight= is an option of loss='cross",
        ),
        (
            lambda: as_loss("ordinal", label_smoothing=0.1),
            ValueError,
            "label_smoothing= is an option",
        ),
        (lambda: as_loss(alone, ignore_index=0), ValueError, "ignore_index= is an option"),
    ],
)
@pytest.mark.usefixtures("as_users_run_it")
def test_settings_that_make_no_sense_are_refused(make, error, sentence):
    with pytest.raises(error, match=sentence):
        make()
