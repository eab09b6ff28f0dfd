"""``save`` and ``load``: an ensemble as a folder of safetensors and JSON, never a pickle."""

from __future__ import annotations

import hashlib
import json
import platform
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_of
from safetensors.torch import save as bytes_of
from torch import Tensor, nn

from batchensemble.admission import check_ensemble
from batchensemble.calibration.calibrators import empty
from batchensemble.disk import write_whole
from batchensemble.ensembles import METHODS, Ensemble
from batchensemble.inspection import find_network
from batchensemble.losses import as_dict, from_dict
from batchensemble.networks import multilayer_perceptron, widths_of

FORMAT = 1
WEIGHTS = "model.safetensors"
CONFIG = "config.json"
SELECTORS = ("include", "independent", "exclude", "one_by_one")


def save(
    model: Ensemble,
    folder: str | Path,
    *,
    network: str | None = None,
    data: Mapping[str, Any] | None = None,
) -> Path:
    """Write an ensemble to a folder: ``model.safetensors`` and ``config.json``.

    Each file is written under another name, synced and renamed. The configuration holds the method,
    the number of members, all options of conversion, and how the plain network is made, if that is
    known: linear layers with ReLU between are recognised, else give ``network``.

    Args:
        model: an ensemble of one of the package's methods.
        folder: made if it is not there; other files in it stay.
        network: ``"package.module:function"``, which makes the plain network without arguments;
            without it :func:`load` asks for the network.
        data: what else the model is to be used with, as JSON can hold it, such as names of classes.

    Returns:
        The folder.

    Raises:
        TypeError: ``model`` is no ensemble.
        ValueError: it is not of the package's methods, holds state that is no tensor, or a function
            selected the whole network.
        OSError: nothing can be written there; what was there stays.

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
    content = bytes_of(tensors)
    config = {
        "format": FORMAT,
        "method": _method(model),
        "members": model.members,
        "options": _options(model),
        "network": _source(model, network),
        "training": model.training,
        "calibration": None if model.calibrator is None else model.calibrator.settings(),
        "loss": None if model.loss is None else as_dict(model.loss),
        "trained_on": model.trained_on,
        "tied": tied,
        "data": None if data is None else dict(data),
        "versions": versions(),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    text = json.dumps(config, indent=1, ensure_ascii=False, allow_nan=False)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / WEIGHTS, content)
    write_whole(folder / CONFIG, text.encode() + b"\n")
    return folder


def load(
    folder: str | Path,
    *,
    network: nn.Module | None = None,
    device: str | torch.device | None = None,
) -> Ensemble:
    """Read an ensemble that :func:`save` wrote.

    Its weights have the bits and types that they had, and its mode is the one it had. A path
    ``package.module:function`` in the folder is imported, so load only folders that you trust as
    far as the modules you have installed.

    Args:
        folder: what :func:`save` was given.
        network: a plain network of the same architecture, which stays as it is; needed where the
            folder does not say how to make one. Its weights do not matter.
        device: where to; by default the network's own device, a CPU where the folder makes it.

    Raises:
        FileNotFoundError: there is no model in the folder.
        ValueError: it is damaged, of another format, network or number of members; the sentence
            says what differs.
        ImportError: the network's module is not to be found.
    """
    folder = Path(folder)
    config = read_config(folder)
    tensors = _read_weights(folder, config)
    model = _untrained(folder, config, network)
    if config.get("calibration") is not None:
        model.attach(empty(config["calibration"]))
    for name, other in config["tied"].items():
        tensors[name] = tensors[other]
    _fill(folder, model, tensors)
    model.train(config["training"])
    if config.get("loss") is not None:
        model.loss = from_dict(config["loss"])
    model.trained_on = config.get("trained_on")
    return model if device is None else model.to(device)


def read_config(folder: str | Path) -> dict[str, Any]:
    """Return the configuration of a saved ensemble: all but its weights.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, or of another format.
    """
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"there is no model in {folder}: it has no {CONFIG}")
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        written = config["format"]
        by = config["versions"]["batchensemble"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged or no model's: {error!r}; save it again") from None
    if written != FORMAT:
        raise ValueError(
            f"{path} is of format {written}, written by batchensemble {by}, and this is "
            f"batchensemble {version('batchensemble')}, which reads format {FORMAT}; read it with "
            f"the version that wrote it"
        )
    missing = [key for key in ("method", "members", "options", "sha256") if key not in config]
    if missing or config["method"] not in METHODS:
        what = f"has no {missing[0]}" if missing else f"has the method {config['method']!r}"
        raise ValueError(f"{path} {what}; known methods are {', '.join(METHODS)}")
    return config


def versions() -> dict[str, str]:
    """Return the versions that a saved model depends on."""
    return {
        "batchensemble": version("batchensemble"),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _method(model: Ensemble) -> str:
    for name, kind in METHODS.items():
        if type(model) is kind:
            return name
    raise ValueError(
        f"save knows the methods {', '.join(METHODS)}, got a {type(model).__name__}; save its "
        "state_dict()"
    )


def _options(model: Ensemble) -> dict[str, Any]:
    for argument in SELECTORS:
        if "" in (model.options.get(argument) or ()):
            raise ValueError(
                f"{argument} was given a class or function that selects the network itself, which "
                "has no name to save; name its modules"
            )
    return model.options


def _source(model: Ensemble, network: str | None) -> dict[str, Any] | None:
    """Return how the plain network is made, if it is known."""
    if network is not None:
        return {"function": network}
    with torch.random.fork_rng([]):
        widths = widths_of(model.member(0))
    return None if widths is None else {"mlp": widths}


def _weights(model: Ensemble) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the weights by name, one under two names once, and the other names."""
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


