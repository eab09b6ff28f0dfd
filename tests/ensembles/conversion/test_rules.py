"""Which modules become each member's own: by name, pattern, class or function."""

import pytest
import torch
from torch import nn

import batchensemble as be
from batchensemble.ensembles.conversion.rules import Rules, select

MEMBERS = 3


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(4), nn.Linear(4, 6), nn.Linear(6, 4)

    def forward(self, x):
        return x + self.down(torch.relu(self.up(self.norm(x))))


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(4, 4)
        self.layers = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = self.stem(x)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


@pytest.fixture(autouse=True)
def _start():
    torch.manual_seed(0)


def sharing(network=None, **rules):
    """Return how each module is shared, after checking that the members compute alone the same."""
    model = be.BatchEnsemble((network or Network()).double(), MEMBERS, **rules)
    x = torch.randn(5, 4, dtype=torch.float64)
    outputs = model(x)
    for index in range(MEMBERS):
        torch.testing.assert_close(outputs[:, index], model.member(index)(x))
    return {row.name: row.sharing for row in model.report()}


def those(found, *kinds):
    return {name for name, kind in found.items() if kind in kinds}


UPS = {"layers.0.up", "layers.1.up"}
LINEAR = {"stem", "head", *UPS, "layers.0.down", "layers.1.down"}
NORMS = {"layers.0.norm", "layers.1.norm"}


@pytest.mark.parametrize(
    ("selectors", "expected"),
    [
        (["head"], {"head"}),
        ("head", {"head"}),
        ({"head", "stem"}, {"head", "stem"}),
        (["layers.0"], {"layers.0.norm", "layers.0.up", "layers.0.down"}),
        (["layers"], NORMS | LINEAR - {"stem", "head"}),
        ("layers.*.up", UPS),
        ("*.[ud]*", LINEAR - {"stem", "head"}),
        (nn.Linear, LINEAR),
        ([nn.LayerNorm, "head"], NORMS | {"head"}),
        (Block, NORMS | LINEAR - {"stem", "head"}),
        (lambda name, module: name.endswith("up"), UPS),
        (lambda name, module: getattr(module, "out_features", 0) == 2, {"head"}),
    ],
)
def test_a_selector_finds_names_patterns_classes_and_what_functions_say(selectors, expected):
    assert those(sharing(exclude=selectors), "shared") == expected


def test_a_name_that_no_module_has_is_the_end_of_names():
    assert those(sharing(exclude=["up"]), "shared") == UPS
    assert those(sharing(exclude=["0.up"]), "shared") == {"layers.0.up"}
    assert those(sharing(exclude=["head"]), "shared") == {"head"}
    model = be.BatchEnsemble(Network(), MEMBERS, include=["up"])
    assert {*model.options["include"]} == UPS  # which a file can hold
    with pytest.raises(ValueError, match="no such module"):
        sharing(exclude=["p"])


def test_selectors_may_come_one_after_the_other():
    found = sharing(exclude=(name for name in ("head", "stem")))
    assert those(found, "shared") == {"head", "stem"}


def test_included_modules_are_rank_one_and_nothing_else_is():
    found = sharing(include="layers.*.up")
    assert those(found, "rank_one") == UPS
    assert those(found, "shared") == LINEAR - UPS | NORMS


def test_independent_modules_are_each_members_own_and_the_others_stay_rank_one():
    found = sharing(independent=nn.LayerNorm)
    assert those(found, "independent") == NORMS
    assert those(found, "rank_one") == LINEAR


def test_an_empty_include_with_an_independent_head_is_a_last_layer_ensemble():
    network = Network()
    model = be.BatchEnsemble(network, MEMBERS, include=[], independent=["head"])
    assert those(sharing(network, include=[], independent=["head"]), "shared") == (
        LINEAR - {"head"} | NORMS
    )
    one, other = model.member(0), model.member(1)
    assert torch.equal(one.stem.weight, network.stem.weight.float())
    assert torch.equal(other.layers[1].up.weight, network.layers[1].up.weight.float())
    assert not torch.equal(one.head.weight, other.head.weight)
    plain = sum(parameter.numel() for parameter in network.parameters())
    assert model.parameter_counts()["parameters"] == plain + (MEMBERS - 1) * (4 * 2 + 2)


@pytest.mark.parametrize(
    "everything", ["*", lambda name, module: True, [lambda name, module: not name]]
)
def test_everything_independent_is_a_deep_ensemble(everything):
    network = Network()
    model = be.BatchEnsemble(network, MEMBERS, independent=everything)
    plain = sum(parameter.numel() for parameter in network.parameters())
    assert model.parameter_counts()["parameters"] == MEMBERS * plain
    weights = [model.member(index).layers[0].up.weight for index in range(MEMBERS)]
    assert not torch.equal(weights[0], weights[1])
    assert not any(torch.equal(weight, network.layers[0].up.weight) for weight in weights)


@pytest.mark.parametrize(
    ("rules", "zeroth", "first"),
    [
        ({"exclude": "layers", "independent": "layers.1.up"}, "shared", "independent"),
        ({"exclude": "layers.1.up", "include": "layers"}, "rank_one", "shared"),
        ({"exclude": "layers", "include": "layers.1"}, "shared", "rank_one"),
        (
            {"independent": nn.ModuleList, "exclude": Block, "include": "*.1.up"},
            "shared",
            "rank_one",
        ),
        ({"independent": "layers", "exclude": "layers.1.up"}, "independent", "shared"),
    ],
)
def test_the_nearest_rule_wins(rules, zeroth, first):
    found = sharing(**rules)
    assert found["layers.0.up"] == zeroth
    assert found["layers.1.up"] == first


