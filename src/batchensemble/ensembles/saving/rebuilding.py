"""Rebuild a saved ensemble: without memory first, then compared with the file, then loaded.

Everything is checked before weights take memory: on torch's ``meta`` device an ensemble has names,
types and shapes but no values; its tensors are then replaced by those of the file.
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
from batchensemble.ensembles.calibrators import empty_calibrator
from batchensemble.ensembles.freezing import set_trained
from batchensemble.ensembles.saving.tensor_file import TensorEntry, TensorFile
from batchensemble.layers.rank_one.initialisation import feature_normals, feature_signs
from batchensemble.losses import (
    ClassLoss,
    CrossEntropy,
    EnsembleLoss,
    NumberLoss,
    Standardised,
    from_dict,
)

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
FEW_MEMBERS = 8  # members that are built without a check of their total size
STATISTICS = ("running_mean", "running_var")  # buffers that must be finite, as weights must


def on_meta(network: nn.Module) -> nn.Module:
    """Return a copy of a network with its weights on ``meta``, where they take no memory.

    Tensors outside the state dictionary, such as tables of positions, are kept.
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
    """Return the device of a network's weights; ``None`` if they are on several."""
    devices = {value.device for value in (*network.parameters(), *network.buffers())}
    devices.discard(torch.device("meta"))
    if len(devices) > 1:
        return None
    return next(iter(devices), torch.device("cpu"))


def device_named(device: str | torch.device) -> torch.device:
    """Return an available device.

    Raises:
        ValueError: it is not available.
    """
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device must be available, got {device!r}: {reason}") from None


def without_values(
    config: Mapping[str, Any], network: nn.Module, entries: Mapping[str, TensorEntry]
) -> Ensemble:
    """Return the ensemble that a configuration describes, without its weights.

    Args:
        config: a validated configuration, see :mod:`batchensemble.ensembles.saving.config`.
        network: the plain network with its weights on ``meta``; it may become part of the ensemble.
        entries: the header of the weights' file, by name.

    Raises:
        ValueError: the network does not allow such an ensemble, or the file is too small for it.
    """
    members = config["members"]
    if members > FEW_MEMBERS and METHODS[config["method"]].grows:
        _check_size(config, network, entries)
    model = ensemble_of(config, network, members)
    if config.get("calibration") is not None:
        model.attach(empty_calibrator(config["calibration"], "meta"))
    return model


def check_tensors(
    model: Ensemble, entries: Mapping[str, TensorEntry], tied: Mapping[str, str]
) -> None:
    """Check that a file holds the tensors of an ensemble, by name, shape and type.

    Args:
        model: the ensemble.
        entries: the header of the file, by name.
        tied: for each tied tensor the name under which the file holds it.

    Raises:
        ValueError: a tensor differs; the message says how.
    """
    state = model.state_dict(keep_vars=True)
    check_tied(entries, tied)
    for name in [*state, *entries, *tied]:
        check_entry(name, state.get(name), entries.get(tied.get(name, name)))
    first: dict[int, str] = {}
    for name, value in state.items():
        before = first.setdefault(id(value), name)
        if tied.get(name, name) != tied.get(before, before):
            raise ValueError(
                f"its {before:.200} and {name:.200} are two tensors, and one in the network given"
            )


def check_tied(entries: Mapping[str, TensorEntry], tied: Mapping[str, str]) -> None:
    """Check that a file holds each tensor that others are tied to, and those not twice."""
    for name, other in tied.items():
        if name in entries or other not in entries:
            raise ValueError(
                f"it says that {name!r:.200} is the same as {other!r:.200}, and the file has "
                f"{'both' if name in entries else 'no such tensor'}"
            )


