"""``from_pretrained``: a model or an adapter from a folder, or by its name on the Hub."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from batchensemble.ensembles import Ensemble
from batchensemble.ensembles.saving.adapters import ADAPTER, load_adapter
from batchensemble.ensembles.saving.config import CONFIG
from batchensemble.ensembles.saving.folder import load
from batchensemble.ensembles.saving.hub import download, is_hub_name
from batchensemble.ensembles.saving.trust import Trust, packages_of


def from_pretrained(
    folder_or_name: str | Path,
    network: nn.Module | None = None,
    *,
    trust: Trust = False,
    revision: str | None = None,
    device: str | torch.device | None = None,
    token: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Ensemble:
    """Return a saved ensemble: of a folder, or of the Hugging Face Hub by its name.

    An existing folder is read, and nothing is looked up; another text that can be a name is looked
    up on the Hub. Only the files that :meth:`~batchensemble.Ensemble.save_pretrained` writes are
    downloaded. They are checked as :func:`batchensemble.load` and
    :func:`batchensemble.load_adapter` check them: nothing that they name is imported, unless it is
    trusted.

    Args:
        folder_or_name: a folder that ``save_pretrained``, ``save`` or ``save_adapter`` wrote, or a
            name such as ``"ann/moons"``. A ``Path`` is a folder.
        network: for a model, a plain network of the same architecture, where the folder does not
            say how to build it; for an adapter, the pretrained network, with its weights.
        trust: what may be imported to build the network if a model names a function, see
            :func:`batchensemble.load`; by default nothing.
        revision: branch, tag or commit on the Hub; by default the main branch.
        device: of the model; by default that of ``network``, or the CPU.
        token: for models that not everyone may read; by default the one that is logged in.
        cache_dir: where downloads are kept; by default the cache of the Hub.
        local_files_only: whether to take what was downloaded before, without a connection.

    Raises:
        FileNotFoundError: there is neither such a folder nor such a model on the Hub, or neither a
            model nor an adapter in it.
        ValueError: the model is damaged, does not fit the network or needs one, or ``revision`` is
            given for a folder.
        ImportError: ``huggingface_hub`` is not installed, and the model is in no folder.

    Example:
        >>> import tempfile
        >>> from batchensemble import BatchEnsemble
        >>> model = BatchEnsemble(nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3)), 4)
        >>> from_pretrained(model.save_pretrained(tempfile.mkdtemp())).members
        4
    """
    packages_of(trust)
    folder = find_folder(
        folder_or_name,
        revision=revision,
        token=token,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
    )
    if not holds_adapter(folder, str(folder_or_name)):
        return load(folder, network=network, trust=trust, device=device)
    if network is None:
        raise ValueError(
            f"{folder_or_name} holds an adapter, which is what was trained of a pretrained "
            "network: give that network, with its weights, as network="
        )
    return load_adapter(folder, network, device=device)


def find_folder(
    folder_or_name: str | Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """Return an existing folder, or one with what was downloaded from the Hub.

    Args:
        folder_or_name: see :func:`from_pretrained`; so are the others.
        revision: branch, tag or commit on the Hub.
        token: for models that not everyone may read.
        cache_dir: where downloads are kept.
        local_files_only: whether to take what was downloaded before.

    Raises:
        FileNotFoundError: there is neither.
        ValueError: ``revision`` is given for a folder, or it is a file.
        ImportError: ``huggingface_hub`` is not installed, and there is no such folder.
    """
    folder = Path(folder_or_name)
    if folder.is_dir():
        if revision is not None:
            raise ValueError(
                f"revision is of models on the Hugging Face Hub, and {folder_or_name} is a folder "
                "here; leave one of them out"
            )
        return folder
    if folder.exists():
        raise ValueError(f"{folder_or_name} is a file; give the folder that it is in")
    if isinstance(folder_or_name, Path) or not is_hub_name(folder_or_name):
        raise FileNotFoundError(
            f"there is no folder {folder_or_name}, and no such name on the Hugging Face Hub, where "
            "models have names such as 'ann/moons'"
        )
    return download(
        folder_or_name,
        revision=revision,
        token=token,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
    )


def holds_adapter(folder: Path, where: str) -> bool:
    """Tell whether a folder holds an adapter; otherwise it holds a model.

    Args:
        folder: a folder.
        where: what errors call it.

    Raises:
        FileNotFoundError: it holds neither.
        ValueError: it holds both.
    """
    adapter, model = (folder / ADAPTER).exists(), (folder / CONFIG).exists()
    if adapter and model:
        raise ValueError(
            f"{where} holds a model ({CONFIG}) and an adapter ({ADAPTER}); read one of them by "
            "batchensemble.load or load_adapter"
        )
    if not adapter and not model:
        raise FileNotFoundError(
            f"there is neither a model ({CONFIG}) nor an adapter ({ADAPTER}) in {where}"
        )
    return adapter
