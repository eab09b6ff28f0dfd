"""Adapters: what was trained comes back bit for bit on the same base, and on no other."""

import copy
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel

import batchensemble as be
from batchensemble.ensembles.base_weights import BaseWeights
from bounds import bounded
from hostile import KEYS, TEXTS, WEIGHTS, hostile

FILES = {"adapter.json": "config.json", "adapter.safetensors": "model.safetensors"}
METHODS = {"multiplicative": {}, "lora": {"method": "lora", "rank": 2, "alpha": 4.0}}


def bert(seed=0):
    torch.manual_seed(seed)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 20}
    config = BertConfig(intermediate_size=16, max_position_embeddings=12, **sizes)
    return BertForSequenceClassification(config).eval()


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def examples():
    torch.manual_seed(0)
    X = torch.randn(90, 2)
    return X, (X[:, 0] > 0.5).long() + (X[:, 0] > -0.5).long()


def perturbed(model):
    """Change all that trains, as a training would."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def trained_bytes(model):
    return sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)


def tensors_in(folder):
    from safetensors.torch import load_file

    return load_file(folder / "adapter.safetensors")


def assert_same_state(one, other):
    first, second = one.state_dict(), other.state_dict()
    assert list(first) == list(second)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


class TestRoundTrip:
    @pytest.mark.parametrize("method", METHODS)
    def test_a_model_comes_back_bit_for_bit(self, method, tmp_path):
        network = bert()
        model = perturbed(be.adapt(network, 3, heads=["classifier"], **METHODS[method]))
        ids = torch.arange(12).view(2, 6)
        loaded = be.load_adapter(be.save_adapter(model.eval(), tmp_path), network)
        assert type(loaded) is be.BatchEnsemble
        assert_same_state(model, loaded)
        with torch.no_grad():
            assert torch.equal(model(input_ids=ids).logits, loaded(input_ids=ids).logits)
        for one, other in zip(model.parameters(), loaded.parameters(), strict=True):
            assert one.requires_grad == other.requires_grad
        assert str(model.report()) == str(loaded.report())
        assert not loaded.training

    @pytest.mark.parametrize(
        "options",
        [
            {"norms": "frozen", "biases": "frozen"},
            {"norms": "shared", "biases": "shared"},
            {"targets": "attention"},
            {"exclude": ["layers.0"]},
        ],
        ids=str,
    )
    def test_of_packed_attention_and_any_choice_of_what_trains(self, options, tmp_path):
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        network = nn.TransformerEncoder(layer, 2)
        model = perturbed(be.adapt(network, 2, **options))
        folder = be.save_adapter(model, tmp_path)
        assert_same_state(model, be.load_adapter(folder, network))
        frozen = {name for name, each in model.named_parameters() if not each.requires_grad}
        assert not frozen & {*tensors_in(folder)}

    def test_again_after_more_training(self, tmp_path):
        network = mlp()
        model = be.adapt(network, 2, heads=["3"])
        model = be.load_adapter(be.save_adapter(model, tmp_path / "first"), network)
        folder = be.save_adapter(perturbed(model), tmp_path / "second")
        assert_same_state(model, be.load_adapter(folder, network))

    def test_with_running_statistics_that_changed(self, tmp_path):
        network, X = mlp(), torch.randn(60, 2)
        model = be.adapt(network, 2, heads=["3"])
        be.fit(model, (X, torch.arange(60) % 3), epochs=1, progress=False)
        folder = be.save_adapter(model, tmp_path)
        assert "network.1.running_mean" in tensors_in(folder)
        assert_same_state(model, be.load_adapter(folder, network))

    def test_with_loss_calibrator_and_class_names(self, tmp_path):
        (X, y), network = examples(), mlp()
        model = be.adapt(network, 2, heads=["3"])
        be.fit(model, (X[:60], y[:60]), epochs=20, lr=1e-2, progress=False)
        model.class_names = ("a", "b", "c")
        model = be.calibrate(model, (X[60:], y[60:]))
        loaded = be.load_adapter(be.save_adapter(model, tmp_path), network)
        assert loaded.class_names == ("a", "b", "c")
        one, other = be.predict(model, X), be.predict(loaded, X)
        assert torch.equal(torch.as_tensor(one.probs), torch.as_tensor(other.probs))

    def test_what_trained_before_it_was_frozen_is_there(self, tmp_path):
        network = mlp()
        model = be.adapt(network, 2, heads=["3"]).train_only("shared")
        perturbed(model).train_only("fast")
        folder = be.save_adapter(model, tmp_path)
        loaded = be.load_adapter(folder, network)
        assert_same_state(model, loaded)
        assert not loaded.network[0].weight.requires_grad

    def test_of_a_selection_of_members(self, tmp_path):
        network = mlp()
        model = perturbed(be.adapt(network, 4, heads=["3"])).select([3, 1])
        assert_same_state(model, be.load_adapter(be.save_adapter(model, tmp_path), network))

    def test_with_a_branch_and_modules_one_by_one(self, tmp_path):
        torch.manual_seed(0)
        layers = [nn.Linear(2, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 4), nn.Tanh())]
        network = nn.Sequential(*layers, nn.Linear(4, 3))
        for options in ({"branch_at": "2"}, {"one_by_one": ["2"]}):
            model = perturbed(be.adapt(network, 2, heads=["3"], **options))
            folder = be.save_adapter(model, tmp_path / next(iter(options)))
            assert_same_state(model, be.load_adapter(folder, network))
            assert "network.0.weight" not in tensors_in(folder)
            assert not any(name.endswith("module.0.weight") for name in tensors_in(folder))


class TestTiedWeights:
    @pytest.fixture
    def gpt(self):
        torch.manual_seed(0)
        sizes = {"n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 12, "vocab_size": 20}
        return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))

    @pytest.mark.parametrize("trained", [False, True])
    def test_they_are_one_again(self, gpt, trained, tmp_path):
        model = be.adapt(gpt, 2, method="lora")
        if trained:
            model.train_only("shared", "fast")
        folder = be.save_adapter(perturbed(model), tmp_path)
        names = {"network.transformer.wte.weight", "network.lm_head.weight"}
        assert len(names & {*tensors_in(folder)}) == int(trained)
        loaded = be.load_adapter(folder, gpt)
        assert_same_state(model, loaded)
        assert loaded.network.lm_head.weight is loaded.network.transformer.wte.weight


class TestSize:
    def test_it_holds_what_was_trained_and_hardly_more(self, tmp_path):
        torch.manual_seed(0)
        sizes = {"hidden_size": 192, "num_hidden_layers": 2, "intermediate_size": 768}
        network = BertForSequenceClassification(
            BertConfig(vocab_size=100, num_attention_heads=2, max_position_embeddings=12, **sizes)
        )
        for method in METHODS:
            model = be.adapt(network, 4, heads=["classifier"], method=method)
            folder = be.save_adapter(model, tmp_path / method)
            size = sum(path.stat().st_size for path in folder.iterdir())
            trained = trained_bytes(model)
            content = sum(each.nbytes for each in tensors_in(folder).values())
            assert content == trained
            assert size < trained + 30_000


class TestBase:
    def test_another_head_does_not_matter_and_other_weights_do(self, tmp_path):
        model = be.adapt(bert(), 2, heads=["classifier"])
        folder = be.save_adapter(model, tmp_path)
        network = bert()
        network.classifier.reset_parameters()
        assert_same_state(model, be.load_adapter(folder, network))
        with pytest.raises(ValueError, match=r"other weights .* SHA-256 .* expected, .* found"):
            be.load_adapter(folder, bert(seed=1))

    def test_one_number_that_differs_is_noticed(self, tmp_path):
        model = be.adapt(mlp(), 2, heads=["3"])
        folder, network = be.save_adapter(model, tmp_path), mlp()
        network[0].weight.data[0, 0] += 1e-6
        with pytest.raises(ValueError, match="trained on other weights"):
            be.load_adapter(folder, network)

    def test_another_type_is_named(self, tmp_path):
        folder = be.save_adapter(be.adapt(mlp(), 2, heads=["3"]), tmp_path)
        with pytest.raises(ValueError, match="types are bfloat16, not float32"):
            be.load_adapter(folder, mlp().bfloat16())

    def test_another_architecture_is_named(self, tmp_path):
        folder = be.save_adapter(be.adapt(mlp(), 2, heads=["3"]), tmp_path)
        wider = nn.Sequential(nn.Linear(2, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 3))
        with pytest.raises(ValueError, match=r"cannot be loaded.* network\.0\.bias is \[2, 8\]"):
            be.load_adapter(folder, wider)

    def test_the_network_given_stays_as_it_is(self, tmp_path):
        folder, network = be.save_adapter(be.adapt(mlp(), 2, heads=["3"]), tmp_path), mlp()
        before = copy.deepcopy(network.state_dict())
        model = perturbed(be.load_adapter(folder, network))
        assert all(torch.equal(v, before[name]) for name, v in network.state_dict().items())
        assert model.base == BaseWeights.of(network, ["3"])

    def test_only_an_adapted_model_is_saved(self, tmp_path):
        with pytest.raises(ValueError, match=r"batchensemble\.adapt made"):
            be.save_adapter(be.BatchEnsemble(mlp(), 2), tmp_path)
        with pytest.raises(ValueError, match="convert the network before"):
            be.save_adapter(be.adapt(mlp(), 2, heads=["3"]).bfloat16(), tmp_path)
        assert not [*tmp_path.iterdir()]

    def test_there_must_be_one(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"adapter\.json"):
            be.load_adapter(tmp_path, mlp())


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3))


@pytest.fixture(scope="module")
def good(network, tmp_path_factory) -> Path:
    X, y = examples()
    model = be.adapt(network, 3, heads=["2"]).train_only("shared", "fast", "bias", "heads")
    be.fit(model, (X[:60], y[:60]), epochs=20, lr=1e-2, progress=False)
    names = {"feature_names": ["age", "dose"], "class_names": ["a", "b", "c"]}
    data = {**names, "mean": [0.0, 0.0], "scale": [1.0, 1.0], "target": "kind"}
    model = be.calibrate(model, (X[60:], y[60:]), method="vector")
    folder = be.save_adapter(model, tmp_path_factory.mktemp("good") / "adapter", data=data)
    return renamed(folder, FILES)


# What fits any network that is given, as in ``load``; and what the base has in its place.
HARMLESS = {
    "a calibrator of a model of numbers",
    "a calibrator of four classes",
    "a loss with a weight of a class that there is not",
    "a loss with more means than targets",
    "a loss with outputs that the network has not",
    "a weight missing",
    "a bias with one NaN",  # of another shape here; other weights with NaN are refused
}


@pytest.mark.skipif(os.name != "posix", reason="it takes pipes, links and limits")
@pytest.mark.usefixtures("as_users_run_it")
class TestHostileFolders:
    @pytest.mark.parametrize("name", [*TEXTS, *sorted({*KEYS, *WEIGHTS} - HARMLESS)])
    def test_one_is_refused_in_a_sentence(self, name, good, network, tmp_path):
        folder = hostile(name, good, tmp_path / "adapter")
        renamed(folder, {new: old for old, new in FILES.items()})
        with bounded(), pytest.raises((ValueError, OSError)) as refused:
            be.load_adapter(folder, network)
        message = str(refused.value)
        assert 20 < len(message) < 1_000
        assert "\n" not in message.strip()

    @pytest.mark.parametrize(
        "changes",
        [
            {"method": "deep"},
            {"network": {"function": "os:abort"}},
            {"base": None},
            {"base": {"sha256": 3, "types": []}},
            {"base": {"sha256": "0" * 64, "types": ["float32"]}},
            {"base": {"sha256": "0" * 64, "types": "float32"}},
            {"frozen": None},
        ],
        ids=str,
    )
    def test_nor_is_one_without_a_base(self, changes, good, network, tmp_path):
        folder = Path(shutil.copytree(good, tmp_path / "adapter"))
        renamed(folder, {new: old for old, new in FILES.items()})
        path = folder / "adapter.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
        with bounded(), pytest.raises(ValueError, match="adapter"):
            be.load_adapter(folder, network)


def renamed(folder, names):
    for old, new in names.items():
        if os.path.lexists(folder / old):
            (folder / old).rename(folder / new)
    return folder