def check_entry(name: str, here: Tensor | None, there: TensorEntry | None) -> None:
    """Check that one tensor of a file has the shape and type of the network's.

    Args:
        name: its name.
        here: that of the network, if it has one.
        there: that of the file, if it has one.
    """
    ours = None if here is None else list(here.shape)
    theirs = None if there is None else list(there.shape)
    if here is None or there is None or ours != theirs:
        raise ValueError(
            f"it is of another network or number of members: its {name:.200} is "
            f"{_shape_text(theirs)}, and that of the network given is {_shape_text(ours)}; give "
            "the network that it was made from"
        )
    if not _holds(here.dtype, there.dtype):
        raise ValueError(
            f"its {name:.200} holds {_type_text(there.dtype)}, and the network's holds "
            f"{_type_text(here.dtype)}"
        )


def load_tensors(
    model: Ensemble, file: TensorFile, tied: Mapping[str, str], device: torch.device | None
) -> str:
    """Replace the tensors of an ensemble by those of a file, with the file's types.

    Args:
        model: an ensemble that passed :func:`check_tensors`.
        file: the open file.
        tied: see :func:`check_tensors`.
        device: device of the tensors; ``None``: the device of the ensemble's.

    Returns:
        Name and value of the first weight that is not finite; empty if all are finite.
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
    # The state has changed: tensors that are tied already are one object now.
    state = model.state_dict(keep_vars=True)
    for name, other in tied.items():
        if state[name] is not state[other]:
            _put(model, name, state[other])
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            module._init_flat_weights()  # a list of its parameters
    return wrong[0] if wrong else ""


def must_be_finite(name: str, value: Tensor) -> bool:
    """Return whether a tensor is a floating-point parameter or running statistic."""
    floats = value.is_floating_point() or value.is_complex()
    return floats and (isinstance(value, nn.Parameter) or name.endswith(STATISTICS))


def freeze_parameters(model: Ensemble, frozen: Iterable[str]) -> None:
    """Freeze these parameters, and no others.

    Raises:
        ValueError: there is no parameter of such a name.
    """
    names = set(frozen)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    unknown = names - parameters.keys()
    if unknown:
        raise ValueError(f"it says that {min(unknown)!r:.200} is frozen, which is no parameter")
    set_trained(model, {each for name, each in parameters.items() if name not in names})


def check_outputs(config: Mapping[str, Any], outputs: int) -> None:
    """Check that the loss and the calibrator match the number of outputs.

    Args:
        config: a validated configuration.
        outputs: number of outputs of the network.

    Raises:
        ValueError: they do not match.
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


def ensemble_of(config: Mapping[str, Any], network: nn.Module, members: int) -> Ensemble:
    """Return an ensemble of a validated description; the random state is as before.

    Raises:
        ValueError: the network does not allow it.
    """
    options = {**config["options"]}
    for name, value in options.items():
        if isinstance(value, list):
            options[name] = list(dict.fromkeys(value))
    if isinstance(options.get("init"), dict):
        [(kind, widths)] = options["init"].items()
        options["init"] = (feature_signs if kind == "feature_signs" else feature_normals)(widths)
    method = METHODS[config["method"]]
    with torch.random.fork_rng([]), warnings.catch_warnings():
        # Initial values are overwritten anyway.
        warnings.filterwarnings("ignore", message=".*has no reset_parameters")
        try:
            return method.build(network, members, **options, **method.unstarted)
        except (ValueError, TypeError, RuntimeError, OverflowError) as error:
            raise ValueError(f"it cannot be made from this network: {error}") from error


def _check_size(
    config: Mapping[str, Any], network: nn.Module, entries: Mapping[str, TensorEntry]
) -> None:
    """Check the total size of many members before building them.

    It is extrapolated from one and two members.
    """
    one, two = (_numbers_of(ensemble_of(config, network, members)) for members in (1, 2))
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
    """Replace a tensor of a model by another, wherever it is held."""
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


def _shape_text(shape: list[int] | None) -> str:
    return "not there" if shape is None else str(shape)


def _type_text(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _holds(ours: torch.dtype, theirs: torch.dtype) -> bool:
    return ours == theirs or (ours in FLOATS and theirs in FLOATS)
