"""Context managers for running a network without lasting side effects.

Attributes of modules are restored, caches and states of recurrent networks among them; what a
module appends to a list of its own is not.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from batchensemble.ensembles.conversion.branch_inputs import BranchInput
from batchensemble.layers import Mergeable, Twin
from batchensemble.layers.base.twin import MODULE_HOOKS
from batchensemble.layers.modes import with_shells
from batchensemble.layers.rank_one.layer import RankOne


@contextmanager
def distinct_members(network: nn.Module) -> Iterator[None]:
    """Make the members differ and no weight zero, so that mixed rows change the outputs.

    Weights are replaced by others meanwhile, never written to.
    """
    noise = torch.Generator("cpu").manual_seed(0)
    others: dict[Tensor, Tensor] = {}
    places = []
    for module in network.modules():
        own = module.own if isinstance(module, Twin) else ()
        for held in (module._parameters, module._buffers):
            for name, value in held.items():
                if value is None or not value.is_floating_point() or not value.numel():
                    continue
                if name in own:
                    change = isinstance(module, RankOne) or bool((value == value[:1]).all())
                else:
                    change = held is module._parameters and not value.any()
                if change:
                    drawn = torch.rand(value.shape, generator=noise, device="cpu").to(value)
                    bent = value.detach() * (0.9 + 0.2 * drawn)
                    others.setdefault(value, torch.where(value == 0, 0.05 * drawn, bent))
                    places.append((held, name, value))
    try:
        for held, name, value in places:
            held[name] = others[value]  # type: ignore[assignment]
        yield
    finally:
        for held, name, value in places:
            held[name] = value  # type: ignore[assignment]


@contextmanager
def perturbed_shared_weights(twin: Twin) -> Iterator[None]:
    """Replace the weights that all members share in a layer by others meanwhile."""
    before = {
        name: value
        for name, value in twin._parameters.items()
        if value is not None and name not in twin.own
    }
    try:
        for name, value in before.items():
            twin._parameters[name] = 1.5 * value.detach() + 0.1  # type: ignore[assignment]
        yield
    finally:
        twin._parameters.update(before)


@contextmanager
def preserve_attributes(network: nn.Module) -> Iterator[None]:
    """Restore the attributes of each module, and what each twin has learned or chosen."""
    modules = list(with_shells(network))
    kept = [(vars(each), dict(vars(each))) for each in modules if not isinstance(each, Twin)]
    kept += [(each._buffers, dict(each._buffers)) for each in modules]
    learned = [(each, each.learned_axis) for each in modules if isinstance(each, Twin)]
    merged = [(each, each._kept, each._frozen) for each in modules if isinstance(each, Mergeable)]
    for layer, _, _ in merged:
        layer._kept = layer._frozen = None
    try:
        yield
    finally:
        for held, values in kept:
            for name in held.keys() - values.keys():
                del held[name]
            held.update(values)
        for twin, axis in learned:
            twin.learned_axis = axis
        for layer, weights, frozen in merged:
            layer._kept, layer._frozen = weights, frozen


@contextmanager
def without_hooks(network: nn.Module) -> Iterator[None]:
    """Disable all hooks but those that repeat the rows at a branch."""
    # By vars(): a compiled module hands attributes that are set on to the module within.
    before = [
        (vars(module), {name: getattr(module, name) for name in MODULE_HOOKS})
        for module in network.modules()
    ]
    try:
        for held, hooks in before:
            for name, own in hooks.items():
                held[name] = OrderedDict(
                    (key, hook)
                    for key, hook in own.items()
                    if isinstance(hook, BranchInput) or name == "_forward_pre_hooks_with_kwargs"
                )
        yield
    finally:
        for held, hooks in before:
            held.update(hooks)


@contextmanager
def preserve_random_states(network: nn.Module) -> Iterator[None]:
    """Restore the random states of torch, of the network's devices, of NumPy and of Python."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(_devices(network)):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def network_random_states(network: nn.Module) -> tuple[Any, ...]:
    """Return a state that changes whenever random numbers are drawn."""
    numpy: Any = np.random.get_state()  # noqa: NPY002
    states = [torch.get_rng_state(), *map(torch.cuda.get_rng_state, _devices(network))]
    drawn = [state.numpy().tobytes() for state in states]
    return *drawn, random.getstate(), numpy[1].tobytes(), numpy[2]


def _devices(network: nn.Module) -> list[torch.device]:
    """Return the GPUs that hold parameters of a network."""
    devices = {each.device for each in network.parameters()}
    return [device for device in devices if device.type == "cuda"]
