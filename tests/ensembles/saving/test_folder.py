"""Saved ensembles: what comes back, and what is said of folders that do not fit."""

import copy
import gc
import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from safetensors.torch import save as bytes_of
from torch import nn

import batchensemble as be
from batchensemble.ensembles.saving import read_config
from bounds import most_memory


def perceptron() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


class Convolutions(nn.Module):
    """Norm, tied weights and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, 6, 3, padding=1)
        self.norm = nn.BatchNorm1d(6)
        self.one = nn.Linear(4, 4)
        self.same = self.one
        self.head = nn.Linear(24, 3)

    def forward(self, x):
        x = self.norm(self.first(x.unsqueeze(1))).relu()
        return self.head(self.same(self.one(x)).flatten(1))


def make():
    """Return the network that a folder names."""
    return Convolutions()


def assert_same(model, loaded, x):
    assert type(loaded) is type(model)
    assert loaded.members == model.members
    state, read = model.state_dict(), loaded.state_dict()
    assert list(state) == list(read)
    for name, value in state.items():
        assert value.dtype == read[name].dtype
        assert torch.equal(value, read[name]), name
    assert loaded.training == model.training
    model, loaded = copy.deepcopy(model).eval(), copy.deepcopy(loaded).eval()
    with torch.no_grad():
        assert torch.equal(model(x), loaded(x))
    assert model.report().rows == loaded.report().rows


@pytest.mark.parametrize(
    "model",
    [
        lambda net: be.Single(net),
        lambda net: be.DeepEnsemble(net, 3),
        lambda net: be.DeepEnsemble(net, 3, stacked=False),
        lambda net: be.DeepEnsemble(net, 3, branch_at="2"),
        lambda net: be.DeepEnsemble.from_members([net, copy.deepcopy(net)]),
        lambda net: be.BatchEnsemble(net, 3),
        lambda net: be.BatchEnsemble(net, 1),
        lambda net: be.BatchEnsemble(net, 3, mode="additive", rank=2, alpha=1.0, std=0.1),
        lambda net: be.BatchEnsemble(net, 3, init="tabm", bias="shared", space="weight"),
        lambda net: be.BatchEnsemble(net, 3, independent=["0"], exclude=["2"]),
        lambda net: be.BatchEnsemble(net, 3, include=lambda name, module: name == "0"),
        lambda net: be.BatchEnsemble(net, 3, exclude=nn.ReLU, one_by_one="2"),
        lambda net: be.BatchEnsemble(net, 3, branch_at="2"),
        lambda net: be.BatchEnsemble(net, 4).select([3, 1]),
        lambda net: be.DeepEnsemble(net, 4).select([2]),
        lambda net: be.MIMO(net, 3, input_repetition=0.5, batch_repetition=2),
        lambda net: be.BatchEnsemble(net, 3).bfloat16(),
        lambda net: be.BatchEnsemble(net, 3).double(),
    ],
)
def test_a_perceptron_comes_back_bit_by_bit_by_itself(model, tmp_path):
    model = model(perceptron())
    x = torch.randn(5, 4, dtype=next(model.parameters()).dtype)
    before = torch.random.get_rng_state()
    loaded = be.load(be.save(model, tmp_path / "model"))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert_same(model, loaded, x)


@pytest.mark.parametrize(
    "model",
    [
        lambda net: be.BatchEnsemble(net, 3, norm="shared"),
        lambda net: be.DeepEnsemble(net, 3),
        lambda net: be.DeepEnsemble(net, 3, stacked=True),
        lambda net: be.BatchEnsemble(net, 3, branch_at="head"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*has no reset_parameters")
def test_any_network_comes_back_from_the_network(model, tmp_path):
    model = model(Convolutions())
    model(torch.randn(7, 4))  # moves the running statistics
    be.save(model, tmp_path)
    loaded = be.load(tmp_path, network=Convolutions())
    assert_same(model, loaded, torch.randn(5, 4))


def test_weights_under_two_names_stay_one(tmp_path):
    model = be.BatchEnsemble(Convolutions(), 2)
    loaded = be.load(be.save(model, tmp_path), network=Convolutions())
    assert loaded.network.one is loaded.network.same
    assert list(read_config(tmp_path)["tied"].values())


def test_a_network_named_by_its_function_loads_by_itself_where_that_is_trusted(tmp_path):
    model = be.BatchEnsemble(make(), 2).eval()
    be.save(model, tmp_path, network=f"{__name__}:make")
    loaded = be.load(tmp_path, trust=True)
    assert_same(model, loaded, torch.randn(5, 4))
    assert not loaded.training


def test_a_network_that_is_not_known_is_asked_for(tmp_path):
    be.save(be.BatchEnsemble(Convolutions(), 2), tmp_path)
    with pytest.raises(ValueError, match="give it as network="):
        be.load(tmp_path)


def test_another_network_says_what_differs(tmp_path):
    be.save(be.BatchEnsemble(perceptron(), 2), tmp_path)
    other = nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 3))
    with pytest.raises(ValueError, match=r"is \[8, 4\], and that of the network given is \[9, 4\]"):
        be.load(tmp_path, network=other)
    with pytest.raises(ValueError, match="another network or number of members"):
        be.load(tmp_path, network=nn.Linear(4, 3))


def edit(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_another_number_of_members_says_so(tmp_path):
    be.save(be.BatchEnsemble(perceptron(), 2), tmp_path)
    edit(tmp_path, members=3)
    with pytest.raises(ValueError, match="number of members"):
        be.load(tmp_path)


def test_another_format_names_the_version_that_wrote_it(tmp_path):
    be.save(be.BatchEnsemble(perceptron(), 2), tmp_path)
    edit(tmp_path, format=2, versions={"batchensemble": "7.1"})
    with pytest.raises(ValueError, match=r"of format 2, written by batchensemble 7\.1"):
        be.load(tmp_path)


def test_a_flipped_byte_is_noticed(tmp_path):
    be.save(be.BatchEnsemble(perceptron(), 2), tmp_path)
    content = bytearray((tmp_path / "model.safetensors").read_bytes())
    content[-3] ^= 1
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        be.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        be.load(tmp_path)


def test_an_empty_folder_holds_no_model(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no model"):
        be.load(tmp_path)


def test_saving_again_replaces_the_model_and_leaves_nothing_else(tmp_path):
    be.save(be.BatchEnsemble(perceptron(), 2), tmp_path)
    be.save(be.MIMO(perceptron(), 3), tmp_path, data={"class_names": ["a", "b", "c"]})
    assert be.load(tmp_path).members == 3
    assert read_config(tmp_path)["data"] == {"class_names": ["a", "b", "c"]}
    assert sorted(each.name for each in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_what_cannot_be_saved_is_refused_and_nothing_written(tmp_path):
    everything = be.BatchEnsemble(perceptron(), 2, independent=lambda name, module: True)
    with pytest.raises(ValueError, match="selects the network itself"):
        be.save(everything, tmp_path / "out")

    class Mine(be.BatchEnsemble):
        pass

    with pytest.raises(ValueError, match="got a Mine"):
        be.save(Mine(perceptron(), 2), tmp_path / "out")
    with pytest.raises(TypeError, match="ensemble"):
        be.save(perceptron(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


OLD = Path(__file__).parents[2] / "data" / "written_by_0_1"


def test_a_folder_of_the_version_before_loads(tmp_path):
    model = be.load(OLD / "perceptron")
    outputs = torch.tensor(json.loads((OLD / "perceptron_outputs.json").read_text()))
    with torch.no_grad():
        found = model(torch.linspace(-1, 1, 8).view(4, 2))
    torch.testing.assert_close(found, outputs)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert_same(model, be.load(be.save(model, tmp_path)), torch.randn(5, 2))


def test_a_folder_of_the_version_before_that_names_a_function_is_asked_for_trust():
    with pytest.raises(ValueError, match="names batchensemble_tests_networks:make"):
        be.load(OLD / "function")
    net = nn.Sequential(
        nn.Conv1d(1, 2, 3), nn.BatchNorm1d(2), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2)
    )
    assert be.load(OLD / "function", network=net).members == 2


def frozen_by_name(model):
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("0" not in name)
    return model


def frozen_before():
    net = perceptron()
    net[0].requires_grad_(False)
    return be.BatchEnsemble(net, 3)


@pytest.mark.parametrize(
    "model",
    [
        lambda: frozen_by_name(be.BatchEnsemble(perceptron(), 3)),
        lambda: frozen_by_name(be.DeepEnsemble(perceptron(), 2, stacked=False)),
        lambda: frozen_by_name(be.MIMO(perceptron(), 2)),
        lambda: be.BatchEnsemble(perceptron(), 3).requires_grad_(False),
        frozen_before,
    ],
)
def test_what_is_frozen_stays_frozen(model, tmp_path):
    model = model()
    loaded = be.load(be.save(model, tmp_path))
    asked = {name: each.requires_grad for name, each in model.named_parameters()}
    assert not all(asked.values())
    assert {name: each.requires_grad for name, each in loaded.named_parameters()} == asked
    mine, theirs = (
        {name: p.requires_grad for name, p in each.member(0).named_parameters()}
        for each in (frozen_before(), be.load(be.save(frozen_before(), tmp_path)))
    )
    assert mine == theirs


def test_what_is_trained_comes_back_trained_though_the_network_given_is_frozen(tmp_path):
    be.save(be.BatchEnsemble(Convolutions(), 2), tmp_path)
    loaded = be.load(tmp_path, network=Convolutions().requires_grad_(False))
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_weights_that_the_user_tied_by_hand_stay_tied(tmp_path):
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    net[2].weight = net[0].weight
    model = be.BatchEnsemble(net, 2)
    assert model.network[0].weight is model.network[2].weight
    loaded = be.load(be.save(model, tmp_path))
    assert loaded.network[0].weight is loaded.network[2].weight
    assert_same(model, loaded, torch.randn(5, 4))


def test_weights_that_only_the_network_given_ties_are_refused(tmp_path):
    def network():
        return nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))

    be.save(be.BatchEnsemble(network(), 2), tmp_path)
    tied = network()
    tied[2].weight = tied[0].weight
    with pytest.raises(ValueError, match="are two tensors, and one in the network given"):
        be.load(tmp_path, network=tied)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["first.r", "norm.running_var", "head.bias"])
def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(name, value, tmp_path):
    model = be.BatchEnsemble(Convolutions(), 2)
    be.save(model, tmp_path / "good")
    with torch.no_grad():
        model.network.state_dict(keep_vars=True)[name].view(-1)[-1] = value
    with pytest.raises(ValueError, match=rf"must be finite.*{name}.*diverged"):
        be.save(model, tmp_path / "bad")
    assert not (tmp_path / "bad").exists()
    # One that a version before wrote.
    path = tmp_path / "good" / "model.safetensors"
    tensors = load_file(path)
    tensors[f"network.{name}"].view(-1)[-1] = value
    path.write_bytes(bytes_of(tensors))
    edit(tmp_path / "good", sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(ValueError, match=rf"not finite: network.{name} holds"):
        be.load(tmp_path / "good", network=Convolutions())


def test_what_load_would_refuse_is_not_saved(tmp_path):
    model = be.BatchEnsemble(perceptron(), 2)
    for data, said in (
        ({"class_names": [0, 1, 2]}, "class_names must be different texts"),
        ({"feature_names": ["a"], "mean": [0.0], "scale": [0.0]}, "scale must be numbers above 0"),
        ({"mine": float("nan")}, "not JSON compliant"),
        ({"mine": {1: "a", "1": "b"}}, "has the key '1' twice"),
    ):
        with pytest.raises(ValueError, match=said):
            be.save(model, tmp_path / "out", data=data)
    assert not (tmp_path / "out").exists()


def test_keys_of_a_later_version_are_passed_over(tmp_path):
    model = be.BatchEnsemble(perceptron(), 2)
    be.save(model, tmp_path, data={"class_names": ["a", "b", "c"], "mine": {"any": ["thing"]}})
    edit(tmp_path, later={"a": 1})
    assert_same(model, be.load(tmp_path), torch.randn(5, 4))


def test_a_network_on_meta_is_enough_and_its_own_stays_as_it_is(tmp_path):
    model = be.BatchEnsemble(Convolutions(), 2)
    be.save(model, tmp_path)
    with torch.device("meta"):
        network = Convolutions()
    assert_same(model, be.load(tmp_path, network=network), torch.randn(5, 4))
    assert all(parameter.is_meta for parameter in network.parameters())


class Positions(nn.Module):
    """Numbers that no state dictionary holds, and recurrent layers, which hold theirs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.linspace(0, 1, 4), persistent=False)
        self.scale = torch.tensor(0.5)
        self.recurrent = nn.LSTM(4, 6, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = (x + self.table) * self.scale
        return self.head(self.recurrent(x.unsqueeze(1))[0][:, 0])


@pytest.mark.parametrize("stacked", [None, False])
def test_what_is_not_in_the_file_comes_from_the_network(stacked, tmp_path):
    for model in (
        be.BatchEnsemble(Positions(), 2),
        be.DeepEnsemble(Positions(), 2, stacked=stacked),
        be.Single(Positions()),
    ):
        be.save(model, tmp_path)
        assert_same(model, be.load(tmp_path, network=Positions()), torch.randn(5, 4))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="it reads what Linux counts")
@pytest.mark.parametrize("kind", ["single", "deep", "batch"])
def test_loading_takes_no_more_memory_than_its_file(kind, tmp_path):
    net = nn.Sequential(nn.Linear(2, 3000), nn.ReLU(), nn.Linear(3000, 3000))
    make = {"single": be.Single, "deep": be.DeepEnsemble, "batch": be.BatchEnsemble}[kind]
    members = [] if kind == "single" else [2]
    be.load(be.save(make(perceptron(), *members), tmp_path))  # which imports what it takes
    be.save(make(net, *members), tmp_path)
    gc.collect()
    size = (tmp_path / "model.safetensors").stat().st_size
    assert size > 2**25  # what malloc gives back at once, so that it counts
    with most_memory(1.2 * size):
        assert be.load(tmp_path).members == (1 if kind == "single" else 2)


def test_a_start_by_a_function_is_done_and_need_not_be_saved(tmp_path):
    model = be.BatchEnsemble(perceptron(), 3, init=lambda fast: fast.r.fill_(0.5))
    loaded = be.load(be.save(model, tmp_path))
    assert read_config(tmp_path)["options"]["init"] is None
    assert_same(model, loaded, torch.randn(5, 4))
