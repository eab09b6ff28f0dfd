"""A model with a card: into a folder, and from there to the Hugging Face Hub."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

# Cards need scores and templates, which are of higher packages, so both are looked up when called.
PUBLISHING = "batchensemble.report.publishing"


class Publishable(nn.Module):
    """A module that can be saved with a model card, and uploaded."""

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        card: Any = None,
        network: str | None = None,
        data: Mapping[str, Any] | None = None,
        whole: bool = False,
    ) -> Path:
        """Write the model and its card into a folder.

        The files are those of :func:`batchensemble.save`, or, for an ensemble that
        :func:`batchensemble.adapt` made, those of :func:`batchensemble.save_adapter`; the card is
        ``README.md``. :func:`batchensemble.from_pretrained` reads them.

        Args:
            folder: created if it does not exist; other files in it are kept.
            card: the card: the scores that :func:`batchensemble.evaluate` returned, which go into
                one; a text, such as :func:`batchensemble.model_card` returns; ``False``: none, and
                one that is there stays. By default one without scores.
            network: function that builds the plain network, as ``"package.module:function"``, see
                :func:`batchensemble.save`.
            data: further information to store, as JSON can hold it; by default none.
            whole: whether to write the weights of the base of an adapted ensemble, too.

        Returns:
            The folder.

        Raises:
            TypeError: ``card`` is none of these.
            ValueError: the model cannot be saved, the folder holds an adapter and this would be a
                model, or the reverse, or it has a ``README.md`` that the library did not write, and
                ``card`` is no text.
            OSError: the folder cannot be written.

        Example:
            >>> import tempfile
            >>> import batchensemble as be
            >>> net = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3))
            >>> model = be.BatchEnsemble(net, members=4)
            >>> folder = model.save_pretrained(tempfile.mkdtemp())
            >>> sorted(path.name for path in folder.iterdir())
            ['README.md', 'config.json', 'model.safetensors']
        """
        save: Any = pkgutil.resolve_name(f"{PUBLISHING}:save_pretrained")
        found: Path = save(self, folder, card=card, network=network, data=data, whole=whole)
        return found

    def push_to_hub(
        self,
        name: str,
        *,
        card: Any = None,
        network: str | None = None,
        data: Mapping[str, Any] | None = None,
        whole: bool = False,
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
        commit_message: str | None = None,
        create_pr: bool = False,
    ) -> str:
        """Upload the model and its card to the Hugging Face Hub, in one commit.

        Needs ``pip install batchensemble[hub]``.

        Args:
            name: of the model there, such as ``"ann/moons"``; it is created if it does not exist.
            card: see :meth:`save_pretrained`; so are ``network``, ``data`` and ``whole``.
            network: function that builds the plain network.
            data: further information to store.
            whole: whether to upload the base of an adapted ensemble, too.
            private: whether others cannot see it; by default as the account has it.
            token: of the account; by default the one that is logged in.
            revision: a branch; by default the main one.
            commit_message: by default one that names the package.
            create_pr: whether to propose the commit instead of making it.

        Returns:
            The address of the commit, or of the proposal.

        Raises:
            ImportError: ``huggingface_hub`` is not installed.
            TypeError, ValueError: the model cannot be saved, or the name cannot be one.
            OSError: the Hub refuses it, or cannot be reached.
        """
        push: Any = pkgutil.resolve_name(f"{PUBLISHING}:push_to_hub")
        where = {"private": private, "token": token, "revision": revision}
        commit = {"commit_message": commit_message, "create_pr": create_pr}
        what = {"card": card, "network": network, "data": data, "whole": whole}
        return str(push(self, name, **what, **where, **commit))
