"""Adam over one buffer takes the steps of ``torch.optim.Adam`` and leaves no trace."""

import copy

import pytest
import torch
from torch import nn

from batchensemble.training.optim.buffers import in_buffers
from batchensemble.training.optim.optimizers import FlatAdam
from batchensemble.training.optim.schedules import Schedule


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)).double()


def groups(module, **options):
    return [{"params": list(module.parameters()), "lr": 0.01, "weight_decay": 0.0, **options}]


def backward(module, step):
    torch.manual_seed(step)
    x = torch.randn(5, 4)
    for layer in module:
        x = layer(x.to(layer.weight.dtype) if hasattr(layer, "weight") else x)
    x.pow(2).sum().backward()


def assert_own_storage(module):
    for parameter in module.parameters():
        assert parameter.untyped_storage().nbytes() == parameter.nbytes
        assert parameter.grad is None


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_each_step_is_that_of_torchs_adam(share):
    ours, theirs = network(), network()
    schedule = Schedule(steps=30, cooldown=share)
    reference = torch.optim.Adam(theirs.parameters(), lr=0.01, foreach=True)
    with in_buffers(groups(ours)) as buffers:
        flat = FlatAdam(buffers, schedule)
        for step in range(30):
            flat.clear()
            reference.zero_grad()
            for module in (ours, theirs):
                backward(module, step)
            reference.param_groups[0]["lr"] = 0.01 * schedule.at(step)
            flat.step()
            reference.step()
            for own, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
                torch.testing.assert_close(own, expected, rtol=1e-12, atol=1e-12)
    assert not torch.equal(next(ours.parameters()), next(network().parameters()))


def test_parameters_and_gradients_lie_in_one_buffer_meanwhile():
    module = network()
    with in_buffers(groups(module)) as [buffer]:
        assert buffer.values.numel() == sum(parameter.numel() for parameter in module.parameters())
        storages = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
        assert storages == {buffer.values.untyped_storage().data_ptr()}
        backward(module, 0)
        gradients = torch.cat([parameter.grad.flatten() for parameter in module.parameters()])
        assert torch.equal(buffer.gradient(), gradients)


def test_afterwards_each_parameter_owns_its_memory_and_keeps_its_value():
    module, names = network(), dict(network().named_parameters())
    parameters = list(module.parameters())
    with in_buffers(groups(module)) as [buffer], torch.no_grad():
        buffer.values.mul_(2)
    assert_own_storage(module)
    assert all(a is b for a, b in zip(parameters, module.parameters(), strict=True))
    for name, parameter in module.named_parameters():
        assert torch.equal(parameter, 2 * names[name])


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_inside_leaves_whole_parameters_too(error):
    module = network()

    def interrupted():
        with in_buffers(groups(module)) as [buffer], torch.no_grad():
            buffer.values.mul_(2)
            raise error

    with pytest.raises(error):
        interrupted()
    assert_own_storage(module)
    assert torch.equal(module[0].weight, 2 * network()[0].weight)


def test_each_precision_has_its_buffer_and_all_are_trained():
    module = network()
    module[2].float()
    before = copy.deepcopy(module.state_dict())
    with in_buffers(groups(module)) as buffers:
        assert [buffer.values.dtype for buffer in buffers] == [torch.float64, torch.float32]
        backward(module, 0)
        FlatAdam(buffers, Schedule(1)).step()
    for name, parameter in module.state_dict().items():
        assert parameter.dtype == before[name].dtype
        # Adam's first step is the learning rate, wherever the gradient points.
        step = (parameter - before[name]).abs()
        torch.testing.assert_close(step, torch.full_like(step, 0.01), rtol=1e-3, atol=1e-5)


def test_frozen_parameters_are_left_alone():
    module = network()
    module[0].requires_grad_(False)
    memory = module[0].weight.data_ptr()
    with in_buffers(groups(module)) as [buffer]:
        assert buffer.values.numel() == 8 * 2 + 2
        backward(module, 0)
        FlatAdam([buffer], Schedule(1)).step()
    assert torch.equal(module[0].weight, network()[0].weight)
    assert module[0].weight.data_ptr() == memory
    assert not torch.equal(module[2].weight, network()[2].weight)


def test_nothing_to_train_is_no_buffer():
    with in_buffers(groups(network().requires_grad_(False))) as buffers:
        assert buffers == []


def test_a_weight_used_twice_is_in_the_buffer_once():
    module = network()
    module[2].weight = nn.Parameter(module[0].weight.view(2, 16)[:, :8])
    module.append(module[0])
    with in_buffers(groups(module)) as [buffer]:
        assert buffer.values.numel() == sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("share", "rates"),
    [
        (0.0, [1.0, 1.0, 1.0, 1.0]),
        (0.5, [1.0, 1.0, 1.0, 0.5]),
        (1.0, [1.0, 0.75, 0.5, 0.25]),
    ],
)
def test_the_learning_rate_falls_in_a_straight_line_over_its_share_of_the_steps(share, rates):
    schedule = Schedule(steps=4, cooldown=share)
    assert [schedule.at(step) for step in range(4)] == rates
