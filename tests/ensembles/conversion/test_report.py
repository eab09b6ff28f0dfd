"""What an ensemble reports of itself, and what it warns of in the user's own modules."""

import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import batchensemble as be
from batchensemble.ensembles.conversion.report import ModuleReport, shape_of
from batchensemble.ensembles.networks import find_network
from zoo import ZOO

MEMBERS = 3


class Network(nn.Module):
    """A layer of each kind that the report tells apart."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 6))
        self.words = nn.Embedding(9, 6)
        self.norm = nn.LayerNorm(6)
        self.body = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), Scaled(8, 8))
        self.batch_norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 2)

    def forward(self, numbers):
        hidden = self.norm(self.words(numbers) + self.token).mean(1)
        return self.head(self.batch_norm(self.body(hidden)))


class Scaled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def report_of(network, **options):
    return be.BatchEnsemble(network, MEMBERS, **options).report()


def test_each_module_that_holds_weights_has_a_row():
    report = report_of(Network(), exclude=["head"], independent=["body.0"])
    assert list(report) == [
        ModuleReport("", "Network", "1x6", "shared", 6, 0, "held by the module itself: token"),
        ModuleReport("words", "Embedding", "9 → 6", "rank_one", 9 * 6, 9 + 6),
        ModuleReport("norm", "LayerNorm", "6", "independent", 0, 2 * 6),
        ModuleReport("body.0", "Linear", "6 → 8", "independent", 0, 6 * 8 + 8),
        ModuleReport(
            "body.2", "Scaled", "8 → 8", "rank_one", 64, 3 * 8,
            "its own forward, members one by one",
        ),
        ModuleReport("batch_norm", "BatchNorm1d", "8", "independent", 0, 2 * 8),
        ModuleReport("head", "Linear", "8 → 2", "shared", 8 * 2 + 2, 0, "by a rule"),
    ]  # fmt: skip
    assert len(report) == 7
    assert report[1].name == "words"


def test_its_numbers_add_up():
    network = Network()
    plain = sum(parameter.numel() for parameter in network.parameters())
    model = be.BatchEnsemble(network, MEMBERS)
    report = model.report()
    total = sum(parameter.numel() for parameter in model.parameters())
    assert report.members == MEMBERS
    assert report.parameters == total
    assert sum(row.shared + MEMBERS * row.per_member for row in report) == total
    assert report.parameters_of_one == plain
    assert report.overhead == total / plain - 1
    assert model.parameter_counts()["parameter_ratio"] == total / plain


def test_the_overhead_is_that_of_the_fast_weights():
    report = report_of(nn.Linear(10, 10, bias=False))
    assert report.overhead == pytest.approx(MEMBERS * 20 / 100)
    deep = be.DeepEnsemble(Network().body, MEMBERS).report()
    assert deep.overhead == MEMBERS - 1
    assert be.Single(Network()).report().overhead == 0
    assert be.Single(nn.ReLU()).report().overhead == 0


def test_shared_norms_say_why():
    found = {row.name: row for row in report_of(Network(), norm="shared", bias="shared")}
    assert (found["norm"].sharing, found["norm"].reason) == ("shared", "norm='shared' or a rule")
    statistics = found["batch_norm"]
    assert (statistics.sharing, statistics.shared, statistics.per_member) == ("shared", 16, 0)
    assert statistics.reason == "norm='shared'; the statistics are each member's own"
    assert found["head"].per_member == 8 + 2


@pytest.mark.parametrize("rules", [{}, {"exclude": ["1"]}, {"independent": ["1"]}])
def test_a_weight_that_two_layers_share_is_counted_with_the_first(rules):
    network = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    network[1].weight = network[0].weight
    model = be.BatchEnsemble(network, MEMBERS, **rules)
    report = model.report()
    assert report.parameters_of_one == 16
    assert sum(row.shared + MEMBERS * row.per_member for row in report) == report.parameters
    assert report.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert report[0].shared == 16
    assert report[1].shared == 0


def test_a_module_that_runs_one_by_one_is_reported_under_its_own_name():
    names = [row.name for row in report_of(Network(), one_by_one=["body"])]
    assert names == [row.name for row in report_of(Network())]


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (nn.Linear(3, 4), "3 → 4"),
        (nn.Conv2d(4, 6, (3, 5)), "4 → 6, 3x5"),
        (nn.Conv1d(4, 6, 3, groups=2), "4 → 6, 3, 2 groups"),
        (nn.Embedding(9, 4), "9 → 4"),
        (nn.EmbeddingBag(9, 4), "9 → 4"),
        (nn.GRU(3, 4), "3 → 4"),
        (nn.LSTM(3, 4, num_layers=2, bidirectional=True), "3 → 4, 2 layers, both ways"),
        (nn.MultiheadAttention(8, 2), "8, 2 heads"),
        (nn.LayerNorm((2, 3)), "2x3"),
        (nn.Bilinear(2, 3, 4), "4x2x3, 4"),
    ],
)
def test_shapes_are_told_in_a_few_characters(layer, text):
    assert shape_of(layer) == text
    assert report_of(layer)[0].detail == text
    assert be.DeepEnsemble(layer, MEMBERS).report()[0].detail == text


def test_a_report_prints_as_a_table_with_its_warnings():
    class Reads(Network):
        def forward(self, numbers):
            return F.linear(super().forward(numbers), self.head.weight.mT)

    text = str(report_of(Reads(), exclude=["body.0"]))
    total = report_of(Reads(), exclude=["body.0"]).parameters
    assert f"Conversion: 3 members, {total:,} parameters" in text
    for words in ("words", "Embedding", "9 → 6", "rank_one", "by a rule", "held by the module"):
        assert words in text
    assert text.splitlines()[-1].startswith("Warning: the network (Reads), line 2 of its forward:")
    assert not any(line.endswith(" ") for line in text.splitlines())


class Tied(nn.Module):
    """A language model that uses its table again."""

    def __init__(self):
        super().__init__()
        self.words, self.layers = nn.Embedding(9, 4), nn.ModuleList([nn.Linear(4, 4)])

    def forward(self, numbers):
        return F.linear(self.words(numbers), self.words.weight)


class Product(Tied):
    def forward(self, numbers):
        hidden = self.words(numbers)
        return hidden @ self.layers[0].weight.t()


class Asks(Tied):
    def forward(self, numbers):
        hidden = self.words(numbers).to(self.words.weight.dtype)
        if self.layers[0].bias is not None and isinstance(self.layers[0].weight, torch.Tensor):
            hidden = hidden.to(device=self.words.weight.device)
        return self.layers[0](hidden).view(-1, self.words.weight.shape[1])


class Owns(Tied):
    """Uses a weight that it holds itself."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, numbers):
        return F.linear(self.words(numbers), torch.diag(self.weight))


