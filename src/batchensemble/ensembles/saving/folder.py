"""``save`` and ``load`` an ensemble as a folder of safetensors and JSON, without pickles."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as bytes_of
from torch import Tensor, nn

from batchensemble.core.atomic_files import write_whole
from batchensemble.core.strict_json import MOST_BYTES, parse_json
from batchensemble.ensembles import METHODS, Ensemble
from batchensemble.ensembles.checks import check_ensemble
from batchensemble.ensembles.choice import Choice
from batchensemble.ensembles.methods import method_of
from batchensemble.ensembles.saving.architectures import network_on_meta, outputs_of, record_of
from batchensemble.ensembles.saving.config import (
    CONFIG,
    CONFIG_FORMAT,
    SELECTORS,
    check_config,
    read_config,
)
from batchensemble.ensembles.saving.rebuilding import (
    check_outputs,
    check_tensors,
    device_of,
    freeze_parameters,
    load_tensors,
    must_be_finite,
    on_meta,
    without_values,
)
from batchensemble.ensembles.saving.tensor_file import TensorFile
from batchensemble.ensembles.saving.trust import Trust, packages_of, trusted_network
from batchensemble.layers.rank_one.initialisation import FeatureDraws
from batchensemble.losses import from_dict, to_dict

WEIGHTS = "model.safetensors"
SMALL = 2**30  # bytes; smaller files are read again to distinguish damage from another network


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
    tensors, tied = _weights(model)
    _check_finite(model)
    content = bytes_of(tensors)
    parameters = model.named_parameters(remove_duplicate=False)
    config = {
        "format": CONFIG_FORMAT,
        "method": _method(model),
        "members": model.members,
        "options": _options(model),
        "network": _source(model, network),
        "training": model.training,
        "calibration": None if model.calibrator is None else model.calibrator.settings(),
        "loss": None if model.loss is None else to_dict(model.loss),
        "trained_on": model.trained_on,
        "choice": None if model.choice is None else model.choice.as_json(),
        "feature_names": model.feature_names,
        "feature_scaling": None if model.feature_names is None else model.feature_scaling,
        "encoding": model.encoding,
        "target_names": model.target_names,
        "class_names": model.class_names,
        "tied": tied,
        "frozen": [name for name, each in parameters if not each.requires_grad],
        "data": None if data is None else dict(data),
        "versions": versions(),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    text = json.dumps(config, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    if len(text) > MOST_BYTES:
        raise ValueError(f"{CONFIG} can have {MOST_BYTES:,} bytes, got {len(text):,}; shorten data")
    try:
        check_config(parse_json(text, CONFIG), Path(CONFIG))
    except ValueError as error:
        raise ValueError(f"load would refuse what is to be saved: {error}") from None
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
                raise _damaged(file.path) from None
            raise ValueError(f"the model in {folder} cannot be loaded: {error}") from error
        del plain  # which may be as large as what is read
        wrong = load_tensors(
            model, file, config["tied"], where if device is None else _device(device)
        )
        if file.sha256() != config["sha256"]:
            raise _damaged(file.path)
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
    if model.calibrator is not None:
        model.calibrator.check()
    if "frozen" in config:
        freeze_parameters(model, config["frozen"])
    model.train(config["training"])
    if config.get("loss") is not None:
        model.loss = from_dict(config["loss"])
    model.trained_on = config.get("trained_on")
    if config.get("choice") is not None:
        model.choice = Choice.from_json(config["choice"])
    for name in ("feature_names", "target_names", "class_names"):
        if config.get(name) is not None:
            setattr(model, name, tuple(config[name]))
    _tell_scaling(model, config)
    model.encoding = config.get("encoding")
    return model if device is None else model.to(device)


def _tell_scaling(model: Ensemble, config: Mapping[str, Any]) -> None:
    """Set the means and deviations that the model's columns are standardised by."""
    given, data = config.get("feature_scaling"), config.get("data") or {}
    if given is None and "feature_scaling" not in config and data.get("mean"):
        # Earlier versions stored it in ``data``, for the commands only.
        given = data["mean"], data["scale"]
        model.feature_names = tuple(data["feature_names"])
    if given is not None:
        model.feature_scaling = tuple(given[0]), tuple(given[1])


def versions() -> dict[str, str]:
    """Return the versions of this package, torch and Python."""
    return {
        "batchensemble": version("batchensemble"),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _method(model: Ensemble) -> str:
    method = method_of(model)
    if method is None:
        raise ValueError(
            f"save knows the methods {', '.join(METHODS)}, got a {type(model).__name__}; save its "
            "state_dict()"
        )
    return method.name


def _options(model: Ensemble) -> dict[str, Any]:
    for argument in SELECTORS:
        if "" in (model.options.get(argument) or ()):
            raise ValueError(
                f"{argument} was given a class or function that selects the network itself, which "
                "has no name to save; name its modules"
            )
    init = model.options.get("init")
    if isinstance(init, FeatureDraws):
        return {**model.options, "init": {f"feature_{init.draw}": list(init.widths)}}
    if callable(init):  # what it filled is in the weights
        return {**model.options, "init": None}
    return model.options


def _source(model: Ensemble, network: str | None) -> dict[str, Any] | None:
    """Return how to build the plain network, if that is known."""
    if network is not None:
        return {"function": network}
    with torch.random.fork_rng([]):
        return record_of(model.member(0))


def _weights(model: Ensemble) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the weights by name, tied ones once, and the names tied to them."""
    tensors: dict[str, Tensor] = {}
    names: dict[int, str] = {}
    tied = {}
    state = model.state_dict(keep_vars=True)
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise ValueError(
                f"{name} is a {type(value).__name__}, and only tensors can be saved; keep it in a "
                "buffer, or save it yourself"
            )
        if id(value) in names:
            tied[name] = names[id(value)]
            continue
        names[id(value)] = name
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
    return tensors, tied


def _check_finite(model: Ensemble) -> None:
    """Check that all weights are finite, as :func:`load` requires.

    Raises:
        ValueError: a weight is NaN or infinite.
    """
    for name, value in model.state_dict(keep_vars=True).items():
        if must_be_finite(name, value) and not value.isfinite().all():
            found = float(value.detach()[~value.isfinite()][0])
            raise ValueError(
                f"the model's weights must be finite to be saved, got {found:g} in {name}: its "
                "training diverged; go back to a checkpoint, or train it with a lower lr"
            )


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
    return without_values(config, made, file.entries), where


def _device(device: str | torch.device) -> torch.device:
    """Return an available device.

    Raises:
        ValueError: it is not available.
    """
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device must be available, got {device!r}: {reason}") from None


def _damaged(path: Path) -> ValueError:
    return ValueError(
        f"{path} is damaged, or not of the same save as {CONFIG} beside it; save it again"
    )
