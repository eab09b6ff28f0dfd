"""``save_adapter`` and ``load_adapter``: of an adapted network only what was trained."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as bytes_of
from torch import Tensor, nn

from batchensemble.core.atomic_files import write_whole
from batchensemble.ensembles import Ensemble
from batchensemble.ensembles.base_weights import BaseWeights
from batchensemble.ensembles.calibrators import empty_calibrator
from batchensemble.ensembles.checks import check_ensemble
from batchensemble.ensembles.conversion.checks import check_network
from batchensemble.ensembles.conversion.parameter_groups import is_head
from batchensemble.ensembles.freezing import set_trained
from batchensemble.ensembles.saving.config import read_config
from batchensemble.ensembles.saving.description import description_of, json_of, restore
from batchensemble.ensembles.saving.rebuilding import (
    FEW_MEMBERS,
    check_entry,
    check_tied,
    device_named,
    device_of,
    ensemble_of,
    load_tensors,
    on_meta,
)
from batchensemble.ensembles.saving.tensor_file import TensorFile
from batchensemble.ensembles.saving.weights import SMALL, check_all_finite, damaged, tensors_of
from batchensemble.layers import OneByOne, Twin

ADAPTER = "adapter.json"
ADAPTER_WEIGHTS = "adapter.safetensors"


def save_adapter(
    model: Ensemble, folder: str | Path, *, data: Mapping[str, Any] | None = None
) -> Path:
    """Write what was trained of an adapted network: ``adapter.safetensors`` and ``adapter.json``.

    That is what the members own, other weights that train or have trained, and buffers that
    changed; of the base there is only the SHA-256, which :func:`load_adapter` compares. Files are
    written atomically. The loss, the calibrator and the names of classes and columns are stored,
    too.

    Args:
        model: an ensemble that :func:`batchensemble.adapt` or :func:`load_adapter` made.
        folder: created if it does not exist; other files in it are kept.
        data: further information to store, as JSON can hold it; by default none.

    Returns:
        The folder.

    Raises:
        TypeError: ``model`` is not an ensemble.
        ValueError: it was not adapted, its frozen weights have another type than then, or a weight
            is not finite.
        OSError: the folder cannot be written; existing files are unchanged.

    Example:
        >>> import tempfile
        >>> from batchensemble import adapt
        >>> net = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> model = adapt(net, members=4, heads=["2"])
        >>> load_adapter(save_adapter(model, tempfile.mkdtemp()), net).members
        4
    """
    check_ensemble(model)
    if model.base is None:
        raise ValueError(
            "save_adapter takes an ensemble that batchensemble.adapt made of a pretrained network, "
            f"got a {type(model).__name__} of another origin; save it by batchensemble.save"
        )
    folder = Path(folder)
    check_all_finite(model)
    tensors, tied = tensors_of(model, _changed(model, model.base))
    content = bytes_of(tensors)
    stored = {*tensors, *tied}
    parameters = model.named_parameters(remove_duplicate=False)
    config = {
        **description_of(model, None, data),
        "network": None,
        "base": {"sha256": model.base.sha256, "types": list(model.base.types)},
        "tied": tied,
        "frozen": [name for name, each in parameters if name in stored and not each.requires_grad],
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    text = json_of(config, ADAPTER)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / ADAPTER_WEIGHTS, content)
    write_whole(folder / ADAPTER, text)
    return folder


def load_adapter(
    folder: str | Path, network: nn.Module, *, device: str | torch.device | None = None
) -> Ensemble:
    """Read what :func:`save_adapter` wrote, on the network that it was adapted from.

    Folders from untrusted sources may be loaded: nothing that a folder names is imported, and all
    values are checked before memory is allocated.

    Args:
        folder: the folder given to :func:`save_adapter`.
        network: the pretrained network; it is copied. Its weights must be those of the base, but
            for heads, which the adapter holds.
        device: device of the model; by default that of ``network``.

    Raises:
        TypeError: ``network`` is not a module.
        FileNotFoundError: there is no adapter in the folder.
        ValueError: it is damaged, or the network has another architecture or other weights; the
            message says which.
    """
    folder = Path(folder)
    check_network(network)
    config = _read(folder)
    if not (folder / ADAPTER_WEIGHTS).exists():
        raise FileNotFoundError(f"there is no adapter in {folder}: it has no {ADAPTER_WEIGHTS}")
    with TensorFile(folder / ADAPTER_WEIGHTS) as file:
        try:
            _check_against(config, network, file)
        except ValueError as error:
            if file.bytes < SMALL and file.sha256_of_rest() != config["sha256"]:
                raise damaged(file.path, ADAPTER) from None
            raise ValueError(f"the adapter in {folder} cannot be loaded: {error}") from error
        base = BaseWeights.of(network, config["options"].get("independent", ()))
        _check_base(folder, config["base"], base)
        model = _with_calibrator(config, ensemble_of(config, network, config["members"]))
        names = {name for name in (*file.entries, *config["tied"]) if name not in config["frozen"]}
        where = device_of(network)
        wrong = load_tensors(model, file, config["tied"], where)
        if file.sha256() != config["sha256"]:
            raise damaged(file.path, ADAPTER)
    if wrong:
        raise ValueError(f"the weights of the adapter in {folder} are not finite: {wrong}")
    parameters = model.named_parameters(remove_duplicate=False)
    set_trained(model, {each for name, each in parameters if name in names})
    model.base = base
    restore(model, config)
    return model if device is None else model.to(device_named(device))


def _changed(model: Ensemble, base: BaseWeights) -> set[str]:
    """Return the names of the tensors that are not the base's: what an adapter must hold."""
    drawn, owned = _drawn(model), _owned(model)
    one_by_one = [name for name, each in model.named_modules() if isinstance(each, OneByOne)]
    inner = sorted((f"{name}.module." for name in one_by_one), key=len, reverse=True)
    changed = set()
    for name, value in model.state_dict(keep_vars=True).items():
        trains = isinstance(value, Tensor) and value.requires_grad
        if trains or name in drawn or not isinstance(value, Tensor):
            changed.add(name)
            continue
        plain = name
        for each in inner:
            if plain.startswith(each):
                plain = each.removesuffix("module.") + plain.removeprefix(each)
        plain = plain.removeprefix("network.")
        parts = value.unbind() if name in owned else [value]
        if not all(base.has(plain, part) for part in parts):
            changed.add(name)
            _check_type(name, value, base)
    return changed