def warnings_of(network, **options):
    return report_of(network, **options).warnings


class TestFunctionalUse:
    def test_of_another_modules_weight_is_warned_of(self):
        (warning,) = warnings_of(Tied())
        assert warning == (
            "the network (Tied), line 2 of its forward: reads self.words.weight itself, which is "
            "not the weight of any member; exclude that module, or call it"
        )

    def test_is_found_in_products_and_behind_an_index(self):
        (warning,) = warnings_of(nn.Sequential(Product()))
        assert warning.startswith("0 (Product), line 3 of its forward: reads self.layers[0].weight")

    @pytest.mark.parametrize("cure", [{"exclude": "words"}, {"independent": Tied}])
    def test_is_no_matter_once_the_module_is_shared_or_the_user_of_it_each_members_own(self, cure):
        assert warnings_of(nn.Sequential(Tied(), nn.Linear(9, 2)), **{
            key: "0.words" if value == "words" else value for key, value in cure.items()
        }) == []  # fmt: skip

    def test_is_warned_of_once_for_many_modules_of_a_class(self):
        assert len(warnings_of(nn.ModuleList([Tied(), Tied()]))) == 1

    def test_is_told_from_questions_and_from_weights_of_its_own(self):
        assert warnings_of(Asks()) == []
        assert warnings_of(Owns()) == []


class Views(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 6)

    def forward(self, x):
        a = self.head(x).view(32, -1)
        b = self.head(x).reshape((32, 2, 3))
        return a, b


