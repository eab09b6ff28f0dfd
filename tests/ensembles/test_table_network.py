"""The network of tables: its parts, its ensembles, and how it is built again."""

import json

import pytest
import torch

import batchensemble as be
from batchensemble.ensembles.saving.architectures import record_of
from batchensemble.ensembles.table_embedding import table_bins
from batchensemble.ensembles.table_network import TableNetwork
from batchensemble.layers.rank_one.initialisation import feature_signs

MEMBERS = 3
SIZES = {"numbers": 3, "flags": 2, "levels": [4, 100, 2], "outputs": 2}


def network(**options) -> TableNetwork:
    torch.manual_seed(0)
    bins = table_bins(torch.randn(200, 3))
    return TableNetwork(**{**SIZES, "hidden": [16, 8], "bins": bins, **options})


def rows(count: int = 7, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    codes = [torch.randint(0, levels + 1, (count, 1)) for levels in SIZES["levels"]]
    return torch.cat([torch.randn(count, 5), *codes], 1).to(dtype)


def ensemble(made: TableNetwork, **options) -> be.BatchEnsemble:
    return be.BatchEnsemble(
        made,
        MEMBERS,
        branch_at="backbone",
        independent=["head"],
        init=feature_signs(made.sections),
        **options,
    )


METHODS = {
    "batch": ensemble,
    "batch of all": lambda made: be.BatchEnsemble(made, MEMBERS),
    "deep": lambda made: be.DeepEnsemble(made, MEMBERS),
    "deep at once": lambda made: be.DeepEnsemble(made, MEMBERS, stacked=True),
    "deep from the backbone": lambda made: be.DeepEnsemble(made, MEMBERS, branch_at="backbone"),
    "mimo": lambda made: be.MIMO(made, MEMBERS, branch_at="backbone"),
    "single": be.Single,
}


@pytest.mark.parametrize(
    ("numbers", "flags", "levels", "sections"),
    [
        (2, 1, [3, 50], (8, 8, 1, 3, 16)),
        (2, 0, [], (8, 8)),
        (0, 2, [], (1, 1)),
        (0, 0, [3], (3,)),
        (0, 0, [50, 3, 60], (3, 16, 16)),
    ],
)
def test_any_kinds_of_columns_may_be_absent(numbers, flags, levels, sections):
    made = TableNetwork(numbers, flags, levels, outputs=3)
    assert made.sections == sections
    x = torch.ones(5, numbers + flags + len(levels))
    assert made.embedding(x).shape == (5, sum(sections))
    assert made(x).shape == (5, 3)


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"numbers": 0, "flags": 0, "levels": []}, ValueError, "at least one column"),
        ({"numbers": -1}, ValueError, "numbers must be at least 0"),
        ({"levels": [0]}, ValueError, "levels must be at least 1"),
        ({"outputs": 0}, ValueError, "outputs must be at least 1"),
        ({"hidden": []}, ValueError, "hidden must have at least one width"),
        ({"dropout": 1.0}, ValueError, "dropout must be below 1"),
        ({"bins": [torch.arange(3.0)]}, ValueError, "for each of 3 numbers, got 1"),
        ({"bins": [torch.zeros(3)] * 3}, ValueError, "that increase"),
        ({"bins": [torch.tensor([0.0, torch.inf])] * 3}, ValueError, "finite"),
    ],
)
def test_sizes_out_of_range_are_refused(options, error, sentence):
    with pytest.raises(error, match=sentence):
        network(**options)


@pytest.mark.parametrize("method", METHODS)
def test_each_member_is_a_network_of_tables_with_the_ensembles_outputs(method):
    model, x = METHODS[method](network()).double().eval(), rows(dtype=torch.float64)
    outputs = model(x)
    for index in range(model.members):
        member = model.member(index)
        assert type(member) is TableNetwork
        torch.testing.assert_close(member(x), outputs[:, index])