def _read_weights(folder: Path, config: dict[str, Any]) -> dict[str, Tensor]:
    path = folder / WEIGHTS
    if not path.is_file():
        raise FileNotFoundError(f"there is no model in {folder}: it has no {WEIGHTS}")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != config["sha256"]:
        raise ValueError(
            f"{path} is damaged, or not of the same save as {CONFIG} beside it; save it again"
        )
    try:
        return tensors_of(content)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def _untrained(folder: Path, config: dict[str, Any], network: nn.Module | None) -> Ensemble:
    """Return an ensemble of the folder's kind; the caller's random state stays as it is."""
    options = {**config["options"]}
    if config["method"] == "deep":
        options["reset"] = _as_it_is
    with torch.random.fork_rng([]), warnings.catch_warnings():
        # What starts equal is overwritten anyway.
        warnings.filterwarnings("ignore", message=".*has no reset_parameters")
        if network is None:
            network = _made(folder, config["network"])
        kind: Any = METHODS[config["method"]]
        try:
            if config["method"] == "single":
                return kind(network, **options)
            return kind(network, config["members"], **options)
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"the model in {folder} cannot be made from this network: {error}"
            ) from error


def _as_it_is(network: nn.Module) -> None:
    """Draw nothing: the weights are read."""


def _made(folder: Path, source: dict[str, Any] | None) -> nn.Module:
    if source is None:
        raise ValueError(
            f"{folder} does not say how its network is made; give it as network=, or save the "
            'model with network="package.module:function"'
        )
    if "function" in source:
        return find_network(source["function"])
    widths = source["mlp"]
    return multilayer_perceptron(widths[0], widths[1:-1], widths[-1])


def _fill(folder: Path, model: Ensemble, tensors: dict[str, Tensor]) -> None:
    """Put the weights in, as the types that they were saved as."""
    state = model.state_dict(keep_vars=True)
    for name in [*state, *tensors]:
        here, there = (_shape(each.get(name)) for each in (state, tensors))
        if here != there:
            raise ValueError(
                f"the model in {folder} is of another network or number of members: its {name} is "
                f"{there}, and that of the network given is {here}; give the network that it was "
                "made from"
            )
    for name, value in state.items():
        # Not assigned: a weight under two names stays one.
        value.data = value.data.to(tensors[name].dtype)
    model.load_state_dict(tensors)


def _shape(value: Tensor | None) -> str:
    return "not there" if value is None else str(list(value.shape))