def _check_type(name: str, value: Tensor, base: BaseWeights) -> None:
    found = str(value.dtype).removeprefix("torch.")
    if value.is_floating_point() and base.types and found not in base.types:
        raise ValueError(
            f"the frozen weights of {name} are {found}, and were {', '.join(base.types)} when the "
            "network was adapted, so the adapter would hold all of them; convert the network "
            "before batchensemble.adapt"
        )


def _drawn(model: Ensemble) -> set[str]:
    """Return the names of the tensors that no base has: fast weights, heads and a calibrator."""
    names = {name for name in model.state_dict() if not name.startswith("network")}
    for path, module in model.named_modules():
        if is_head(module):
            names |= {f"{path}.{name}" for name in module.state_dict()}
        elif isinstance(module, Twin):
            roles = module.roles()
            names |= {f"{path}.{name}" for name in module.own if roles.get(name) == "fast"}
    return names


def _owned(model: Ensemble) -> set[str]:
    """Return the names of the tensors whose first axis is the members."""
    return {
        f"{path}.{name}"
        for path, module in model.named_modules()
        if isinstance(module, Twin)
        for name in module.own
    }


def _read(folder: Path) -> dict[str, Any]:
    """Return the validated description of an adapter.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, or another format.
    """
    config = read_config(folder, ADAPTER)
    base = config.get("base")
    fitting = (
        config["method"] == "batch"
        and config["network"] is None
        and isinstance(config.get("frozen"), list)
        and isinstance(base, dict)
        and set(base) == {"sha256", "types"}
        and isinstance(base["sha256"], str)
        and isinstance(base["types"], list)
        and all(isinstance(each, str) and len(each) < 32 for each in base["types"])
    )
    if not fitting:
        raise ValueError(
            f"{folder / ADAPTER} is no adapter's: it must be of the method 'batch' and say its "
            "base's SHA-256 and types; it is damaged, save the adapter again"
        )
    return config


def _check_base(folder: Path, expected: Mapping[str, Any], found: BaseWeights) -> None:
    if expected["sha256"] == found.sha256:
        return
    types = ""
    if tuple(expected["types"]) != found.types:
        types = f" Its types are {', '.join(found.types)}, not {', '.join(expected['types'])}."
    raise ValueError(
        f"the adapter in {folder} was trained on other weights than those of the network given: "
        f"SHA-256 {expected['sha256'][:16]!r}... expected, {found.sha256[:16]!r}... found.{types} "
        "Load the pretrained weights that it was adapted from into the network, and nothing else"
    )


def _check_against(config: Mapping[str, Any], network: nn.Module, file: TensorFile) -> None:
    """Check that a file holds what an adapter of a network needs, before memory is allocated.

    Raises:
        ValueError: it does not; the message says how.
    """
    hollow = network if device_of(network) is None else on_meta(network)
    members = config["members"]
    if members > FEW_MEMBERS:
        _check_size(config, hollow, file)
    model = _with_calibrator(config, ensemble_of(config, hollow, members))
    state, tied = model.state_dict(keep_vars=True), config["tied"]
    check_tied(file.entries, tied)
    for name in (*file.entries, *tied):
        check_entry(name, state.get(name), file.entries[tied.get(name, name)])
    missing = sorted(_drawn(model) - {*file.entries, *tied})
    if missing:
        raise ValueError(f"it has no {missing[0]!r:.200}, which is each member's own")
    unknown = {*config["frozen"]} - {*file.entries, *tied}
    if unknown:
        raise ValueError(f"it says that {min(unknown)!r:.200} is frozen, which it does not hold")


def _check_size(config: Mapping[str, Any], network: nn.Module, file: TensorFile) -> None:
    """Check the size of what many members own before they are built, from one and two of them."""
    one, two = (_own_numbers(ensemble_of(config, network, members)) for members in (1, 2))
    expected = one + (config["members"] - 1) * (two - one)
    found = sum(torch.Size(each.shape).numel() for each in file.entries.values())
    if found < expected:
        raise ValueError(
            f"{config['members']:,} members of this network own at least {expected:,} numbers, and "
            f"the adapter has {found:,}"
        )


def _own_numbers(model: Ensemble) -> int:
    drawn, state = _drawn(model), model.state_dict()
    return sum(state[name].numel() for name in drawn if name.startswith("network"))


def _with_calibrator(config: Mapping[str, Any], model: Ensemble) -> Ensemble:
    if config.get("calibration") is not None:
        model.attach(empty_calibrator(config["calibration"], "meta"))
    return model
