"""A saved ensemble again: made without memory, compared with what the file holds, then filled.

All that the files say is checked before their weights take memory. An ensemble on torch's ``meta``
device has names, types and shapes, and no numbers; its tensors then become those of the file.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from batchensemble.ensembles import METHODS, Ensemble
from batchensemble.ensembles.calibrators import empty
from batchensemble.ensembles.networks import multilayer_perceptron
from batchensemble.ensembles.saving.tensor_file import Entry, TensorFile
from batchensemble.layers import Twin
from batchensemble.losses import (
    ClassLoss,
    CrossEntropy,
    EnsembleLoss,
    NumberLoss,
    Standardised,
    from_dict,
)

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
FEW_MEMBERS = 8  # that may be made to see whether they fit
STATISTICS = ("running_mean", "running_var")  # buffers that must be numbers, as weights must


def made_on_meta(widths: list[int], tensors: int) -> nn.Sequential:
    """Return the perceptron of these widths without memory, if a file can hold it.

    Args:
        widths: of its layers.
        tensors: how many the file has, one under two names counted twice.

    Raises:
        ValueError: they are too few for so many layers.
    """
    layers = len(widths) - 1
    if 2 * layers > tensors:
        raise ValueError(f"its network has {layers:,} layers, and its weights are {tensors:,}")
    with torch.device("meta"):
        return multilayer_perceptron(widths[0], widths[1:-1], widths[-1])


def without_weights(network: nn.Module) -> nn.Module:
    """Return a copy of a network whose weights are on ``meta``, and so take no memory.

    What a state dictionary does not hold, such as tables of positions, stays as it is.
    """
    memo: dict[int, Any] = {}
    for value in network.state_dict(keep_vars=True).values():
        if isinstance(value, nn.Parameter):
            hollow = torch.empty_like(value, device="meta")
            memo[id(value)] = nn.Parameter(hollow, requires_grad=value.requires_grad)
        elif isinstance(value, Tensor):
            memo[id(value)] = torch.empty_like(value, device="meta")
    return copy.deepcopy(network, memo)


def device_of(network: nn.Module) -> torch.device | None:
    """Return where a network's weights are; ``None`` where they are on several devices."""
    devices = {value.device for value in (*network.parameters(), *network.buffers())}
    devices.discard(torch.device("meta"))
    if len(devices) > 1:
        return None
    return next(iter(devices), torch.device("cpu"))


def untrained(
    config: Mapping[str, Any], network: nn.Module, entries: Mapping[str, Entry]
) -> Ensemble:
    """Return the ensemble that a configuration describes, without its weights.

    Args:
        config: checked, see :mod:`batchensemble.ensembles.saving.config`.
        network: the plain network, its weights on ``meta``; it may become part of the ensemble.
        entries: what the file of the weights holds, which must be as much.

    Raises:
        ValueError: there is no such ensemble of the network, or its size is another.
    """
    members = config["members"]
    if members > FEW_MEMBERS and METHODS[config["method"]].grows:
        _check_size(config, network, entries)
    model = _ensemble(config, network, members)
    if config.get("calibration") is not None:
        model.attach(empty(config["calibration"], "meta"))
    return model


def compare(model: Ensemble, entries: Mapping[str, Entry], tied: Mapping[str, str]) -> None:
    """Check that a file holds the tensors of an ensemble: their names, shapes and types.

    Args:
        model: what they are for.
        entries: of the file.
        tied: names of tensors that the file has under another name, by name.

    Raises:
        ValueError: they are others; the sentence says what differs.
    """
    state = model.state_dict(keep_vars=True)
    for name, other in tied.items():
        if name in entries or other not in entries:
            raise ValueError(
                f"it says that {name!r:.200} is the same as {other!r:.200}, and the file has "
                f"{'both' if name in entries else 'no such tensor'}"
            )
    for name in [*state, *entries, *tied]:
        there = entries.get(tied.get(name, name))
        shape = None if there is None else list(there.shape)
        here = list(state[name].shape) if name in state else None
        if here != shape:
            raise ValueError(
                f"it is of another network or number of members: its {name:.200} is "
                f"{_said(shape)}, and that of the network given is {_said(here)}; give the network "
                "that it was made from"
            )
        if there is not None and not _holds(state[name].dtype, there.dtype):
            raise ValueError(
                f"its {name:.200} holds {_called(there.dtype)}, and the network's holds "
                f"{_called(state[name].dtype)}"
            )
    first: dict[int, str] = {}
    for name, value in state.items():
        before = first.setdefault(id(value), name)
        if tied.get(name, name) != tied.get(before, before):
            raise ValueError(
                f"its {before:.200} and {name:.200} are two tensors, and one in the network given"
            )


def fill(
    model: Ensemble, file: TensorFile, tied: Mapping[str, str], device: torch.device | None
) -> str:
    """Put the tensors of a file in the place of an ensemble's, each as the type that it has there.

    Args:
        model: that :func:`compare` found to fit.
        file: open.
        tied: see :func:`compare`.
        device: where they go to; ``None``: where the ensemble's are.

    Returns:
        The first weight that is not finite, and what it holds; empty where all are.
    """
    state = model.state_dict(keep_vars=True)
    watched = {name for name, value in state.items() if must_be_finite(name, value)}
    wrong: list[str] = []

    def watch(name: str, values: Tensor) -> None:
        if name in watched and not wrong and not values.isfinite().all():
            wrong.append(f"{name} holds {float(values[~values.isfinite()][0]):g}")

    for name, read in file.read(watch):
        old = state[name]
        value = read.to(old.device if device is None else device)
        if old.is_meta:
            _become(model, old, value)
        else:
            old.data = value
    # Those that are one already are found by what they are now.
    state = model.state_dict(keep_vars=True)
    for name, other in tied.items():
        if state[name] is not state[other]:
            _put(model, name, state[other])
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            module._init_flat_weights()  # which are beside its parameters
    return wrong[0] if wrong else ""


