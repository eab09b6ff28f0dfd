"""``learn``: each task by a member of its own, and what was learnt stays bit for bit."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import batchensemble as be
from batchensemble.ensembles.tasks import TaskRecord, kept_tasks
from batchensemble.training.task_records import are_apart

OPTIONS = {"epochs": 2, "batch_size": 32, "lr": 0.02, "progress": False}

LONG = {**OPTIONS, "epochs": 12}


def task(number, rows=160):
    """Two classes in four features of this task alone; the other eight are blank."""
    generator = torch.Generator().manual_seed(number)
    y = torch.randint(2, (rows,), generator=generator)
    x = torch.zeros(rows, 12)
    own = (2.0 * y[:, None] - 1) + 0.8 * torch.randn(rows, 4, generator=generator)
    x[:, 4 * number : 4 * number + 4] = own
    return x, y


TASKS = [task(number) for number in range(3)]
TRAIN = [(x[:96], y[:96]) for x, y in TASKS]
HELD_OUT = [(x[96:], y[96:]) for x, y in TASKS]


def network():
    return nn.Sequential(
        nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 2)
    )


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv1d(1, 4, 3, padding=1), nn.BatchNorm1d(4)
        self.second, self.head = nn.Conv1d(4, 4, 3, padding=1), nn.Linear(4, 2)

    def forward(self, x):
        x = self.norm(self.first(x.unsqueeze(1))).relu()
        return self.head((x + self.second(x)).mean(-1))


BUILD = {
    "rank one": lambda: be.BatchEnsemble(network(), 3, independent=["4"]),
    "additive": lambda: be.BatchEnsemble(network(), 3, independent=["4"], mode="additive", rank=2),
    "convolutions": lambda: be.BatchEnsemble(Residual(), 3, independent=["head"]),
    "deep": lambda: be.DeepEnsemble(network(), 3),
    "adapted": lambda: be.adapt(network(), 3, targets="all-linear", heads=["4"]),
}


def build(name="additive", members=None):
    torch.manual_seed(0)
    if members is not None:
        return be.BatchEnsemble(network(), members, independent=["4"], mode="additive", rank=2)
    return BUILD[name]()


def states(model):
    return [copy.deepcopy(model.member(index).state_dict()) for index in range(model.members)]


def equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", BUILD)
def test_nothing_is_forgotten_not_even_the_last_bit(name):
    model = build(name)
    for number, data in enumerate(TRAIN):
        before = states(model)
        with torch.no_grad():
            outputs = [model.member(k).eval()(HELD_OUT[k][0]) for k in range(number)]
        be.learn(model, [data], optimizer="adamw", weight_decay=0.1, **OPTIONS)
        after = states(model)
        assert not equal(before[number], after[number])
        for other in set(range(3)) - {number}:
            if number or name == "deep":  # the first task trains what is shared
                assert equal(before[other], after[other])
        with torch.no_grad():
            for k, then in enumerate(outputs):
                assert torch.equal(model.member(k).eval()(HELD_OUT[k][0]), then)


def test_one_call_is_as_many_calls_with_one_task_each():
    together, apart = build(), build()
    learned = be.learn(together, TRAIN, validation=HELD_OUT, **OPTIONS)
    for data, held in zip(TRAIN, HELD_OUT, strict=True):
        be.learn(apart, [data], validation=[held], **OPTIONS)
    assert equal(together.state_dict(), apart.state_dict())
    assert [each.member for each in learned] == [0, 1, 2]
    for number, each in enumerate(learned):
        alone = be.evaluate(together.select([number]), HELD_OUT[number])
        assert each.scores["accuracy"] == alone["accuracy"]
        assert each.history.plan["members"] == [number]
        assert together.tasks[number] == each.record
        assert each.record.held_out
    assert "held-out accuracy" in str(learned)
    assert len(str(learned).splitlines()) == 4


def test_it_learns():
    learned = be.learn(build(), TRAIN, validation=HELD_OUT, **LONG)
    assert min(each.scores["accuracy"] for each in learned) > 0.75


def test_it_goes_on_after_saving_and_loading(tmp_path):
    model, whole = build(), build()
    be.learn(model, TRAIN[:2], validation=HELD_OUT[:2], **OPTIONS)
    be.save(model, tmp_path / "model")
    loaded = be.load(tmp_path / "model", network=network())
    assert loaded.tasks == model.tasks
    be.learn(loaded, TRAIN[2:], validation=HELD_OUT[2:], **OPTIONS)
    be.learn(whole, TRAIN, validation=HELD_OUT, **OPTIONS)
    assert equal(loaded.state_dict(), whole.state_dict())
    assert len(loaded.tasks) == 3


class Killed(be.Callback):
    def on_step(self, run):
        if len(run.model.tasks) == 0 and run.step == 3 and self.tasks == 1:
            raise KeyboardInterrupt

    def on_end(self, run):
        self.tasks += 1

    tasks = 0


def test_it_resumes_where_it_was_killed(tmp_path):
    whole, killed, resumed = build(), build(), build()
    options = {**OPTIONS, "checkpoints": tmp_path / "a", "checkpoint_every": 2}
    be.learn(whole, TRAIN[:2], **{**options, "checkpoints": tmp_path / "b"})
    with pytest.raises(KeyboardInterrupt):
        be.learn(killed, TRAIN[:2], callbacks=[Killed()], **options)
    assert len(killed.tasks) == 1
    be.learn(resumed, TRAIN[:2], resume=True, **options)
    assert equal(resumed.state_dict(), whole.state_dict())
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"task-0", "task-1"}


def test_tasks_come_in_every_form_that_fit_takes():
    x, y = TRAIN[1]
    frame = pd.DataFrame(x.numpy()).rename(columns=str).assign(y=y.numpy())
    model = build()
    loader = DataLoader(TensorDataset(*TRAIN[0]), batch_size=32)
    be.learn(model, [loader], validation=[HELD_OUT[0]], **OPTIONS)
    be.learn(model, [frame], target="y", validation=0.25, **OPTIONS)
    assert [each.held_out for each in model.tasks] == [True, False]


def test_a_task_may_stop_early():
    learned = be.learn(build(), TRAIN[:2], validation=0.3, patience=1, **{**LONG, "lr": 0.2})
    assert all(each.history.best_epoch for each in learned)
    assert learned[0].scores is None


def test_training_all_members_overwrites_the_tasks():
    model = build()
    be.learn(model, TRAIN[:1], **OPTIONS)
    be.fit(model, TRAIN[1], members=[1], **OPTIONS)
    assert len(model.tasks) == 1
    be.fit(model, TRAIN[1], **OPTIONS)
    assert model.tasks == ()


def test_numbers_are_tasks_too():
    model = be.BatchEnsemble(nn.Linear(12, 1), 2)
    tasks = [(x, x[:, :1] + x[:, 4:5]) for x, _ in TRAIN[:2]]
    learned = be.learn(model, tasks, validation=tasks, loss="mse", **OPTIONS)
    assert "rmse" in learned[1].scores
    with pytest.raises(ValueError, match="compares the entropies of classes"):
        model.infer_task(tasks[0][0])


@pytest.mark.parametrize(
    ("tasks", "options", "error", "sentence"),
    [
        (TRAIN[0], {}, TypeError, r"as in \[\(X1, y1\), \(X2, y2\)\], got one data set"),
        ("files", {}, TypeError, "got str"),
        ([], {}, ValueError, "at least one data set, got none"),
        ([*TRAIN, TRAIN[0]], {}, ValueError, "got 4 tasks and 3 members that have not learnt one"),
        ([TRAIN[0], (TRAIN[1][0][:, :5], TRAIN[1][1])], {}, ValueError, r"tasks\[1\]: the network"),
        ([TRAIN[0], (TRAIN[1][0], TRAIN[1][1] + 5)], {}, ValueError, r"tasks\[1\]: "),
        ([TRAIN[0], (TRAIN[1][0][:0], TRAIN[1][1][:0])], {}, ValueError, r"tasks\[1\]: "),
        (TRAIN, {"validation": HELD_OUT[:2]}, ValueError, "each of the 3 tasks, .*got 2"),
        (TRAIN, {"members": [1]}, TypeError, "it has no 'members' for a task"),
        (TRAIN, {"epoch": 1}, TypeError, "it has no 'epoch'"),
        (TRAIN, {"patience": 2}, ValueError, "validation is missing"),
        (TRAIN, {"standardise_targets": True, "loss": "mse"}, ValueError, "standardise y"),
    ],
)
def test_bad_input_is_refused_in_a_sentence_before_anything_is_trained(
    tasks, options, error, sentence
):
    model = build()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(error, match=sentence):
        be.learn(model, tasks, **{**OPTIONS, **options})
    assert equal(before, model.state_dict())
    assert model.tasks == ()
    assert model.loss is None


def test_members_that_cannot_be_separated_are_refused():
    with pytest.raises(ValueError, match="cannot be separated"):
        be.learn(be.MIMO(nn.Linear(12, 2), 3), TRAIN, **OPTIONS)


@pytest.fixture(scope="module")
def learned():
    model = build()
    be.learn(model, TRAIN, validation=HELD_OUT, **LONG)
    return model


def test_the_task_of_a_group_is_inferred(learned):
    for number, (x, _) in enumerate(HELD_OUT):
        found = learned.infer_task(x, together=16)
        assert found.tasks.tolist() == [number] * 4
        assert found.entropy.shape == (4, 3)
        assert (found.confidence > 0.9).all()
        assert str(found) == f"4 groups: task {number} in 4"
    few = learned.infer_task(HELD_OUT[0][0][:33].double().numpy(), together=16)
    assert len(few) == 3
    assert np.isnan(few.confidence[2])


def test_inferring_is_by_the_lowest_mean_entropy(learned):
    x = HELD_OUT[2][0][:16]
    probs = be.predict(learned, x).member_probs
    entropy = -(probs * np.log(probs)).sum(2).mean(0)
    found = learned.infer_task(x, together=16)
    np.testing.assert_allclose(found.entropy[0], entropy, atol=1e-6)
    assert learned.training  # modes are as before


def test_it_runs_no_member_without_a_task():
    model = build(members=4)
    be.learn(model, TRAIN[:2], validation=HELD_OUT[:2], **OPTIONS)
    assert model.infer_task(HELD_OUT[0][0]).entropy.shape == (4, 2)


@pytest.mark.parametrize("calls", [1, 2])
def test_tasks_that_share_their_inputs_are_refused(calls):
    model = build()
    x, y = TRAIN[0]
    tasks = [(x[:48], y[:48]), (x[48:], (x[48:, 0] > 0).long())]
    held = [HELD_OUT[0], (HELD_OUT[0][0], (HELD_OUT[0][0][:, 0] > 0).long())]
    for number in range(calls):
        part = slice(None) if calls == 1 else slice(number, number + 1)
        be.learn(model, tasks[part], validation=held[part], **LONG)
    assert model.tasks[1].confused_with == (0,)
    with pytest.raises(ValueError, match=r"not tell task 0 from task 1, .*share their inputs"):
        model.infer_task(x)


@pytest.mark.parametrize(
    ("x", "options", "error", "sentence"),
    [
        (torch.zeros(0, 12), {}, ValueError, "at least one example"),
        (torch.full((4, 12), torch.nan), {}, ValueError, "must be finite"),
        (torch.zeros(4, 12), {"together": 1}, ValueError, "together must be at least 2"),
        (pd.DataFrame(np.zeros((4, 12))), {}, TypeError, "got a table"),
    ],
)
def test_what_cannot_be_inferred_is_refused(learned, x, options, error, sentence):
    with pytest.raises(error, match=sentence):
        learned.infer_task(x, **options)


def test_an_ensemble_without_tasks_has_none_to_infer():
    with pytest.raises(ValueError, match="at least 2, got 0"):
        build().infer_task(TRAIN[0][0])


def test_selected_members_keep_their_tasks(learned):
    few = learned.select([2, 0])
    assert [each.entropy for each in few.tasks] == [learned.tasks[each].entropy for each in (2, 0)]
    assert few.infer_task(HELD_OUT[2][0]).tasks.tolist() == [0] * 4
    records = TaskRecord(), TaskRecord(confused_with=(0,)), TaskRecord()
    assert [each.confused_with for each in kept_tasks(records, [1, 0])] == [(), (0,)]
    assert kept_tasks(records, [3, 1]) == ()


def test_groups_of_one_distribution_are_not_apart():
    assert not are_apart((0.3, 0.2), (0.3, 0.2))
    assert not are_apart((0.3, 0.2), (0.1, 0.2))
    assert are_apart((0.3, 0.2), (0.4, 0.2))
