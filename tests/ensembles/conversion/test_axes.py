"""Where sizes do not tell which axis is the batch, the ensemble finds out, or refuses to guess."""

import copy

import pytest
import torch
from torch import nn

import batchensemble as be
from batchensemble.ensembles.conversion.axes import SEVERAL, learn_axes
from batchensemble.ensembles.conversion.tiling import Arguments, Tiling
from batchensemble.layers.base.rows import NotPerExampleError

MEMBERS, BATCH = 3, 2
ROWS = MEMBERS * BATCH
# Lengths that are no multiple of the rows, as many as the rows, the batch, the members, and more.
LENGTHS = [1, 2, 3, 5, ROWS, 2 * ROWS]
STEPS = pytest.mark.parametrize("steps", LENGTHS)


@pytest.fixture(autouse=True)
def _float64():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def converted(network, **options):
    return be.BatchEnsemble(network, MEMBERS, init="normal", std=0.3, **options)


def assert_members_match(model, *args, axis=0):
    outputs = model(*args)
    for index in range(model.members):
        expected = model.member(index)(*args)
        torch.testing.assert_close(outputs[:, index], expected.movedim(axis, 0))


def learned(model):
    return {
        name: module.learned_axis
        for name, module in model.network.named_modules()
        if hasattr(module, "learned_axis")
    }


class Positions(nn.Module):
    """Looks position numbers up that have no axis of the batch, or one of length 1."""

    def __init__(self, layer, leading):
        super().__init__()
        self.words, self.positions = nn.Embedding(9, 4), layer
        self.leading = leading

    def forward(self, numbers):
        steps = numbers.shape[1]
        if isinstance(self.positions, nn.Linear) or hasattr(self.positions, "in_features"):
            where = torch.linspace(0, 1, steps).unsqueeze(-1)
        else:
            where = torch.arange(steps)
        where = where.view(*[1] * self.leading, *where.shape)
        return self.words(numbers) + self.positions(where)


LAYERS = {"embedding": lambda: nn.Embedding(50, 4), "linear": lambda: nn.Linear(1, 4)}


@STEPS
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
class TestPositions:
    def test_without_an_axis_of_the_batch_are_refused_by_the_layers_name(self, layer, steps):
        model = converted(Positions(layer(), leading=0), run="together")
        numbers = torch.randint(9, (BATCH, max(steps, 2)))
        for _ in range(2):
            with pytest.raises(NotPerExampleError, match="'positions' is each member's own, but"):
                model(numbers)

    def test_with_an_axis_of_length_1_are_seen_by_every_member(self, layer, steps):
        model = converted(Positions(layer(), leading=1))
        for length in (steps, *LENGTHS):
            assert_members_match(model, torch.randint(9, (BATCH, length)))

    def test_are_shared_where_the_first_call_may_look(self, layer, steps):
        model = converted(Positions(layer(), leading=0))
        for length in (steps, *LENGTHS):
            assert_members_match(model, torch.randint(9, (BATCH, length)))
        assert model.report()[1].sharing == "shared"

    def test_are_no_matter_where_all_members_share_the_layer(self, layer, steps):
        model = converted(Positions(layer(), leading=0), exclude=["positions"])
        assert_members_match(model, torch.randint(9, (BATCH, steps)))


def test_the_refusal_says_what_to_do():
    model = converted(Positions(nn.Embedding(50, 4), leading=0), run="together")
    with pytest.raises(NotPerExampleError) as error:
        model(torch.zeros(BATCH, ROWS, dtype=torch.long))
    text = str(error.value)
    assert "shape [6] has no axis of 6 rows (3 members)" in text
    assert "exclude=" in text
    assert "an axis of length 1" in text
    assert "numbers [2, 6]" in text


class Transposed(nn.Module):
    """Takes the batch first and works with the sequence first."""

    def __init__(self):
        super().__init__()
        self.up, self.norm, self.down = nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 2)

    def forward(self, x):
        hidden = self.norm(torch.tanh(self.up(x.transpose(0, 1))))
        return self.down(hidden).transpose(0, 1)


@STEPS
def test_layers_between_two_transpositions_find_their_rows(steps):
    model = converted(Transposed())
    for length in (steps, *LENGTHS):
        assert_members_match(model, torch.randn(BATCH, length, 4))


@STEPS
def test_layers_between_two_transpositions_find_their_rows_where_the_sequence_is_first(steps):
    model = converted(Transposed(), batch_axis=1)
    for length in (steps, *LENGTHS):
        assert_members_match(model, torch.randn(length, BATCH, 4), axis=1)