@pytest.mark.parametrize("method", METHODS)
def test_it_is_saved_without_a_pickle_and_loaded_without_code(method, tmp_path):
    model, x = METHODS[method](network()), rows()
    loaded = be.load(be.save(model.eval(), tmp_path))
    record = json.loads((tmp_path / "config.json").read_text())["network"]
    assert record == {"table": network().to_dict()}
    assert list(loaded.state_dict()) == list(model.state_dict())
    assert torch.equal(loaded(x), model(x))


@pytest.mark.parametrize("method", METHODS)
def test_it_trains(method):
    model = METHODS[method](network())
    x, y = rows(64), torch.arange(64) % 2
    before = {name: value.clone() for name, value in model.named_parameters()}
    be.fit(model, (x, y), epochs=1, batch_size=16, progress=False)
    for name, value in model.named_parameters():
        assert not torch.equal(value, before[name]), name


def test_the_embedding_runs_once_for_all_members():
    seen = []
    for method in ("batch", "deep from the backbone", "mimo"):
        model = METHODS[method](network()).eval()
        model(rows())  # the first call looks at the network
        handle = model.network.embedding.register_forward_hook(
            lambda *run: seen.append(len(run[2]))
        )
        model(rows(5))
        handle.remove()
        assert seen.pop() == 5
        assert not seen


def test_a_changed_network_is_not_taken_for_one_of_tables():
    made = network()
    made.backbone[1] = torch.nn.Tanh()
    assert record_of(made) is None


def test_it_is_built_again_from_json():
    made = network(most_one_hot=1, d_category=4, d_embedding=2, dropout=0.0)
    again = TableNetwork.from_dict(json.loads(json.dumps(made.to_dict())))
    assert [tuple(each.shape) for each in again.state_dict().values()] == [
        tuple(each.shape) for each in made.state_dict().values()
    ]
    again.load_state_dict(made.state_dict())
    assert torch.equal(again(rows()[:0]), made(rows()[:0]))
    x = rows()
    assert torch.equal(again(x), made(x))


def test_signs_are_drawn_for_each_member_and_column_of_the_first_layer_only():
    made = network(hidden=[sum(network().sections)] * 2)  # layers of one shape
    model = ensemble(made)
    first, second = (model.network.backbone[index] for index in (0, 3))
    start = 0
    for width in made.sections:
        part = first.r[:, start : start + width]
        assert torch.equal(part, part[:, :1].expand_as(part))
        start += width
    assert set(first.r.unique().tolist()) == {-1.0, 1.0}
    for ones in (first.s, second.r, second.s):
        assert (ones == 1).all()
    assert not torch.equal(model.network.head.weight[0], model.network.head.weight[1])


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.filterwarnings("ignore")  # torch's own, while it traces
def test_it_compiles():
    model, x = ensemble(network()).eval(), rows()
    model(x)
    torch.testing.assert_close(torch.compile(model, backend="eager")(x), model(x))


def test_dropout_is_not_taken_for_a_network_that_mixes_its_rows():
    # With few hidden units, dropped ones show; warnings are errors here.
    for seed in range(8):
        torch.manual_seed(seed)
        network = TableNetwork(numbers=2, flags=0, levels=[], outputs=3, hidden=[4])
        model = be.BatchEnsemble(network, 2, branch_at="backbone", independent=["head"])
        assert model(torch.randn(30, 2)).shape == (30, 2, 3)
        assert not model.one_by_one


def test_a_network_is_built_on_meta_where_linspace_forgot_the_default_device(monkeypatch):
    linspace = torch.linspace
    # As after transformers has patched it while torch lists what makes tensors.
    monkeypatch.setattr(
        torch, "linspace", lambda *args, **named: linspace(*args, **{"device": "cpu", **named})
    )
    with torch.device("meta"):
        network = TableNetwork(3, 0, (), 2, bins=8)
    assert {each.device.type for each in network.state_dict().values()} == {"meta"}
