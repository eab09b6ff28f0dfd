"""A training goes on with the order that the user's own loader would have had, or refuses."""

import random
import shutil
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

import batchensemble as be
from batchensemble.training.checkpoints.store import CheckpointError, Checkpoints, read_checkpoint

# Types are checked in other tests; here that would take longer than what is tested.
pytestmark = pytest.mark.usefixtures("as_users_run_it")

torch.manual_seed(0)
X, Y = torch.randn(24, 4), torch.randint(2, (24,))
PAIRS = TensorDataset(X, Y)
COUNT, BATCH = 24, 5  # 5 batches an epoch


def seeded():
    return torch.Generator().manual_seed(7)


class Power(be.Callback):
    """Goes off after so many steps."""

    def __init__(self, step):
        self.step = step

    def on_step(self, run):
        if run.step == self.step:
            raise KeyError("power")


class OfNumPy(Sampler):
    """Draws from a generator of NumPy that it holds."""

    def __init__(self):
        self.rng = np.random.default_rng(3)

    def __len__(self):
        return COUNT

    def __iter__(self):
        return iter(self.rng.permutation(COUNT).tolist())


class OfPython(OfNumPy):
    """Shuffles its own list in place, so that each order comes from the one before."""

    def __init__(self):
        self.rng, self.order = random.Random(3), list(range(COUNT))

    def __iter__(self):
        self.rng.shuffle(self.order)
        return iter(self.order)


class Counting(OfNumPy):
    """Counts its epochs, and draws from that."""

    def __init__(self):
        self.epoch = 0

    def __iter__(self):
        self.epoch += 1
        return iter(np.random.default_rng(self.epoch).permutation(COUNT).tolist())


class Late(OfNumPy):
    """Has no generator until it needs one."""

    def __init__(self):
        self.generator = None

    def __iter__(self):
        if self.generator is None:
            self.generator = seeded()
        return iter(torch.randperm(COUNT, generator=self.generator).tolist())


class Global(OfNumPy):
    """Draws from the global generators of NumPy and Python."""

    def __init__(self):
        pass

    def __iter__(self):
        random.random()
        return iter(np.random.permutation(COUNT).tolist())  # noqa: NPY002


class OfModule(OfNumPy):
    """Draws from a generator of its module."""

    def __init__(self):
        pass

    def __iter__(self):
        return iter(MODULE.permutation(COUNT).tolist())


MODULE = np.random.default_rng(5)


class WithState(OfNumPy):
    """Hides its generator, and has the two methods for it."""

    def __init__(self):
        held = [11]
        self.draw = self.state_dict = self.load_state_dict = None

        def draw():
            held[0] = held[0] * 48271 % (2**31 - 1)
            return np.random.default_rng(held[0]).permutation(COUNT).tolist()

        self.draw = draw
        self.state_dict = lambda: {"held": held[0]}
        self.load_state_dict = lambda state: held.__setitem__(0, state["held"])

    def __iter__(self):
        return iter(self.draw())


class Noisy(Dataset):
    """Draws noise for each example from what it is given."""

    def __init__(self, draw):
        self.draw = draw

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        return X[index] + float(self.draw()), Y[index]


class Stream(IterableDataset):
    """Yields the examples in an order that is shuffled anew in place each time."""

    def __init__(self):
        self.rng, self.files = random.Random(1), [f"{index}.txt" for index in range(COUNT)]

    def __iter__(self):
        self.rng.shuffle(self.files)
        for name in self.files:
            index = int(name.removesuffix(".txt"))
            yield X[index], Y[index]


class OwnEpoch(be.Callback):
    """Tells a distributed sampler its epoch, as its documentation asks for."""

    def __init__(self, sampler):
        self.sampler = sampler

    def on_epoch(self, run):
        self.sampler.set_epoch(run.epoch)


def distributed():
    sampler = DistributedSampler(PAIRS, 1, 0, seed=2)
    return DataLoader(PAIRS, BATCH, sampler=sampler), [OwnEpoch(sampler)]


def sampled(sampler):
    return DataLoader(PAIRS, BATCH, sampler=sampler)


def batched(sampler):
    return DataLoader(PAIRS, batch_sampler=BatchSampler(sampler, BATCH, False))


def gaussian():
    rng = np.random.default_rng(1)
    return lambda: rng.normal()


def collating():
    rng = random.Random(9)

    def collate(pairs):
        X, y = zip(*pairs, strict=True)
        return torch.stack(X) * rng.uniform(0.5, 2.0), torch.stack(y)

    return DataLoader(PAIRS, BATCH, collate_fn=collate)


