"""A pretrained network becomes an ensemble: its weights are frozen, its members train a little."""

import copy
import warnings

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel

import batchensemble as be
from batchensemble.ensembles.conversion.parameter_groups import parts_of

MEMBERS = 3
LAYERS = [f"bert.encoder.layer.{layer}." for layer in (0, 1)]
QKV = {f"{each}attention.self.{name}" for each in LAYERS for name in ("query", "key", "value")}
OUT = {f"{each}attention.output.dense" for each in LAYERS}
MLP = {f"{each}{name}.dense" for each in LAYERS for name in ("intermediate", "output")}
POOLER = {"bert.pooler.dense"}


@pytest.fixture(scope="module")
def bert():
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BertConfig(vocab_size=20, intermediate_size=16, max_position_embeddings=12, **sizes)
    return BertForSequenceClassification(config).eval()


@pytest.fixture
def gpt():
    torch.manual_seed(0)
    sizes = {"n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 12, "vocab_size": 20}
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)).eval()


def of_kind(model, sharing):
    """Return the names of the rows of a report, norms aside."""
    rows = model.report()
    return {each.name for each in rows if each.sharing == sharing and "Norm" not in each.kind}


def trained(model):
    return [name for name, each in model.named_parameters() if each.requires_grad]


class TestTargets:
    @pytest.mark.parametrize(
        ("targets", "expected"),
        [
            ("linear", QKV | OUT | MLP | POOLER),
            ("all-linear", QKV | OUT | MLP | POOLER),
            ("attention", QKV | OUT),
            (["query", "key", "value"], QKV),
            ("self.query", {name for name in QKV if name.endswith("query")}),
            ("*.attention.output.dense", OUT),
            (
                ["intermediate", "bert.encoder.layer.0.output"],
                {*MLP} - {f"{LAYERS[1]}output.dense"},
            ),
            (nn.Linear, QKV | OUT | MLP | POOLER),
            (lambda name, module: name.endswith("pooler.dense"), POOLER),
        ],
    )
    def test_they_are_kinds_names_ends_of_names_patterns_classes_and_functions(
        self, bert, targets, expected
    ):
        model = be.adapt(bert, MEMBERS, targets=targets, heads=["classifier"])
        assert of_kind(model, "rank_one") == expected
        assert of_kind(model, "independent") == {"classifier"}

    def test_some_are_left_out(self, bert):
        found = be.adapt(bert, MEMBERS, heads="classifier", exclude=["pooler", "layer.0"])
        assert of_kind(found, "rank_one") == {
            name for name in QKV | OUT | MLP if name.startswith(LAYERS[1])
        }
        norms = {each.name for each in found.report() if each.kind == "LayerNorm"}
        shared = {each.name for each in found.report() if each.sharing == "shared"}
        assert {name for name in norms if name.startswith(LAYERS[0])} <= shared

    def test_embeddings_are_none_unless_named(self, bert):
        model = be.adapt(bert, MEMBERS, targets=["bert"], heads=["classifier"])
        assert "bert.embeddings.word_embeddings" not in of_kind(model, "rank_one")
        model = be.adapt(bert, MEMBERS, targets=["word_embeddings"], heads=["classifier"])
        assert of_kind(model, "rank_one") == {"bert.embeddings.word_embeddings"}

    def test_a_tied_output_layer_is_none(self, gpt):
        model = be.adapt(gpt, MEMBERS)
        assert "lm_head" not in of_kind(model, "rank_one")
        assert model.network.lm_head.weight is model.network.transformer.wte.weight
        assert len(of_kind(model, "rank_one")) == 8

    def test_attention_of_torch_is_one(self):
        net = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        assert of_kind(be.adapt(net, MEMBERS, targets="attention"), "rank_one") == {"self_attn"}
        expected = {"self_attn", "linear1", "linear2"}
        assert of_kind(be.adapt(net, MEMBERS), "rank_one") == expected

    def test_a_network_that_is_one_layer_is_a_target(self):
        expected = {"network.bias", "network.r", "network.s"}
        assert {*trained(be.adapt(nn.Linear(2, 3), MEMBERS))} == expected

    def test_one_that_matches_nothing_is_refused_with_what_there_is(self, bert):
        with pytest.raises(ValueError, match=r"'qurey'.*did you mean 'query'.* bert\.encoder"):
            be.adapt(bert, MEMBERS, targets=["qurey"])
        convolutions = nn.Sequential(nn.Conv1d(2, 3, 3), nn.Flatten(), nn.Linear(3, 2))
        with pytest.raises(ValueError, match=r"1 Conv1d \(0\), 1 Linear \(2\); name some"):
            be.adapt(convolutions, MEMBERS, heads=["2"])
        with pytest.raises(ValueError, match=r"heads names 'scores'"):
            be.adapt(bert, MEMBERS, heads=["scores"])


