"""Models with their cards: ``save_pretrained`` into a folder, ``push_to_hub`` from one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from batchensemble.core.atomic_files import write_whole
from batchensemble.ensembles import Ensemble
from batchensemble.ensembles.saving import CONFIG, save
from batchensemble.ensembles.saving.adapters import ADAPTER, save_adapter
from batchensemble.ensembles.saving.hub import CARD, create, upload
from batchensemble.metrics import Scores
from batchensemble.report.card.evaluated import MeasuredScores
from batchensemble.report.card.model_card import FOLDER, WRITTEN, CardDetails, card_of

TO_KEEP_IT = "give card=False to keep it, or the text of a card"
Save = Callable[[Path], object]  # writes the files of a model into a folder


def save_pretrained(
    model: Ensemble,
    folder: str | Path,
    *,
    card: Any = None,
    network: str | None = None,
    data: Mapping[str, Any] | None = None,
    whole: bool = False,
) -> Path:
    """Write a model and its card into a folder, see ``Ensemble.save_pretrained``."""
    write, adapter = _writer(model, network, data, whole)
    folder = Path(folder)
    other = CONFIG if adapter else ADAPTER
    if (folder / other).exists():
        ours, theirs = ("an adapter", "a model") if adapter else ("a model", "an adapter")
        raise ValueError(
            f"{folder} holds {theirs} ({other}), and {ours} beside it could not be told from it; "
            "give another folder"
        )
    details = CardDetails(network=network, adapter=adapter)
    return save_with_card(write, folder, CardSource(card, model, details))


def push_to_hub(
    model: Ensemble,
    name: str,
    *,
    card: Any = None,
    network: str | None = None,
    data: Mapping[str, Any] | None = None,
    whole: bool = False,
    **options: Any,
) -> str:
    """Upload a model and its card to the Hub, see ``Ensemble.push_to_hub``."""
    write, adapter = _writer(model, network, data, whole)
    details = CardDetails(network=network, adapter=adapter)
    return push_with_card(write, name, CardSource(card, model, details), **options)


@dataclass(frozen=True)
class CardSource:
    """What a user gives as ``card=``, and what one is written of.

    Attributes:
        given: scores, a text, ``False`` for no card, or ``None`` for one without scores.
        model: the model.
        details: what is known beside it.
        evaluated: scores for a card where none are given, if there are some.
    """

    given: Any
    model: Ensemble
    details: CardDetails
    evaluated: MeasuredScores | None = None

    def __post_init__(self) -> None:
        if not (self.given is None or self.given is False or isinstance(self.given, (str, Scores))):
            raise TypeError(
                "card must be scores that batchensemble.evaluate returned, a text, such as "
                "batchensemble.model_card returns, or False for none, got a "
                f"{type(self.given).__name__}"
            )

    def write(self, folder: Path, name: str | None = None) -> None:
        """Write the card into a folder, if there is to be one.

        Args:
            folder: of the model.
            name: of the model on the Hub.
        """
        if self.given is not False:
            write_whole(folder / CARD, self._text(name).encode())

    def check(self, folder: Path) -> None:
        """Check that no card in a folder that the library did not write would be replaced.

        Raises:
            ValueError: it would.
        """
        if self.given is None or isinstance(self.given, Scores):
            check_card(folder / CARD)

    def _text(self, name: str | None) -> str:
        if isinstance(self.given, str):
            ours = name is not None and WRITTEN in self.given
            return self.given.replace(repr(FOLDER), repr(name)) if ours else self.given
        found = self.evaluated if self.given is None else MeasuredScores(self.given)
        return card_of(self.model, found, replace(self.details, name=name))


def save_with_card(write: Save, folder: Path, card: CardSource) -> Path:
    """Write the files of a model into a folder, and its card beside them; returns the folder.

    Raises:
        ValueError: a card of the user's would be replaced; nothing is written then.
    """
    card.check(folder)
    write(folder)
    card.write(folder)
    return folder


def push_with_card(
    write: Save,
    name: str,
    card: CardSource,
    *,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    **commit: Any,
) -> str:
    """Upload the files of a model and its card to the Hub; returns the address of the commit."""
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write(folder)  # what cannot be saved is found before anything is created on the Hub
        full = create(name, private=private, token=token, revision=revision)
        card.write(folder, full)
        return upload(folder, full, token=token, revision=revision, **commit)


def check_card(path: Path, cure: str = TO_KEEP_IT) -> None:
    """Check that a card, if there is one, is one that the library wrote.

    Args:
        path: of the card.
        cure: what to do, for the error.

    Raises:
        ValueError: it is not.
    """
    if path.exists() and WRITTEN not in path.read_text(encoding="utf-8", errors="replace"):
        raise ValueError(f"{path} was not written by batchensemble, and would be replaced; {cure}")


def _writer(
    model: Ensemble, network: str | None, data: Mapping[str, Any] | None, whole: bool
) -> tuple[Save, bool]:
    """Return what writes a model, and whether it writes an adapter."""
    if model.base is None or whole:
        return lambda folder: save(model, folder, network=network, data=data), False
    if network is not None:
        raise ValueError(
            "network is of whole models, and of an adapted one only what was trained is written; "
            "leave it out, or give whole=True"
        )
    return lambda folder: save_adapter(model, folder, data=data), True