class Harmless(Views):
    def forward(self, x):
        y = self.head(x).view(len(x), 2, 3).reshape(-1, 6)
        return y.view(1, -1).expand(1, y.numel()).reshape(x.shape[0], 6).flatten(1)


def test_a_reshape_to_a_fixed_number_of_rows_is_warned_of():
    one, other = warnings_of(Views())
    assert "line 2 of its forward: self.head(x).view(32, -1) fixes the first axis" in one
    assert "line 3 of its forward: self.head(x).reshape((32, 2, 3)) fixes the first axis" in other
    assert warnings_of(Harmless()) == []


def test_a_module_without_source_is_no_matter():
    made: dict[str, type] = {}
    exec(
        "class Made(base):\n    def forward(self, x): return self.head(x).view(32, -1)",
        {"base": Views},
        made,
    )
    assert warnings_of(made["Made"]()) == []


@pytest.mark.parametrize("specimen", ZOO.values(), ids=ZOO)
def test_no_network_of_the_zoo_is_warned_of(specimen):
    assert warnings_of(specimen.make(), **specimen.options) == []


MODULE = """
from torch import nn

net = nn.Linear(4, 2)

class Box:
    @staticmethod
    def make():
        return nn.Linear(4, 3)

def build():
    return nn.Linear(4, 4)

def wide(width):
    return nn.Linear(4, width)

def nothing():
    return None
"""


@pytest.fixture
def networks(tmp_path, monkeypatch):
    """Write a module of networks beside the user; return its name."""
    (tmp_path / "my_networks.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_networks", raising=False)
    yield "my_networks"
    sys.modules.pop("my_networks", None)


class TestFindNetwork:
    @pytest.mark.parametrize(("name", "features"), [("net", 2), ("Box.make", 3), ("build", 4)])
    def test_takes_modules_and_functions_beside_the_user(self, networks, name, features):
        assert find_network(f"{networks}:{name}").out_features == features

    @pytest.mark.parametrize("path", ["", "net", "torch.nn.Linear", ":net", "torch:"])
    def test_needs_a_module_and_a_name(self, path):
        with pytest.raises(ValueError, match=r"give a network as package\.module:function, got"):
            find_network(path)

    @pytest.mark.parametrize("name", ["biuld", "Box.biuld"])
    def test_an_unknown_name_is_refused(self, networks, name):
        sentence = "did you mean 'build'" if name == "biuld" else "check the name"
        with pytest.raises(ValueError, match=f"my_networks has no '{name}'; {sentence}"):
            find_network(f"{networks}:{name}")

    def test_a_module_that_is_not_there_is_an_import_error(self):
        with pytest.raises(ImportError, match="no_such_package"):
            find_network("no_such_package.networks:make")

    def test_a_module_that_fails_is_an_import_error_with_its_words(self, networks, tmp_path):
        (tmp_path / "my_broken_networks.py").write_text("raise RuntimeError('no operator')")
        with pytest.raises(ImportError, match="my_broken_networks fails with RuntimeError: no op"):
            find_network("my_broken_networks:make")

    def test_a_function_with_arguments_is_refused(self, networks):
        with pytest.raises(
            TypeError, match=r"my_networks:wide must work without arguments: .*'wid"
        ):
            find_network(f"{networks}:wide")

    @pytest.mark.parametrize(("name", "kind"), [("nothing", "NoneType"), ("Box", "Box")])
    def test_what_is_no_network_is_refused(self, networks, name, kind):
        with pytest.raises(TypeError, match=rf"must return a torch\.nn\.Module, got {kind}$"):
            find_network(f"{networks}:{name}")


def test_a_batch_norm_that_members_share_is_warned_of_behind_what_is_their_own():
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    warnings = be.BatchEnsemble(network, 3, exclude=["1"]).report().warnings
    assert [warning.partition(":")[0] for warning in warnings] == ["1 (BatchNorm1d) is shared"]
    assert be.BatchEnsemble(network, 3).report().warnings == []
    assert be.BatchEnsemble(network, 3, include=["2"]).report().warnings == []
