"""An estimator with its card: into a folder, and from there to the Hugging Face Hub."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from sklearn.utils.validation import check_is_fitted

from batchensemble.data.tables.encoding.cells import level_of
from batchensemble.ensembles.saving.pretrained import find_folder
from batchensemble.tabular.saving import load_estimator, save_estimator

KEPT_ROWS = "rows kept from training"


class PublishableEstimator:
    """What estimators share with ensembles: saved with a model card, and uploaded."""

    def save_pretrained(self, folder: str | Path, *, card: Any = None, rows: bool = True) -> Path:
        """Write the fitted estimator and its card into a folder; :meth:`from_pretrained` reads it.

        Args:
            folder: created if it does not exist; files of an earlier model are replaced.
            card: the card: scores, a text or ``False``, see
                :meth:`batchensemble.Ensemble.save_pretrained`. By default one with scores on the
                rows kept from training, if there are some.
            rows: whether to write the rows kept from training, which ``predict_set``,
                ``predict_interval`` and ``decide`` need. Leave them out of what you publish: they
                are your data.

        Returns:
            The folder.

        Raises:
            NotFittedError: it is not fitted.
            TypeError: ``card`` is none of these.
            ValueError: the classes cannot be saved, or the folder has a ``README.md`` that the
                library did not write.
            OSError: the folder cannot be written.
        """
        # Cards need templates, which are slow to import.
        from batchensemble.report.publishing import save_with_card

        kept = self if rows else without_rows(self)
        return save_with_card(
            lambda place: save_estimator(kept, place), Path(folder), _card_source(self, card)
        )

    def push_to_hub(
        self,
        name: str,
        *,
        card: Any = None,
        rows: bool = False,
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
        commit_message: str | None = None,
        create_pr: bool = False,
    ) -> str:
        """Upload the fitted estimator and its card to the Hugging Face Hub, in one commit.

        Needs ``pip install batchensemble[hub]``. Names of columns and classes, levels of categories
        and ranges of numbers are parts of the model, and are published.

        Args:
            name: of the model there, such as ``"ann/credit"``; it is created if it does not exist.
            card: see :meth:`save_pretrained`.
            rows: whether to upload the rows kept from training, which are your data; by default
                not. Without them a loaded estimator keeps its threshold, and needs ``calibrate``
                for sets and intervals.
            private: whether others cannot see it; by default as the account has it.
            token: of the account; by default the one that is logged in.
            revision: a branch; by default the main one.
            commit_message: by default one that names the package.
            create_pr: whether to propose the commit instead of making it.

        Returns:
            The address of the commit, or of the proposal.

        Raises:
            ImportError: ``huggingface_hub`` is not installed.
            NotFittedError: it is not fitted.
            TypeError, ValueError: it cannot be saved, or the name cannot be one.
            OSError: the Hub refuses it, or cannot be reached.
        """
        from batchensemble.report.publishing import push_with_card

        kept = self if rows else without_rows(self)
        return push_with_card(
            lambda place: save_estimator(kept, place),
            name,
            _card_source(self, card),
            private=private,
            token=token,
            revision=revision,
            commit_message=commit_message,
            create_pr=create_pr,
        )

    @classmethod
    def from_pretrained(
        cls,
        folder_or_name: str | Path,
        *,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> Any:
        """Return an estimator of a folder, or of the Hugging Face Hub by its name.

        Nothing that the folder names is run. :func:`batchensemble.from_pretrained` reads the
        ensemble inside, and says what the arguments mean.

        Raises:
            FileNotFoundError: there is neither such a folder nor such a model on the Hub.
            ValueError: it is no estimator of this class, or is damaged.
            ImportError: ``huggingface_hub`` is not installed, and it is in no folder.
        """
        options: dict[str, Any] = {
            "revision": revision,
            "token": token,
            "cache_dir": cache_dir,
            "local_files_only": local_files_only,
        }
        return load_estimator(find_folder(folder_or_name, **options), cls)


def without_rows(estimator: Any) -> Any:
    """Return an estimator that shares all with another but the rows kept from training."""
    check_is_fitted(estimator, "model_")
    result = copy.copy(estimator)
    result.kept_ = None
    return result


def _card_source(estimator: Any, card: Any) -> Any:
    """Return what the card of a fitted estimator is written of."""
    from batchensemble.report.card.evaluated import measured
    from batchensemble.report.card.model_card import CardDetails
    from batchensemble.report.publishing import CardSource

    check_is_fitted(estimator, "model_")
    model, kept = estimator.model_, estimator.kept_
    threshold = getattr(estimator, "threshold_", None)
    classes = tuple(str(level_of(each)) for each in getattr(estimator, "classes_", ()))
    seed = estimator.random_state
    details = CardDetails(
        title=f"{type(estimator).__name__} with {model.members} members",
        settings={
            **estimator.recipe.to_dict(),
            **({"random_state": seed} if isinstance(seed, int) else {}),
        },
        history=estimator.history_,
        decisions=() if threshold is None else (f"{threshold}.",),
        decided=threshold is not None,
        estimator=type(estimator).__name__,
        encoding=estimator.encoding_,
        class_names=classes,
        scored=KEPT_ROWS,
    )
    found = None
    if kept is not None and card is None:
        found = measured(model, kept.prediction, kept.targets, classes)
    return CardSource(card, model, details, found)
