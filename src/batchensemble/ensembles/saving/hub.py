"""Folders of models on the Hugging Face Hub: which of their files go there and come from there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from batchensemble.ensembles.saving.adapters import ADAPTER, ADAPTER_WEIGHTS
from batchensemble.ensembles.saving.config import CONFIG
from batchensemble.ensembles.saving.folder import WEIGHTS

CARD = "README.md"  # as the Hub calls it
# All that a model's folder needs, none of which is code. Settings of a training name files of the
# author's machine, and stay there.
SHARED_FILES = (
    CARD,
    CONFIG,
    WEIGHTS,
    ADAPTER,
    ADAPTER_WEIGHTS,
    "decision.json",
    "kept_rows.safetensors",
)
# What huggingface_hub.utils.validate_repo_id takes.
PART = r"\w(?:[\w.-]*\w)?"
NAME = re.compile(rf"(?!.*(?:--|\.\.|\.git$))(?:{PART}/)?{PART}", re.ASCII)
LONGEST_HUB_NAME = 96


def is_hub_name(text: str) -> bool:
    """Tell whether a text can be the name of a model on the Hub.

    Example:
        >>> texts = "ann/moons", "moons", "runs/moons/4", "./moons", "a..b"
        >>> [is_hub_name(text) for text in texts]
        [True, True, False, False, False]
    """
    return bool(NAME.fullmatch(text)) and len(text) <= LONGEST_HUB_NAME


def download(name: str, **options: Any) -> Path:
    """Return a local folder with the files of a model on the Hub that the library reads.

    Args:
        name: such as ``"ann/moons"``.
        options: ``revision``, ``token``, ``cache_dir`` and ``local_files_only``, as
            ``huggingface_hub.snapshot_download`` takes them.

    Raises:
        ImportError: ``huggingface_hub`` is not installed.
        FileNotFoundError: there is no such model or revision, or it cannot be reached.
    """
    hub = _huggingface_hub(f"to look for {name} on the Hugging Face Hub")
    try:
        found = hub.snapshot_download(name, allow_patterns=list(SHARED_FILES), **options)
    except OSError as error:
        first = str(error).strip().partition("\n")[0]
        revision = options.get("revision")
        which = name if revision is None else f"{name} at revision {revision}"
        raise FileNotFoundError(
            f"there is no folder {name}, and {which} could not be read from the Hugging Face Hub: "
            f"{first or type(error).__name__}"
        ) from error
    return Path(found)


def create(
    name: str, *, private: bool | None = None, token: str | None = None, revision: str | None = None
) -> str:
    """Create a model on the Hub if it does not exist, and return its full name.

    Args:
        name: such as ``"ann/moons"``; without an account that of the token.
        private: whether others cannot see it; by default as the account has it.
        token: of the account; by default the one that is logged in.
        revision: a branch, which is created too; by default the main one.

    Raises:
        ImportError: ``huggingface_hub`` is not installed.
        ValueError: the name cannot be one.
        OSError: the Hub refuses it, or cannot be reached.
    """
    if not is_hub_name(name):
        raise ValueError(
            f"name must be that of a model on the Hugging Face Hub, such as 'ann/moons', got "
            f"{name!r}; save_pretrained writes to a folder"
        )
    api = _huggingface_hub("push_to_hub").HfApi(token=token)
    full = str(api.create_repo(name, private=private, exist_ok=True).repo_id)
    if revision is not None:
        api.create_branch(full, branch=revision, exist_ok=True)
    return full


def upload(
    folder: Path,
    name: str,
    *,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
    create_pr: bool = False,
) -> str:
    """Upload the files of a model's folder, and no others, in one commit; returns its address.

    Args:
        folder: of the model.
        name: its full name on the Hub.
        token: of the account; by default the one that is logged in.
        revision: a branch; by default the main one.
        commit_message: by default one that names the package.
        create_pr: whether to propose the commit instead of making it.

    Raises:
        OSError: the Hub refuses it, or cannot be reached.
    """
    api = _huggingface_hub("push_to_hub").HfApi(token=token)
    done = api.upload_folder(
        repo_id=name,
        folder_path=folder,
        revision=revision,
        commit_message=commit_message or "Upload a model of batchensemble",
        create_pr=create_pr,
        allow_patterns=list(SHARED_FILES),
    )
    return str(done.pr_url if create_pr and done.pr_url else done.commit_url)


def _huggingface_hub(purpose: str) -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise ImportError(
            f"{purpose} needs huggingface_hub: pip install 'batchensemble[hub]'"
        ) from None
    return huggingface_hub
