"""``fit(members=...)`` trains these members and leaves all else bit for bit as it was."""

import copy

import pytest
import torch
from torch import nn

import batchensemble as be
from batchensemble.ensembles.member_weights import own_parameters, shared_tensors

torch.manual_seed(0)
X = torch.randn(96, 6)
Y = (X.sum(1) > 0).long()
HELD_OUT = torch.randn(32, 6), torch.randint(2, (32,))
OPTIONS = {"epochs": 2, "batch_size": 32, "lr": 0.01, "progress": False}


def perceptron():
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2)
    )


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(1, 4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        tokens = self.embed(x.unsqueeze(-1))
        return self.head(self.attention(tokens, tokens, tokens, need_weights=False)[0].mean(1))


def adapted():
    return be.adapt(perceptron(), members=3, heads=["4"], targets="all-linear")


BUILD = {
    "multiplicative": lambda: be.BatchEnsemble(perceptron(), 3),
    "own head": lambda: be.BatchEnsemble(perceptron(), 3, independent=["4"]),
    "additive": lambda: be.BatchEnsemble(perceptron(), 3, mode="additive", rank=2),
    "shared norm": lambda: be.BatchEnsemble(
        perceptron(), 3, exclude=["1"], bias="shared", run="one_by_one"
    ),
    "trunk": lambda: be.BatchEnsemble(perceptron(), 3, branch_at="2"),
    "attention": lambda: be.BatchEnsemble(Attending(), 3),
    "own attention": lambda: be.BatchEnsemble(Attending(), 3, independent=["attention"]),
    "one by one": lambda: be.BatchEnsemble(perceptron(), 3, one_by_one=["4"]),
    "deep": lambda: be.DeepEnsemble(perceptron(), 3),
    "copies": lambda: be.DeepEnsemble(perceptron(), 3, stacked=False),
    "vmap": lambda: be.DeepEnsemble(Attending(), 3, stacked=True),
    "adapted": adapted,
}


def build(name="own head"):
    torch.manual_seed(1)
    return BUILD[name]()


def weights(network):
    return {name: each.detach().clone() for name, each in network.state_dict().items()}


def outputs(model):
    with torch.no_grad():
        return [model.member(index).eval()(HELD_OUT[0]) for index in range(model.members)]


@pytest.mark.parametrize("name", BUILD)
def test_everything_else_stays_bit_for_bit(name):
    model = build(name)
    be.fit(model, (X, Y), optimizer="adamw", weight_decay=0.1, **OPTIONS)  # moments, statistics
    before, shared, then = weights(model), weights_of_shared(model), outputs(model)
    members = [copy_of(model.member(index)) for index in range(3)]
    be.fit(
        model, (X, 1 - Y), members=[1], optimizer="adamw", weight_decay=0.1, average=0.9, **OPTIONS
    )
    now = outputs(model)
    assert torch.equal(now[0], then[0])
    assert torch.equal(now[2], then[2])
    assert not torch.equal(now[1], then[1])
    for index in (0, 2):
        assert equal(members[index], model.member(index).state_dict())
    assert equal(shared, weights_of_shared(model))
    assert list(before) == list(model.state_dict())


def weights_of_shared(model):
    return {name: each.detach().clone() for name, each in shared_tensors(model.network).items()}


def copy_of(network):
    return copy.deepcopy(network.state_dict())


def equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_it_is_the_training_of_a_smaller_ensemble():
    model = build()
    alone = model.select([2, 0]).train_only("fast", "bias", "norm", "heads")
    expected = be.fit(alone, (X, Y), **OPTIONS)
    history = be.fit(model, (X, Y), members=[2, 0], **OPTIONS)
    assert history.losses == expected.losses
    assert history.plan["members"] == [2, 0]
    assert equal(model.select([2, 0]).state_dict(), alone.state_dict())
    assert model.loss == alone.loss
    assert model.trained_on == alone.trained_on
    assert all(each.requires_grad for each in model.parameters())


def test_a_shared_norm_is_trained_on_as_it_is_used():
    model = build("shared norm")
    be.fit(model, (X, Y), **OPTIONS)
    seen = []

    class Looks(be.Callback):
        def on_step(self, run):
            seen.append(run.model.network[1].training)

    be.fit(model, (X, Y), members=[0], callbacks=[Looks()], **OPTIONS)
    assert seen == [False] * len(seen)
    assert model.network[1].training


def test_a_layer_that_runs_for_all_is_shared(tmp_path):
    model = build("multiplicative")
    model.network[0].share_with_all("it sees no examples")
    before = weights(model)
    be.fit(model, (X, Y), members=[1], checkpoints=tmp_path, **OPTIONS)
    be.fit(model, (X, Y), members=[1], checkpoints=tmp_path, resume=True, **OPTIONS)
    now = model.state_dict()
    assert all(torch.equal(now[name], before[name]) for name in now if name.startswith("network.0"))
    assert not torch.equal(now["network.4.r"], before["network.4.r"])
    be.learn(model, [(X, Y)], **OPTIONS)
    first = model.state_dict()["network.0.bias"]
    assert not torch.equal(first, before["network.0.bias"])
    assert torch.equal(first, first[:1].expand_as(first))


def test_what_train_only_freezes_stays():
    model = build().train_only("heads")
    before = weights(model)
    be.fit(model, (X, Y), members=[1], weight_decay=0.1, **OPTIONS)
    changed = {name for name, each in model.state_dict().items() if not same(each, before[name])}
    statistics = {"running_mean", "running_var", "num_batches_tracked"}
    assert changed == {
        "network.4.weight",
        "network.4.bias",
        *(f"network.1.{each}" for each in statistics),
    }


def same(one, other):
    return torch.equal(one, other)


@pytest.mark.parametrize(
    "options",
    [
        {"validation": HELD_OUT, "patience": 1, "epochs": 4},
        {"validation": 0.25, "patience": 1, "refit": True, "epochs": 4},
        {"optimizer": "sgd", "clip": 0.1, "schedule": "cosine"},
        {"optimizer": lambda parameters: torch.optim.Adam(parameters, weight_decay=0.1)},
        {"batches": "split", "micro_batch": 4, "class_weight": "balanced"},
        {"precision": "bf16", "gradient_checkpointing": ["0"]},
    ],
    ids=lambda options: "-".join(options),
)
def test_options_of_fit_leave_the_others_alone(options):
    model = build()
    then = outputs(model)
    be.fit(model, (X, Y), members=[0, 2], **{**OPTIONS, **options})
    now = outputs(model)
    assert torch.equal(now[1], then[1])
    assert not torch.equal(now[0], then[0])
    assert not torch.equal(now[2], then[2])


class Killed(be.Callback):
    def on_step(self, run):
        if run.step == 4:
            raise KeyboardInterrupt


def test_it_resumes_bit_for_bit(tmp_path):
    whole, killed, resumed = build(), build(), build()
    options = {**OPTIONS, "epochs": 3, "checkpoints": tmp_path, "checkpoint_every": 2}
    be.fit(whole, (X, Y), members=[1], **{**options, "checkpoints": tmp_path / "whole"})
    with pytest.raises(KeyboardInterrupt):
        be.fit(killed, (X, Y), members=[1], callbacks=[Killed()], **options)
    be.fit(resumed, (X, Y), members=[1], resume=True, **options)
    assert equal(weights(resumed), weights(whole))
    with pytest.raises(be.CheckpointError, match=r"members trained is \[1\], and here it is \[2\]"):
        be.fit(build(), (X, Y), members=[2], resume=True, **options)
    before = weights(resumed)
    with pytest.raises(be.CheckpointError, match=r"of other data|its data is"):
        be.fit(resumed, (X + 1, Y), members=[1], resume=True, **options)
    assert equal(weights(resumed), before)
    torch.manual_seed(5)
    other = be.BatchEnsemble(perceptron(), 3, independent=["4"])
    before = weights(other)
    with pytest.raises(be.CheckpointError, match=r"share another '0\.weight'"):
        be.fit(other, (X, Y), members=[1], resume=True, **options)
    assert equal(weights(other), before)


@pytest.mark.parametrize(
    ("model", "options", "sentence"),
    [
        ("own head", {"members": [3]}, "members must be numbers from 0 to 2, got 3"),
        ("own head", {"members": []}, "at least one"),
        ("own head", {"members": [1, 1]}, "different numbers"),
        ("own head", {"members": [-1]}, "at least 0, got -1"),
        ("own head", {"members": [0], "strategy": "fsdp"}, "fsdp"),
        ("own head", {"members": [0], "loss": "mse", "standardise_targets": True}, "standardise y"),
    ],
)
def test_what_does_not_go_together_is_refused_in_a_sentence(model, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        be.fit(build(model), (X, Y), **{**OPTIONS, **options})


def test_members_are_a_list():
    for members in (1, "12"):
        with pytest.raises(TypeError, match=r"as in \[2\], got"):
            be.fit(build(), (X, Y), members=members)


def test_an_optimiser_of_other_weights_is_refused():
    model = build()
    with pytest.raises(ValueError, match="give a function that makes it"):
        be.fit(model, (X, Y), members=[0], optimizer=torch.optim.Adam(model.parameters()))


def test_members_that_own_nothing_are_refused():
    with pytest.raises(ValueError, match="own nothing that is trained: Single of 1"):
        be.fit(be.Single(perceptron()), (X, Y), members=[0])
    with pytest.raises(ValueError, match="cannot be separated"):
        be.fit(be.MIMO(nn.Linear(6, 2), 3), (X, Y), members=[0])
    with pytest.raises(ValueError, match="own nothing"):
        be.fit(build().train_only("shared"), (X, Y), members=[0])


def test_outputs_of_another_meaning_are_refused():
    model = be.BatchEnsemble(nn.Linear(6, 1), 2)
    be.fit(model, (X, X[:, :1]), loss="mse", **OPTIONS)
    with pytest.raises(ValueError, match="loss of the other members"):
        be.fit(model, (X, Y[:, None]), loss="binary_cross_entropy", members=[0], **OPTIONS)


def test_a_training_that_diverges_leaves_the_others_alone():
    model = build()
    then = outputs(model)
    with pytest.raises(FloatingPointError):
        be.fit(model, (X, Y), members=[1], optimizer="sgd", **{**OPTIONS, "lr": 1e30})
    now = outputs(model)
    assert torch.equal(now[0], then[0])
    assert torch.equal(now[2], then[2])


def test_what_members_own():
    model = be.BatchEnsemble(perceptron(), 3, independent=["4"], exclude=["1"], bias="shared")
    owned = own_parameters(model.network)
    names = {name for name, each in model.network.named_parameters() if each in owned}
    assert names == {"0.r", "0.s", "4.weight", "4.bias"}
    assert set(shared_tensors(model.network)) == {
        "0.weight",
        "0.bias",
        *(f"1.{each}" for each in ("weight", "bias", "running_mean", "running_var")),
        "1.num_batches_tracked",
    }