class TestArguments:
    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"method": "ia3"}, "multiplicative.*lora"),
            ({"rank": 4}, "rank needs method='lora'"),
            ({"alpha": 4.0}, "alpha needs method='lora'"),
            ({"method": "lora", "std": 0.2}, "std needs method='multiplicative'"),
            ({"norms": "own"}, "norms.*member"),
            ({"biases": "none"}, "biases.*member"),
            ({"members": 0}, "members"),
        ],
    )
    def test_a_wrong_one_is_refused(self, bert, given, message):
        with pytest.raises(ValueError, match=message):
            be.adapt(bert, **{"members": MEMBERS, "heads": ["classifier"], **given})

    def test_the_network_given_stays_as_it_is(self, bert):
        before = copy.deepcopy(bert.state_dict())
        model = be.adapt(bert, MEMBERS, heads=["classifier"])
        assert all(each.requires_grad for each in bert.parameters())
        assert all(torch.equal(value, before[name]) for name, value in bert.state_dict().items())
        own = {*map(id, bert.parameters())}
        assert not own & {*map(id, model.parameters())}

    @pytest.mark.parametrize("norms", ["member", "shared", "frozen"])
    @pytest.mark.parametrize("biases", ["member", "shared", "frozen"])
    def test_norms_and_biases_are_each_members_own_or_shared_or_frozen(self, bert, norms, biases):
        options = {"norms": norms, "biases": biases}
        model = be.adapt(bert, MEMBERS, heads=["classifier"], **options)
        norm = model.network.bert.encoder.layer[0].output.LayerNorm.weight
        bias = model.network.bert.encoder.layer[0].output.dense.bias
        assert list(norm.shape) == ([MEMBERS, 8] if norms == "member" else [8])
        assert list(bias.shape) == ([MEMBERS, 8] if biases == "member" else [8])
        assert (norm.requires_grad, bias.requires_grad) == (norms != "frozen", biases != "frozen")

    def test_running_statistics_are_each_members_own(self):
        net = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3))
        model = be.adapt(net, MEMBERS, heads=["3"], norms="frozen")
        assert model.network[1].running_mean.shape == (MEMBERS, 4)
        assert not model.network[1].weight.requires_grad
        assert not model.report().warnings

    def test_the_ensemble_may_begin_at_a_module(self):
        layers = [nn.Linear(2, 4), nn.LayerNorm(4), nn.ReLU(), nn.Linear(4, 4), nn.LayerNorm(4)]
        model = be.adapt(nn.Sequential(*layers, nn.Linear(4, 3)), 2, heads=["5"], branch_at="3")
        assert of_kind(model, "rank_one") == {"3"}
        assert model(torch.randn(5, 2)).shape == (5, 2, 3)


class TestStart:
    ids = torch.arange(12).view(2, 6)

    def test_lora_starts_at_the_network(self, gpt):
        model = be.adapt(gpt, MEMBERS, method="lora", rank=2).eval()
        with torch.no_grad():
            expected = gpt(input_ids=self.ids).logits
            for found in model(input_ids=self.ids).logits.unbind(1):
                torch.testing.assert_close(found, expected)

    def test_the_other_starts_near_it_and_members_differ(self, gpt):
        model = be.adapt(gpt, MEMBERS).eval()
        with torch.no_grad():
            expected = gpt(input_ids=self.ids).logits
            found = model(input_ids=self.ids).logits
        far = (found - expected[:, None]).norm() / found.norm()
        assert 0 < far < 0.5
        assert not torch.equal(found[:, 0], found[:, 1])
        factors = model.network.transformer.h[0].mlp.c_fc.r
        assert 0.02 < factors.std() < 0.2

    def test_scale_of_lora(self, gpt):
        model = be.adapt(gpt, MEMBERS, method="lora", rank=4, alpha=8)
        assert model.network.transformer.h[0].mlp.c_fc.options.scale == 2.0
        assert model.network.transformer.h[0].mlp.c_fc.r.shape == (MEMBERS, 4, 8)
        assert be.adapt(gpt, 2, method="lora").options["rank"] == 8

    def test_heads_are_drawn_anew_for_each_member(self, bert):
        model = be.adapt(bert, MEMBERS, heads=["classifier"])
        weights = [model.member(index).classifier.weight for index in range(MEMBERS)]
        pairs = [(weights[0], weights[1]), (weights[1], weights[2])]
        assert not any(torch.equal(one, other) for one, other in pairs)
        assert not any(torch.equal(each, bert.classifier.weight) for each in weights)

    def test_members_are_networks_of_the_users_class(self, bert):
        model = be.adapt(bert, MEMBERS, heads=["classifier"]).eval()
        ids = self.ids
        with torch.no_grad():
            found = model(input_ids=ids).logits
            for index in range(MEMBERS):
                member = model.member(index)
                assert type(member) is BertForSequenceClassification
                torch.testing.assert_close(member(input_ids=ids).logits, found[:, index])


@pytest.mark.parametrize("method", ["multiplicative", "lora"])
def test_training_changes_what_trains_and_nothing_else(method):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(2, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 3)
    )
    model = be.adapt(net, MEMBERS, method=method, heads=["4"])
    before = {name: each.detach().clone() for name, each in model.named_parameters()}
    X = torch.randn(64, 2)
    be.fit(model, (X, (X[:, 0] > 0).long()), epochs=2, lr=1e-2, progress=False)
    changed = {
        name for name, each in model.named_parameters() if not torch.equal(each, before[name])
    }
    assert changed == {*trained(model)}
    for layer in ("0", "3"):
        weight = model.network.get_submodule(layer).weight
        assert torch.equal(weight, net.get_submodule(layer).weight)