@STEPS
def test_one_row_for_all_is_on_the_axis_of_the_batch_where_the_sequence_is_first(steps):
    class First(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.positions = nn.Embedding(9, 4), nn.Embedding(50, 4)

        def forward(self, numbers):
            return self.words(numbers) + self.positions(torch.arange(len(numbers)).unsqueeze(1))

    model = converted(First(), batch_axis=1)
    for length in (steps, *LENGTHS):
        numbers = torch.randint(9, (length, BATCH))
        model.verify(numbers)
        assert_members_match(model, numbers, axis=1)


def test_what_was_learned_is_copied_with_the_ensemble():
    model = converted(Transposed())
    model(torch.randn(BATCH, ROWS, 4))
    assert learned(model) == {"up": 1, "norm": 1, "down": 1}
    for other in (copy.deepcopy(model), model.select([0, 2])):
        assert learned(other) == learned(model)
        assert_members_match(other, torch.randn(BATCH, ROWS, 4))
        assert_members_match(other, torch.randn(5, 10, 4))


def test_nothing_is_learned_where_sizes_tell():
    model = converted(Transposed())
    model(torch.randn(BATCH, 5, 4))
    assert set(learned(model).values()) == {None}


class Both(Transposed):
    """Uses one layer on both axes."""

    def forward(self, x):
        one = self.down(self.norm(self.up(x.transpose(0, 1)))).transpose(0, 1)
        return one + self.down(self.norm(self.up(x)))


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_a_layer_that_is_called_on_two_axes_goes_by_size(steps):
    model = converted(Both())
    x = torch.randn(BATCH, steps, 4)
    model.learn_axes(*call(model, x))
    assert set(learned(model).values()) == {SEVERAL}
    assert_members_match(model, x)


class Depends(Transposed):
    """Goes another way for batches of another size."""

    def forward(self, x):
        hidden = torch.tanh(self.up(x))
        return self.down(hidden if len(x) % 2 else self.norm(hidden))


class Reads(Transposed):
    """Reads a weight itself, which a twin does not have in that shape."""

    def forward(self, x):
        return self.down(self.up(x) * self.norm.weight.view(6))


def call(model, *args):
    arguments = Arguments.of(model.plain_network(), args, {})
    return Tiling.of(arguments, model.members, model.batch_axis, False, ()), arguments


@pytest.mark.parametrize("network", [Depends, Reads])
def test_of_a_network_that_cannot_be_followed_nothing_is_learned_but_its_outputs(network):
    model = converted(network())
    axes = model.learn_axes(*call(model, torch.randn(BATCH, 5, 4)))
    assert set(learned(model).values()) == {SEVERAL}
    assert axes == {(): 0}


def test_a_network_whose_way_depends_on_the_size_goes_by_size():
    model = converted(Depends())
    model.learn_axes(*call(model, torch.randn(BATCH, 5, 4)))
    assert_members_match(model, torch.randn(BATCH, 5, 4))


def test_outputs_are_learned_by_their_path():
    class Many(Transposed):
        def forward(self, x):
            y = super().forward(x)
            return {"y": y, "turned": [y.mT.mT.transpose(0, 1)], "flat": y.flatten(0, 1),
                    "loss": y.mean(), "size": 3}  # fmt: skip

    model = converted(Many())
    axes = model.learn_axes(*call(model, torch.randn(BATCH, 5, 4)))
    assert axes == {("y",): 0, ("turned", 0): 1, ("flat",): -2, ("loss",): -1}


@pytest.mark.parametrize("training", [True, False])
def test_learning_leaves_modes_statistics_and_random_numbers_as_they_are(training):
    class Noisy(Transposed):
        def __init__(self):
            super().__init__()
            self.extra = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5))

        def forward(self, x):
            return super().forward(self.extra(x.mT).mT + torch.rand(()))

    model = converted(Noisy()).train(training)
    model.network.extra[0].eval()
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    model.learn_axes(*call(model, torch.randn(BATCH, 5, 4, generator=torch.Generator())))
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


def test_a_vector_that_is_per_example_is_found_to_be():
    class Codes(nn.Module):
        def __init__(self):
            super().__init__()
            self.codes, self.head = nn.Embedding(9, 4), nn.Linear(4, 2)

        def forward(self, codes):
            return self.head(self.codes(codes))

    model = converted(Codes())
    assert_members_match(model, torch.tensor([3, 1, 4, 1, 5]))
    assert learned(model)["codes"] == 0


def test_learning_needs_only_one_member_and_the_network():
    model = converted(Transposed())
    tiling, arguments = call(model, torch.randn(BATCH, ROWS, 4))
    assert learn_axes(model.network, model.member(2), tiling, arguments) == {(): 0}