class Twice(nn.Module):
    """One layer under two names."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(4, 4)
        self.decoder = self.encoder
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.decoder(torch.relu(self.encoder(x))))


@pytest.mark.parametrize("name", ["encoder", "decoder", "deco*"])
@pytest.mark.parametrize(
    ("argument", "kind"), [("exclude", "shared"), ("independent", "independent")]
)
def test_a_module_used_twice_has_both_names(name, argument, kind):
    found = sharing(Twice(), **{argument: [name]})
    assert found == {"encoder": kind, "head": "rank_one"}


def test_two_names_of_one_module_under_two_rules_are_a_conflict():
    with pytest.raises(ValueError, match="'decoder' is in both independent and exclude"):
        be.BatchEnsemble(Twice(), MEMBERS, independent=["encoder"], exclude=["decoder"])


def test_one_by_one_can_be_selected_in_all_ways_and_changes_no_numbers():
    for selectors in ("layers.*", Block, ["layers.0", "layers.1"]):
        model = be.BatchEnsemble(Network().double(), MEMBERS, one_by_one=selectors)
        x = torch.randn(5, 4, dtype=torch.float64)
        assert type(model.network.layers[1]).__name__ == "OneByOne"
        assert type(model.member(1).layers[1]) is Block
        outputs = model(x)
        for index in range(MEMBERS):
            torch.testing.assert_close(outputs[:, index], model.member(index)(x))


@pytest.mark.parametrize(
    ("rules", "sentence"),
    [
        ({"exclude": "head", "independent": "head"}, "'head' is in both independent and exclude"),
        ({"exclude": "head", "include": "*"}, "'head' is in both exclude and include; choose one"),
        (
            {"independent": nn.LayerNorm, "include": ["layers.0.norm"]},
            "'layers.0.norm' is in both independent and include",
        ),
    ],
)
def test_a_module_under_two_rules_is_refused(rules, sentence):
    with pytest.raises(ValueError, match=sentence):
        be.BatchEnsemble(Network(), MEMBERS, **rules)


@pytest.mark.parametrize("argument", ["include", "independent", "exclude", "one_by_one"])
class TestWhatFindsNothing:
    def test_a_name_is_refused_with_the_nearest_one(self, argument):
        with pytest.raises(ValueError, match=rf"^{argument} names 'haed', .* did you mean 'head'"):
            be.BatchEnsemble(Network(), MEMBERS, **{argument: ["stem", "haed"]})

    def test_a_pattern_is_refused_with_all_names(self, argument):
        with pytest.raises(ValueError, match=rf"^{argument} names 'blocks\.\*'.* layers\.1\.down"):
            be.BatchEnsemble(Network(), MEMBERS, **{argument: "blocks.*"})

    def test_a_class_is_refused_by_its_name(self, argument):
        with pytest.raises(ValueError, match=f"^{argument} gives Conv2d, which selects none"):
            be.BatchEnsemble(Network(), MEMBERS, **{argument: nn.Conv2d})

    def test_a_function_is_refused_by_its_name(self, argument):
        def wide(name, module):
            return False

        with pytest.raises(ValueError, match=f"^{argument} gives wide, which selects none"):
            be.BatchEnsemble(Network(), MEMBERS, **{argument: wide})


def test_the_network_itself_has_no_name_to_be_given():
    with pytest.raises(ValueError, match="exclude names ''"):
        be.BatchEnsemble(Network(), MEMBERS, exclude=[""])


def test_of_many_modules_the_first_forty_are_listed():
    network = nn.Sequential(*[nn.Linear(1, 1) for _ in range(50)])
    with pytest.raises(ValueError, match=r"38, 39 and 10 more$"):
        be.BatchEnsemble(network, MEMBERS, exclude="head")


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize("argument", ["include", "independent", "exclude", "one_by_one"])
class TestWrongTypes:
    def test_a_module_instead_of_its_name_is_refused(self, argument):
        network = Network()
        for selectors in (network.head, [network.head], network.layers):
            with pytest.raises(TypeError, match=f"{argument} takes the names of modules"):
                be.BatchEnsemble(network, MEMBERS, **{argument: selectors})

    def test_numbers_are_refused(self, argument):
        with pytest.raises(TypeError, match=f"{argument} must be a list of module names, got 3"):
            be.BatchEnsemble(Network(), MEMBERS, **{argument: 3})
        with pytest.raises(TypeError, match=f"{argument} takes module names, .* got 3"):
            be.BatchEnsemble(Network(), MEMBERS, **{argument: ["head", 3]})


def test_nothing_left_to_convert_is_refused():
    for rules in ({"include": []}, {"exclude": "*"}):
        with pytest.raises(
            ValueError, match="all members would be the same network: there is no layer"
        ):
            be.BatchEnsemble(Network(), MEMBERS, **rules)


def test_what_no_rule_covers_is_the_default_unless_something_is_included():
    assert Rules("rank_one").otherwise == "rank_one"
    assert Rules("rank_one", include=[]).otherwise == "shared"


def test_selecting_gives_a_module_under_all_its_names():
    found = select(Twice(), "exclude", nn.Linear)
    assert [name for name, _ in found] == ["encoder", "decoder", "head"]
    assert found[0][1] is found[1][1]
