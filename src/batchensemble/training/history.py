"""``History``: the record of a training, epoch by epoch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from batchensemble.core.deprecation import moved_to
from batchensemble.core.printed_tables import MOST_ROWS, table
from batchensemble.core.strict_json import LARGE_LIMITS, read_json
from batchensemble.losses.standardised import OF_STANDARDISED, LossUnit
from batchensemble.training.plan import changed_options


@dataclass(frozen=True)
class Compilation:
    """The speed-up of ``torch.compile``, measured on the steps of the training itself.

    Attributes:
        eager: median duration of a step before compiling, seconds.
        compiled: median duration of a step after compiling, seconds.
        compiling: duration of the step that compiled, seconds.

    Example:
        >>> print(Compilation(eager=0.003, compiled=0.002, compiling=20.0))
        torch.compile: 1.50 times as fast (3.00 ms a step, now 2.00), compiled in 20.0 s
    """

    eager: float
    compiled: float
    compiling: float

    @property
    def gain(self) -> float:
        """The speed-up of a compiled step: 2 is twice as fast."""
        return self.eager / self.compiled

    def to_dict(self) -> dict[str, float]:
        """Return the figures as JSON can hold them."""
        return {**asdict(self), "gain": self.gain}

    def __str__(self) -> str:
        return (
            f"torch.compile: {self.gain:.2f} times as fast ({1e3 * self.eager:.2f} ms a step, now "
            f"{1e3 * self.compiled:.2f}), compiled in {self.compiling:.1f} s"
        )


@dataclass
class History:
    """The record of a training, with one entry an epoch.

    Attributes:
        losses: mean loss over examples and members, nats for the cross-entropy. The mean is over
            the whole epoch and weighted by the examples' weights; targets that are ignored, unknown
            or of weight 0 are left out.
        member_losses: mean loss of each member over the examples; one column with
            ``loss_on="mean_logits"``. NaN for a member whose targets were all left out.
        last_batch_losses: mean loss of the last batch alone, as the notebook prints it.
        validation_nll: held-out negative log-likelihood of the ensemble at the end of the epoch,
            nats. For other losses the ensemble's held-out loss (``of_ensemble``): the NLL of the
            members' mixture, or the loss of their mean. Empty without validation data.
        evaluations: each evaluation on held-out data: ``step``, ``epoch``, ``nll`` and the score of
            ``stop_on``.
        diagnostics: diagnostics of the members at the end of the epoch, see
            :mod:`batchensemble.training.callbacks.diagnostics`.
        seconds: duration of the training steps in seconds, without validation.
        examples: number of examples seen; an example that two members see in different batches
            counts twice.
        forward_calls: number of forward calls of a network.
        compilation: the speed-up of ``compile=True``; ``None`` without it.
        standardised: for losses of numbers, whether all losses here are of standardised targets,
            see ``standardise_targets`` of :func:`batchensemble.fit`: that is so where they cannot
            be converted, such as a mean over targets of several units, and in histories of earlier
            versions. ``None`` for other losses, or if an earlier version did not store it.
        class_names: the names of the class numbers, if the data have some.
        best_epoch: the epoch, counted from 1, in which the evaluation with the best score of
            ``stop_on`` took place, the first of them if several are equal; ``None`` without
            validation data, or if an earlier version did not store it.
        best_step: number of steps done at that evaluation.
        best_score: its score of ``stop_on``.
        refit: what ``refit=True`` did after that: ``epochs``, ``steps``, ``examples``, ``losses``
            and ``seconds`` of the second training; ``None`` without.
        stopped: why the training ended before its last epoch; empty if it did not.
        plan: the options of :func:`batchensemble.fit` by name, as JSON can hold them; empty if an
            earlier version did not store them.
    """

    losses: list[float] = field(default_factory=list)
    member_losses: list[list[float]] = field(default_factory=list)
    last_batch_losses: list[float] = field(default_factory=list)
    validation_nll: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    examples: list[int] = field(default_factory=list)
    forward_calls: list[int] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    diagnostics: list[dict[str, Any]] = field(default_factory=list)
    compilation: Compilation | None = None
    standardised: bool | None = None
    class_names: list[str] = field(default_factory=list)
    best_epoch: int | None = None
    best_step: int | None = None
    best_score: float | None = None
    refit: dict[str, Any] | None = None
    stopped: str = ""
    plan: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return the last epoch's figures, and the options that are not the defaults.

        Example:
            >>> print(History([0.5], seconds=[2.0], plan={"lr": 0.1, "batch_size": 128}))
            1 epoch in 2.0 s: loss 0.5000
            options: lr=0.1
        """
        if not self.losses:
            return "no epochs"
        many = "1 epoch" if self.epochs == 1 else f"{self.epochs} epochs"
        text = f"{many} in {self.total_seconds:.1f} s: loss {format_loss(self.losses[-1])}"
        if self.validation_nll:
            score = "NLL" if self.standardised is None else "loss"
            text += f", held-out {score} {format_loss(self.validation_nll[-1])}"
        text += f" {OF_STANDARDISED}" if self.standardised else ""
        if self.best_score is not None and self.best_epoch != self.epochs:
            text += f"\nbest: epoch {self.best_epoch}, {self._best_name} {self.best_score:.4f}"
        if changed := changed_options(self.plan):
            text += f"\noptions: {', '.join(f'{name}={value}' for name, value in changed.items())}"
        if self.stopped:
            text += f"\nstopped: {self.stopped}"
        if self.refit is not None:
            text += (
                f"\nrefit: {self.refit['steps']} steps on all {self.refit['examples']:,} examples"
                f", loss {self.refit['losses'][-1]:.4f}"
            )
        return text

    @property
    def _best_name(self) -> str:
        """The score that ``best_score`` is, in words."""
        name = self.plan.get("stop_on", "nll")
        if name == "nll":
            name = "NLL" if self.standardised is None else "loss"
        return f"held-out {name}"

    @property
    def epochs(self) -> int:
        """Number of finished epochs."""
        return len(self.losses)

    @property
    def total_seconds(self) -> float:
        """Duration of all epochs in seconds."""
        return sum(self.seconds)

    @property
    def total_forward_calls(self) -> int:
        """Number of forward calls of a network in all epochs."""
        return sum(self.forward_calls)

    @property
    def examples_per_second(self) -> float:
        """Number of examples seen per second of training."""
        return sum(self.examples) / self.total_seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the history as JSON can hold it."""
        result = asdict(replace(self, compilation=None))
        del result["compilation"]
        for name in ("class_names", "stopped", "plan"):
            if not result[name]:
                del result[name]
        for name in ("standardised", "best_epoch", "best_step", "best_score", "refit"):
            if result[name] is None:
                del result[name]
        if self.compilation is not None:
            result["compilation"] = self.compilation.to_dict()
        return result

    as_dict = moved_to("batchensemble.History.to_dict", old="history.as_dict", until="0.3")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> History:
        """Return the history that :meth:`to_dict` wrote."""
        values = dict(values)
        found = values.pop("compilation", None)
        if found is not None:
            del found["gain"]
        return cls(**values, compilation=None if found is None else Compilation(**found))

    @classmethod
    def read(cls, path: Path) -> History:
        """Read a history from a file.

        Raises:
            ValueError: the file does not hold a history.
            OSError: it cannot be read.
        """
        found = read_json(path, **LARGE_LIMITS, nan=True)
        try:
            history = cls.from_dict(found)
            _check(history)
        except (TypeError, ValueError, KeyError) as error:
            raise ValueError(f"{path} holds no history: {error}; delete it") from None
        return history

    def _repr_html_(self) -> str:
        first = max(0, self.epochs - MOST_ROWS)
        columns = {
            "loss": self.losses,
            "held-out NLL" if self.standardised is None else "held-out loss": self.validation_nll,
            "seconds": self.seconds,
        }
        known = {name: values for name, values in columns.items() if len(values) == self.epochs}
        rows = (
            [epoch + 1, *(values[epoch] for values in known.values())]
            for epoch in range(first, self.epochs)
        )
        caption = f"Training, {self.epochs} epochs" + ("; the last ones" if first else "")
        caption += f"; losses {OF_STANDARDISED}" if self.standardised else ""
        if self.best_score is not None:
            caption += f"; best epoch {self.best_epoch}, {self._best_name} {self.best_score:.4f}"
        return table(caption, ["epoch", *known], rows)

    def to_pandas(self) -> Any:
        """Return a table with a row an epoch, as a ``pandas.DataFrame``.

        Example:
            >>> one = History([0.5], [[0.4, 0.6]], [0.4], [], [2.0], [10], [3])
            >>> one.to_pandas()["loss_of_member_1"].tolist()
            [0.6]
        """
        import pandas as pd

        columns: dict[str, Any] = {"loss": self.losses}
        for index in range(len(self.member_losses[0]) if self.member_losses else 0):
            columns[f"loss_of_member_{index}"] = [each[index] for each in self.member_losses]
        others = {
            "last_batch_loss": self.last_batch_losses,
            "validation_nll": self.validation_nll,
            "seconds": self.seconds,
            "examples": self.examples,
            "forward_calls": self.forward_calls,
        }
        columns.update({name: values for name, values in others.items() if values})
        epochs = pd.RangeIndex(1, self.epochs + 1, name="epoch")
        return pd.DataFrame(columns, index=epochs)

    def continue_from(self, other: History) -> None:
        """Take over what another history holds; the plan stays this one's.

        Args:
            other: the history before a checkpoint, or that of the first process.
        """
        for each in fields(self):
            if each.name != "plan":
                setattr(self, each.name, getattr(other, each.name))

    def convert(self, unit: LossUnit) -> None:
        """Convert all losses from those of standardised targets to the unit of the targets."""
        for name in ("losses", "last_batch_losses", "validation_nll"):
            setattr(self, name, [unit(each) for each in getattr(self, name)])
        self.member_losses = [[unit(each) for each in row] for row in self.member_losses]
        self.evaluations = [{**each, "nll": unit(each["nll"])} for each in self.evaluations]
        self.standardised = False

    def record(
        self,
        member_losses: list[float],
        last_batch_loss: float,
        seconds: float,
        *,
        examples: int,
        calls: int,
    ) -> None:
        """Add an epoch.

        Args:
            member_losses: mean loss of each member over the examples.
            last_batch_loss: mean loss over the last batch and the members.
            seconds: duration in seconds.
            examples: number of examples seen.
            calls: number of forward calls of a network.
        """
        known = [each for each in member_losses if not math.isnan(each)]
        self.losses.append(sum(known) / len(known) if known else math.nan)
        self.member_losses.append(member_losses)
        self.last_batch_losses.append(last_batch_loss)
        self.seconds.append(seconds)
        self.examples.append(examples)
        self.forward_calls.append(calls)


def format_loss(loss: float) -> str:
    """Return a loss with four decimals, or four digits where it is large, as of squared prices.

    Example:
        >>> format_loss(0.69314), format_loss(8.1e7)
        ('0.6931', '8.1e+07')
    """
    return f"{loss:.4f}" if abs(loss) < 1e4 else f"{loss:.4g}"


def _check(history: History) -> None:
    """Check the types of what was read.

    Raises:
        TypeError: they are not those of a history.
        ValueError: the members are not as many in each epoch.
    """
    kinds: dict[str, Any] = {
        **dict.fromkeys(("losses", "last_batch_losses", "validation_nll", "seconds"), (int, float)),
        **dict.fromkeys(("examples", "forward_calls"), int),
        **dict.fromkeys(("evaluations", "diagnostics"), dict),
        "member_losses": list,
        "class_names": str,
    }
    for name, kind in kinds.items():
        values = getattr(history, name)
        if not isinstance(values, list) or not all(isinstance(each, kind) for each in values):
            raise TypeError(f"{name} is of another type")
    numbers = [each for row in history.member_losses for each in row]
    if not all(isinstance(each, (int, float)) for each in numbers):
        raise TypeError("member_losses is of another type")
    if len({len(row) for row in history.member_losses}) > 1:
        raise ValueError("member_losses has rows of several lengths")
    for name, of in (("best_epoch", int), ("best_step", int), ("best_score", (int, float))):
        if not isinstance(getattr(history, name), (of, type(None))):
            raise TypeError(f"{name} is of another type")
    if not isinstance(history.refit, (dict, type(None))):
        raise TypeError("refit is of another type")
    if not isinstance(history.stopped, str):
        raise TypeError("stopped is of another type")
    if not isinstance(history.plan, dict):
        raise TypeError("plan is of another type")