WEIGHTS = torch.arange(1.0, COUNT + 1)
LOADERS = {
    "generator": lambda: DataLoader(PAIRS, BATCH, shuffle=True, generator=seeded()),
    "random": lambda: sampled(RandomSampler(PAIRS, generator=seeded())),
    "replacement": lambda: sampled(RandomSampler(PAIRS, True, COUNT, seeded())),
    "weighted": lambda: sampled(WeightedRandomSampler(WEIGHTS, COUNT)),
    "weighted, generator": lambda: sampled(
        WeightedRandomSampler(WEIGHTS, COUNT, generator=seeded())
    ),
    "subset": lambda: sampled(SubsetRandomSampler(range(COUNT), seeded())),
    "batches": lambda: batched(SubsetRandomSampler(range(COUNT), seeded())),
    "batches of mine": lambda: batched(OfPython()),
    "NumPy": lambda: sampled(OfNumPy()),
    "Python": lambda: sampled(OfPython()),
    "counting": lambda: sampled(Counting()),
    "late": lambda: sampled(Late()),
    "global": lambda: sampled(Global()),
    "module": lambda: sampled(OfModule()),
    "state": lambda: sampled(WithState()),
    "noise": lambda: DataLoader(Noisy(gaussian()), BATCH, shuffle=True),
    "noise of NumPy": lambda: DataLoader(Noisy(np.random.normal), BATCH),
    "noise of Python": lambda: DataLoader(Noisy(random.random), BATCH),
    "collate": collating,
    "stream": lambda: DataLoader(Stream(), BATCH),
    "workers": lambda: DataLoader(
        Noisy(lambda: torch.rand(())), BATCH, shuffle=True, generator=seeded(), num_workers=1
    ),
    "distributed": distributed,
}


def build():
    torch.manual_seed(1)
    return be.Single(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.3), nn.Linear(4, 2)))


def train(make, folder=None, stop=-1, **options):
    """Train from a fresh start, as a script does that is started again."""
    global MODULE
    MODULE = np.random.default_rng(5)
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)
    made = make()
    loader, callbacks = made if isinstance(made, tuple) else (made, [])
    model = build()
    settings = {"epochs": 3, "lr": 0.02, "cooldown": 0.0, "seed": 4, "keep": 1, **options}
    if "validation" in settings:
        settings["validation"] = settings["validation"]()
    callbacks = [*callbacks, Power(stop), *settings.pop("callbacks", ())]
    history = be.fit(model, loader, checkpoints=folder, callbacks=callbacks, **settings)
    return model.state_dict(), history.losses, history.validation_nll


def interrupted(make, folder, step, **options):
    with pytest.raises(KeyError):
        train(make, folder, step + 1, checkpoint_every=step, **options)
    return train(make, folder, resume=True, **options)


def assert_same(found, expected):
    assert found[1:] == expected[1:]
    for name, value in expected[0].items():
        assert torch.equal(found[0][name], value), name


@pytest.mark.parametrize("name", LOADERS)
def test_it_goes_on_with_the_order_that_the_loader_would_have_had(tmp_path, name):
    """In the midst of the second epoch, and at its end."""
    expected = train(LOADERS[name])
    for step in (7, 10):
        assert_same(interrupted(LOADERS[name], tmp_path / str(step), step), expected)


def test_held_out_data_in_an_order_of_their_own_go_on_too(tmp_path):
    """One generator for both, which the scoring between two steps draws from as well."""

    def both():
        generator = seeded()
        held_out.append(DataLoader(Noisy(gaussian()), 12, shuffle=True, generator=generator))
        return DataLoader(PAIRS, BATCH, shuffle=True, generator=generator)

    held_out = []
    options = {"validation": lambda: held_out[-1], "patience": 9, "evaluate_every": 2}
    expected = train(both, **options)
    for step in (7, 10):
        assert_same(interrupted(both, tmp_path / str(step), step, **options), expected)


class GoesOn(DataLoader):
    """A loader that goes on within an epoch by itself, as torchdata's StatefulDataLoader does."""

    def __init__(self):
        super().__init__(PAIRS, BATCH)
        self.hidden, self.order, self.done, self.loaded = [seeded()], torch.empty(0), 0, 0

    def __iter__(self):
        if not self.done:
            self.order = torch.randperm(COUNT, generator=self.hidden[0])
        for rows in self.order.split(BATCH)[self.done :]:
            self.done += 1
            self.loaded += 1
            yield X[rows], Y[rows]
        self.done = 0

    def state_dict(self):
        return {"state": self.hidden[0].get_state(), "order": self.order, "done": self.done}

    def load_state_dict(self, state):
        self.hidden[0].set_state(state["state"])
        self.order, self.done = state["order"], state["done"]