def must_be_finite(name: str, value: Tensor) -> bool:
    """Return whether a tensor of an ensemble is a weight, or statistics that outputs go by."""
    floats = value.is_floating_point() or value.is_complex()
    return floats and (isinstance(value, nn.Parameter) or name.endswith(STATISTICS))


def freeze_parameters(model: Ensemble, frozen: Iterable[str]) -> None:
    """Let these parameters, and no others, be left alone by a training.

    Raises:
        ValueError: there is no parameter of such a name.
    """
    names = set(frozen)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    unknown = names - parameters.keys()
    if unknown:
        raise ValueError(f"it says that {min(unknown)!r:.200} is frozen, which is no parameter")
    for name, parameter in parameters.items():
        numbers = parameter.is_floating_point() or parameter.is_complex()
        parameter.requires_grad_(numbers and name not in names)
    for module in model.modules():
        if isinstance(module, Twin):  # its members' layers are made of it
            for name, parameter in module.shell.named_parameters():
                own = getattr(module, name, None)
                if isinstance(own, nn.Parameter):
                    parameter.requires_grad_(own.requires_grad)


def check_outputs(config: Mapping[str, Any], outputs: int) -> None:
    """Check that the loss and the calibrator of an ensemble go with its network's outputs.

    Args:
        config: checked by itself.
        outputs: how many the network of the library has.

    Raises:
        ValueError: they do not.
    """
    loss = None if config.get("loss") is None else from_dict(config["loss"])
    classes = outputs
    if isinstance(loss, ClassLoss):
        classes = loss.classes(outputs)
        if classes < 2 or not _weighs(loss, classes):
            raise ValueError(f"its loss {loss} does not go with {outputs} outputs")
    elif isinstance(loss, NumberLoss):
        targets, rest = divmod(outputs, loss.outputs_a_target)
        if rest or not targets or (isinstance(loss, Standardised) and len(loss.mean) != targets):
            raise ValueError(f"its loss does not go with {outputs} outputs of the network")
    calibration = config.get("calibration")
    if calibration is not None:
        if loss is not None and not isinstance(loss, CrossEntropy):
            raise ValueError("it has a calibrator of classes, and its loss is no cross-entropy")
        sizes = {shape[1] for shape in calibration["shapes"].values() if len(shape) > 1}
        if sizes - {outputs}:
            raise ValueError(
                f"its calibrator is of {max(sizes)} classes, and its network has {outputs} outputs"
            )


def _weighs(loss: EnsembleLoss, classes: int) -> bool:
    weights = getattr(loss, "class_weight", None)
    if isinstance(weights, Mapping):
        return max(weights) < classes
    return not isinstance(weights, tuple) or len(weights) == classes


def _ensemble(config: Mapping[str, Any], network: nn.Module, members: int) -> Ensemble:
    options = {**config["options"]}
    for name, value in options.items():
        if isinstance(value, list):
            options[name] = list(dict.fromkeys(value))
    method = METHODS[config["method"]]
    with torch.random.fork_rng([]), warnings.catch_warnings():
        # What starts equal is overwritten anyway.
        warnings.filterwarnings("ignore", message=".*has no reset_parameters")
        try:
            return method.build(network, members, **options, **method.unstarted)
        except (ValueError, TypeError, RuntimeError, OverflowError) as error:
            raise ValueError(f"it cannot be made from this network: {error}") from error


def _check_size(
    config: Mapping[str, Any], network: nn.Module, entries: Mapping[str, Entry]
) -> None:
    """Check that many members would have as many numbers as the file has, before they are made.

    What members have of their own grows with their number, and the rest stays.
    """
    one, two = (_numbers_of(_ensemble(config, network, members)) for members in (1, 2))
    expected = one + (config["members"] - 1) * (two - one)
    found = sum(
        math.prod(entry.shape)
        for name, entry in entries.items()
        if not name.startswith("calibrator.")
    )
    if found < expected:
        raise ValueError(
            f"{config['members']:,} members of this network have {expected:,} numbers, and its "
            f"weights are {found:,}"
        )


def _numbers_of(model: Ensemble) -> int:
    values = {id(value): value for value in model.state_dict(keep_vars=True).values()}
    return sum(value.numel() for value in values.values())


def _become(model: nn.Module, old: Tensor, value: Tensor) -> None:
    """Make a tensor of an ensemble another one, wherever it is held."""
    if isinstance(old, nn.Parameter):
        value = nn.Parameter(value, requires_grad=old.requires_grad)
    try:
        torch.utils.swap_tensors(old, value)
    except RuntimeError:
        # Recurrent layers hold weak references to theirs.
        for module in model.modules():
            for held in (module._parameters, module._buffers):
                for name in [name for name, each in held.items() if each is old]:
                    setattr(module, name, value)


def _put(model: nn.Module, path: str, value: Tensor) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, value)


def _said(shape: list[int] | None) -> str:
    return "not there" if shape is None else str(shape)


def _called(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _holds(ours: torch.dtype, theirs: torch.dtype) -> bool:
    return ours == theirs or (ours in FLOATS and theirs in FLOATS)