class TestHuggingFace:
    """The outputs of its networks have logits, which is what trains and predicts."""

    @pytest.fixture(scope="class")
    @staticmethod
    def data():
        torch.manual_seed(0)
        ids = torch.randint(1, 20, (60, 6))
        mask = torch.ones_like(ids)
        mask[:, 4:] = torch.rand(60, 1) > 0.5
        return {"input_ids": ids, "attention_mask": mask}, (ids[:, 0] > 9).long()

    def test_inputs_by_name_train_predict_score_and_calibrate(self, bert, data):
        model = be.adapt(bert, MEMBERS, heads=["classifier"])
        held = {name: each[40:] for name, each in data[0].items()}, data[1][40:]
        before = be.evaluate(model, data)["nll"]
        be.fit(model, data, validation=data, epochs=4, batch_size=16, lr=1e-2, progress=False)
        assert be.evaluate(model, data)["nll"] < before
        inputs, _ = data
        prediction = be.predict(model, inputs)
        with torch.no_grad():
            probs = model(**inputs).logits.softmax(-1)
        found = torch.as_tensor(prediction.member_probs).float()
        torch.testing.assert_close(found, probs)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it has seen them in training
            calibrated = be.calibrate(model, held)
        with torch.no_grad():
            one = calibrated(**inputs).logits[:, 1]
            other = calibrated.member(1)(**inputs).logits
        torch.testing.assert_close(one, other)

    def test_of_a_deep_ensemble_too(self, bert, data):
        model = be.DeepEnsemble(bert, 2, reset=["classifier"])
        be.fit(model, data, epochs=1, batch_size=16, progress=False)
        assert be.predict(model, data[0]).member_probs.shape == (60, 2, 2)

    def test_a_lone_tensor_is_refused_in_a_sentence(self, bert, data):
        model = be.adapt(bert, 2, heads=["classifier"])
        with pytest.raises(ValueError, match=r"inputs given by name.*SequenceClassifierOutput"):
            be.fit(model, (data[0]["input_ids"], data[1]), epochs=1, progress=False)

    def test_the_networks_own_loss_is_the_mean_over_members(self, bert, data):
        model = be.adapt(bert, MEMBERS, heads=["classifier"]).eval()
        inputs, labels = data
        output = model(**inputs, labels=labels)
        each = [nn.functional.cross_entropy(logits, labels) for logits in output.logits.unbind(1)]
        torch.testing.assert_close(output.loss, torch.stack(each).mean())


class TestReport:
    def test_it_says_how_much_trains(self, bert):
        model = be.adapt(bert, MEMBERS, heads=["classifier"])
        count = sum(each.numel() for each in model.parameters() if each.requires_grad)
        total = sum(each.numel() for each in model.parameters())
        line = f"trainable: {count:,} of {total:,} ({100 * count / total:.2f} %)"
        assert line in str(model.report()).splitlines()
        assert model.report().trainable == count

    def test_it_does_not_where_all_does(self):
        assert "trainable" not in str(be.BatchEnsemble(nn.Linear(2, 3), 2).report())


class TestTrainOnly:
    def test_parts_are_chosen_by_name(self, bert):
        model = be.adapt(bert, MEMBERS, heads=["classifier"])
        parts = parts_of(model.network)
        assert {*parts.values()} == {"shared", "fast", "bias", "norm", "heads"}
        for part in ("fast", "norm", "heads", "shared", "bias"):
            assert model.train_only(part) is model
            found = {each for each in model.parameters() if each.requires_grad}
            assert found == {each for each in parts if parts[each] == part}
        assert {name.rpartition(".")[0] for name in trained(model.train_only("heads"))} == {
            "network.classifier"
        }

    def test_members_come_out_as_they_train(self, bert):
        model = be.adapt(bert, MEMBERS, heads=["classifier"])
        member = model.member(0)
        assert member.classifier.weight.requires_grad
        assert not member.bert.pooler.dense.weight.requires_grad
        assert member.bert.pooler.dense.bias.requires_grad

    def test_an_unknown_or_missing_part_is_refused_and_changes_nothing(self):
        model = be.BatchEnsemble(nn.Linear(2, 3), 2)
        with pytest.raises(ValueError, match=r"train_only.*fast"):
            model.train_only("slow")
        with pytest.raises(ValueError, match="shared, fast, bias, got heads, norm"):
            model.train_only("heads", "norm")
        assert all(each.requires_grad for each in model.parameters())

    def test_copies_of_a_network_are_heads(self):
        net = nn.Sequential(nn.Linear(2, 4), nn.LayerNorm(4), nn.Linear(4, 3))
        for options in ({}, {"stacked": False}, {"stacked": True}):
            model = be.DeepEnsemble(net, 2, **options)
            assert "heads" in {*parts_of(model.network).values()}