@pytest.mark.parametrize("step", [7, 10])
def test_a_loader_that_goes_on_by_itself_loads_nothing_again(tmp_path, step):
    made = []

    def make():
        made.append(GoesOn())
        return made[-1]

    options = {"batches": "independent"}  # the orders of the members are drawn beside it
    assert_same(interrupted(make, tmp_path, step, **options), train(make, **options))
    assert made[1].loaded == 15 - step


class Endless(OfNumPy):
    """Holds something that can be gone through once."""

    def __init__(self):
        self.source = iter([*range(COUNT)] * 3)

    def __iter__(self):
        return (next(self.source) for _ in range(COUNT))


class Machine(OfNumPy):
    def __init__(self):
        self.rng = random.SystemRandom()


class Odd(OfNumPy):
    def __init__(self):
        self.inner = self
        self.state_dict = lambda: {"object": object()}
        self.load_state_dict = print


def persistent():
    return DataLoader(Noisy(gaussian()), BATCH, num_workers=1, persistent_workers=True)


def as_they_come():
    return DataLoader(PAIRS, BATCH, num_workers=1, in_order=False)


REFUSED = [
    (lambda: sampled(Endless()), r"loader.batch_sampler.sampler.source is a list_iterator"),
    (lambda: sampled(iter(range(COUNT))), r"loader.batch_sampler.sampler is a range_iterator"),
    (lambda: sampled(Machine()), r"sampler.rng is a SystemRandom, which draws from the operating"),
    (lambda: DataLoader(Endless(), None, sampler=Endless()), r"give it methods state_dict\(\)"),
    (persistent, r"persistent_workers=True.*give persistent_workers=False, or leave resume=True"),
    (as_they_come, r"in_order=False"),
]


@pytest.mark.parametrize(("make", "sentence"), REFUSED)
def test_a_loader_whose_state_cannot_be_had_is_refused_before_training(tmp_path, make, sentence):
    with pytest.raises(ValueError, match=f"resume=True needs the state .*{sentence}"):
        train(make, tmp_path / "folder", resume=True)
    assert not (tmp_path / "folder").exists()


def test_without_resume_its_checkpoints_are_said_not_to_be_gone_on_from(tmp_path):
    with pytest.warns(UserWarning, match=r"resume=True will not work with these .*source is a"):
        train(lambda: sampled(Endless()), tmp_path, epochs=1)
    train(lambda: sampled(Endless()), epochs=1)  # without checkpoints there is nothing to say


def test_a_state_that_no_checkpoint_holds_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"state_dict\(\) of .*sampler \(Odd\) holds a object"):
        train(lambda: sampled(Odd()), tmp_path, resume=True, epochs=1)


def fixed():
    """Nothing in it is random, so workers that stay are right."""
    return DataLoader(PAIRS, BATCH, num_workers=1, persistent_workers=True)


@pytest.mark.parametrize("make", [fixed, lambda: sampled(range(COUNT)), lambda: PAIRS])
def test_a_loader_without_a_state_says_nothing(tmp_path, make):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(make, tmp_path, epochs=1, resume=True)


@pytest.mark.parametrize(
    ("now", "sentence"),
    [
        ("weighted", "it has the state of loader.batch_sampler.sampler.generator, which is not"),
        ("NumPy", "it has the state of loader.batch_sampler.sampler.generator, which is not"),
    ],
)
def test_a_loader_that_draws_in_another_way_is_refused(tmp_path, now, sentence):
    train(LOADERS["weighted, generator"], tmp_path, epochs=1)
    with pytest.raises(CheckpointError, match=f"is of other data: .*({sentence})"):
        train(LOADERS[now], tmp_path, resume=True)


def test_a_checkpoint_that_kept_no_such_state_is_gone_on_with_and_says_so(tmp_path):
    """The version before wrote those."""
    train(LOADERS["random"], tmp_path, epochs=1)
    folder = next(tmp_path.iterdir())
    found = read_checkpoint(folder)
    state = {name: each for name, each in found.state.items() if name not in ("data", "optional")}
    shutil.rmtree(folder)
    Checkpoints(tmp_path).save(folder.name, found.tensors, state, wait=True)
    with pytest.warns(
        UserWarning, match=r"kept no state of loader.*generator, from which the data"
    ):
        assert len(train(LOADERS["random"], tmp_path, resume=True)[1]) == 3


def test_what_draws_here_and_did_not_then_is_refused(tmp_path):
    train(LOADERS["weighted"], tmp_path, epochs=1)
    with pytest.raises(
        CheckpointError, match=r"it has no state of .*sampler.generator, from which"
    ):
        train(LOADERS["weighted, generator"], tmp_path, resume=True)
