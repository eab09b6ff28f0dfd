"""Saved ensembles: what comes back, and what is said of folders that do not fit."""

import copy
import json

import pytest
import torch
from torch import nn

import batchensemble as be
from batchensemble.saving import read_config


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


def test_a_network_named_by_its_function_loads_by_itself(tmp_path):
    model = be.BatchEnsemble(make(), 2).eval()
    be.save(model, tmp_path, network=f"{__name__}:make")
    loaded = be.load(tmp_path)
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
