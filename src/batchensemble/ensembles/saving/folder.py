"""``save`` and ``load`` an ensemble as a folder of safetensors and JSON, without pickles."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as bytes_of
from torch import nn

from batchensemble.core.atomic_files import write_whole
from batchensemble.ensembles import Ensemble
from batchensemble.ensembles.checks import check_ensemble
from batchensemble.ensembles.conversion.copies import copied
from batchensemble.ensembles.saving.architectures import network_on_meta, outputs_of
from batchensemble.ensembles.saving.config import CONFIG, read_config
from batchensemble.ensembles.saving.description import description_of, json_of, restore, versions
from batchensemble.ensembles.saving.rebuilding import (
    check_outputs,
    check_tensors,
    device_named,
    device_of,
    freeze_parameters,
    load_tensors,
    on_meta,
    without_values,
)
from batchensemble.ensembles.saving.tensor_file import TensorFile
from batchensemble.ensembles.saving.trust import Trust, packages_of, trusted_network
from batchensemble.ensembles.saving.weights import SMALL, check_all_finite, damaged, tensors_of
from batchensemble.ensembles.widening import last_layer, widen_outputs
from batchensemble.losses import Distilled, from_dict

__all__ = ["WEIGHTS", "load", "save", "versions"]

WEIGHTS = "model.safetensors"


def save(
    model: Ensemble,
    folder: str | Path,
    *,
    network: str | None = None,
    data: Mapping[str, Any] | None = None,
) -> Path:
    """Write an ensemble to a folder: ``model.safetensors`` and ``config.json``.

    Files are written atomically: under another name, synced, then renamed. The configuration holds
    the method, the number of members, all options of conversion, and how to build the plain
    network, if that is known: multilayer perceptrons with ReLU and networks of tables
    (:class:`~batchensemble.ensembles.table_network.TableNetwork`) are recognised, for others give
    ``network``.

    Args:
        model: an ensemble of one of the package's methods.
        folder: created if it does not exist; other files in it are kept.
        network: function that builds the plain network without arguments, as
            ``"package.module:function"``. :func:`load` then calls it if the user trusts it; by
            default :func:`load` needs the network as an argument.
        data: further information to store with the model, as JSON can hold it, such as the names of
            classes; by default none.

    In distributed training one process is enough, since all have the same weights; if several save,
    the files are still complete.

    Returns:
        The folder.

    Raises:
        TypeError: ``model`` is not an ensemble.
        ValueError: the ensemble is not of one of the package's methods, has state other than
            tensors or weights that are not finite, a function selected the whole network, or
            :func:`load` would refuse the result.
        OSError: the folder cannot be written; existing files are unchanged.

    Example:
        >>> import tempfile
        >>> from batchensemble import BatchEnsemble
        >>> model = BatchEnsemble(nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3)), 4)
        >>> load(save(model, tempfile.mkdtemp())).members
        4
    """
    check_ensemble(model)
    folder = Path(folder)
    tensors, tied = tensors_of(model)
    check_all_finite(model)
    content = bytes_of(tensors)
    parameters = [*model.named_parameters(remove_duplicate=False)]
    config = description_of(model, network, data)
    config["tied"] = tied
    config["frozen"] = [name for name, each in parameters if not each.requires_grad]
    config["sha256"] = hashlib.sha256(content).hexdigest()
    text = json_of(config, CONFIG)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / WEIGHTS, content)
    write_whole(folder / CONFIG, text)
    return folder


def load(
    folder: str | Path,
    *,
    network: nn.Module | None = None,
    trust: Trust = False,
    device: str | torch.device | None = None,
) -> Ensemble:
    """Read an ensemble that :func:`save` wrote.

    Its weights are restored bit by bit with their types, and its training mode, too.

    Folders from untrusted sources may be loaded: nothing that a folder names is imported unless you
    trust it, and all values are checked before memory is allocated, which is at most the size of
    the file. Loading does not say how well a model predicts.

    Args:
        folder: the folder given to :func:`save`.
        network: a plain network of the same architecture, which is not changed; required unless the
            folder says how to build one. Its weights do not matter.
        trust: what may be imported to build the network if the folder names a function. ``True``:
            any installed package; a list: these packages only, such as ``["torchvision"]``;
            ``False`` (default): nothing. Never modules in the working directory.
        device: device of the model; by default that of ``network``, or the CPU.

    Raises:
        FileNotFoundError: there is no model in the folder.
        ValueError: it is damaged, has another format, network or number of members, weights that
            are not finite, or names a function that is not trusted; the message says which.
        ImportError: the module of the network cannot be imported.
    """
    folder = Path(folder)
    packages_of(trust)
    config = read_config(folder)
    if not (folder / WEIGHTS).exists():
        raise FileNotFoundError(f"there is no model in {folder}: it has no {WEIGHTS}")
    plain = _network_of(folder, config["network"], network, trust)
    with TensorFile(folder / WEIGHTS) as file:
        try:
            model, where = _without_memory(config, plain, file)
            check_tensors(model, file.entries, config["tied"])
        except ValueError as error:
            if file.bytes < SMALL and file.sha256_of_rest() != config["sha256"]:
                raise damaged(file.path, CONFIG) from None
            raise ValueError(f"the model in {folder} cannot be loaded: {error}") from error
        del plain  # which may be as large as what is read
        wrong = load_tensors(
            model, file, config["tied"], where if device is None else device_named(device)
        )
        if file.sha256() != config["sha256"]:
            raise damaged(file.path, CONFIG)
    if wrong:
        raise ValueError(
            f"the weights of the model in {folder} are not finite: {wrong}; save one whose "
            "training did not diverge"
        )
    left = next((name for name, value in model.named_buffers() if value.is_meta), None)
    if left is not None:
        raise ValueError(
            f"{left} of the network given is on the device meta, and the folder does not hold it; "
            "give a network with its numbers"
        )
    if "frozen" in config:
        freeze_parameters(model, config["frozen"])
    restore(model, config)
    return model if device is None else model.to(device)


def _network_of(
    folder: Path, source: dict[str, Any] | None, network: nn.Module | None, trust: Trust
) -> nn.Module | None:
    """Return the user's network or that of a trusted function; ``None`` for one of numbers.

    The random state is preserved.
    """
    if network is not None:
        return network
    if source is None:
        raise ValueError(
            f"{folder} does not say how to build its network; give it as network=, or save the "
            'model with network="package.module:function"'
        )
    if "function" not in source:
        return None
    with torch.random.fork_rng([]):
        return trusted_network(folder, source["function"], trust)


def _with_outputs(config: dict[str, Any], network: nn.Module, file: TensorFile) -> nn.Module:
    """Return the network of a distilled model with its outputs for the uncertainty, too."""
    loss = None if config.get("loss") is None else from_dict(config["loss"])
    if not isinstance(getattr(loss, "loss", loss), Distilled):
        return network
    try:
        name, layer = last_layer(network)
    except ValueError:
        return network  # which then had all outputs when it was distilled
    entry = file.entries.get(f"network.{name}.weight" if name else "network.weight")
    shape = tuple(layer.weight.shape)
    if entry is None or entry.shape[1:] != shape[1:] or entry.shape[0] <= shape[0]:
        return network
    network = copied(network)
    widen_outputs(network, entry.shape[0] - shape[0])
    return network


def _without_memory(
    config: dict[str, Any], network: nn.Module | None, file: TensorFile
) -> tuple[Ensemble, torch.device | None]:
    """Return the ensemble without memory for its weights, and the device of these.

    A network on several devices keeps its weights.
    """
    if network is None:
        check_outputs(config, outputs_of(config["network"]))
        made = network_on_meta(config["network"], len(file.entries) + len(config["tied"]))
        return without_values(config, made, file.entries), torch.device("cpu")
    where = device_of(network)
    made = network if where is None else on_meta(network)
    made = _with_outputs(config, made, file)
    return without_values(config, made, file.entries), where
