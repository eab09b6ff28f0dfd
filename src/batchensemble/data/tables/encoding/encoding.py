"""The encoding of a table: what each column becomes, and the inputs of a network from them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float

from batchensemble.core.arguments import nearest
from batchensemble.core.inputs import Scaling
from batchensemble.data.tables.blocks import Block
from batchensemble.data.tables.columns import Array, ColumnarTable, fill_column
from batchensemble.data.tables.encoding.rules import SecondSummary, needs_values, treatment_of
from batchensemble.data.tables.encoding.summary import ColumnSummary
from batchensemble.data.tables.encoding.treatment import Parts, Treatment

InputLayout = Literal["codes", "plain"]
Blocks = Callable[[], Iterable[Block]]
ONE_HOT_LEVELS = 32  # levels of a column that get an input each in the plain layout


@dataclass(frozen=True)
class EncodedInputs:
    """The inputs of a network: first the numbers, then the flags, then the codes.

    Attributes:
        numbers: how many scaled numbers.
        flags: how many inputs that need no scaling.
        levels: number of levels of each code, without the unknown one, which is 0.
    """

    numbers: int
    flags: int
    levels: tuple[int, ...]

    @property
    def width(self) -> int:
        """Number of inputs."""
        return self.numbers + self.flags + len(self.levels)


@dataclass(frozen=True)
class ColumnChoices:
    """What the user says about columns.

    Attributes:
        drop: columns that are not used.
        keep: columns that are used even if they seem to name the rows, or hardly vary.
        categorical: columns that are categories, though they hold numbers or dates.
        numeric: columns that are numbers, though some values are words.
    """

    drop: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    numeric: tuple[str, ...] = ()

    def check(self, names: Sequence[str], where: str) -> None:
        """Raise ``ValueError`` for a column that does not exist, or is named for two uses."""
        both = set(self.categorical) & set(self.numeric)
        if both:
            raise ValueError(f"{min(both)!r} is in both categorical and numeric; choose one")
        for option in ("drop", "keep", "categorical", "numeric"):
            for name in getattr(self, option):
                if name not in names:
                    raise ValueError(
                        f"{option} names {name!r}, and {where} has no such column beside the target"
                        f"{nearest(name, names)} (columns: {', '.join(names)})"
                    )

    def kind(self, name: str) -> str | None:
        """Return the kind that the user gives a column; ``None``: it is found out."""
        if name in self.categorical:
            return "category"
        return "number" if name in self.numeric else None


@dataclass(frozen=True)
class TableEncoding:
    """What is done with the columns of a table before a network sees them.

    Attributes:
        treatments: of all columns but the target, in the order of the table.
        layout: ``"codes"``: numbers are mapped to a normal distribution and each category is one
            whole number, for a :class:`~batchensemble.ensembles.table_network.TableNetwork`;
            ``"plain"``: numbers are standardised and each level has an input that is 0 or 1, for
            any network.
    """

    treatments: tuple[Treatment, ...]
    layout: InputLayout = "codes"

    @cached_property
    def used(self) -> tuple[Treatment, ...]:
        """The treatments of columns that are used."""
        return tuple(each for each in self.treatments if each.kind != "left out")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The columns that are used."""
        return tuple(each.name for each in self.used)

    @property
    def left_out(self) -> tuple[Treatment, ...]:
        """The treatments of columns that are not used."""
        return tuple(each for each in self.treatments if each.kind == "left out")

    @cached_property
    def inputs(self) -> EncodedInputs:
        """How many inputs of each kind there are."""
        names = self.names_by_kind
        if self.layout == "plain":
            return EncodedInputs(len(names[0]), len(names[1]) + len(names[2]), ())
        levels = (len(each) for one in self.used for each in one.code_levels().values())
        return EncodedInputs(len(names[0]), len(names[1]), tuple(levels))

    @property
    def input_names(self) -> tuple[str, ...]:
        """The name of each input."""
        return tuple(name for part in self.names_by_kind for name in part)

    @cached_property
    def names_by_kind(self) -> tuple[list[str], list[str], list[str]]:
        """The names of the inputs: of numbers, of flags, and of codes or levels."""
        nothing = np.empty(0, object)
        numbers, flags, codes = [], [], []
        for one in self.used:
            parts = one.apply(nothing, one.name, "standard")
            numbers += [one.name + end for end in parts.numbers]
            flags += [one.name + end for end in parts.flags]
            for end, levels in one.code_levels().items():
                if self.layout == "codes":
                    codes.append(one.name + end)
                else:
                    codes += [f"{one.name}{end} = {level}" for level in _one_hot(levels)]
        return numbers, flags, codes

    def encode(
        self, block: Block, where: str, dtype: Any = np.float32
    ) -> Float[np.ndarray, "rows inputs"]:
        """Return rows of a table as the inputs of a network.

        Args:
            block: rows of the table, with all columns that are used.
            where: the table, for error messages.
            dtype: of the result.

        Raises:
            ValueError: a value is of another kind than in the training data.
        """
        found = np.empty((block.rows, self.inputs.width), dtype)
        places = [0, self.inputs.numbers, len(self.input_names) - len(self.names_by_kind[2])]
        scale: Literal["normal", "standard"] = "normal" if self.layout == "codes" else "standard"
        for one in self.used:
            column = f"{where}: column {one.name!r}"
            with block.numbered():
                parts = one.apply(
                    block.columns[one.name], column, scale, block.first_row, block.decimal
                )
                for number, columns in enumerate(self._columns(one, parts)):
                    for values in columns:
                        fill_column(found, places[number], values, column, block.first_row)
                        places[number] += 1
        return found

    def _columns(self, one: Treatment, parts: Parts) -> list[list[Any]]:
        codes = list(parts.codes.values())
        if self.layout == "plain":
            levels = one.code_levels()
            codes = [
                (values == code).astype(np.float64)
                for end, values in parts.codes.items()
                for code in range(1, len(_one_hot(levels[end])) + 1)
            ]
        return [list(parts.numbers.values()), list(parts.flags.values()), codes]

    def encode_table(
        self, table: ColumnarTable, where: str, dtype: Any = np.float32
    ) -> Float[np.ndarray, "rows inputs"]:
        """Return a table in memory as the inputs of a network, see :meth:`encode`.

        Raises:
            ValueError: a column is not there, or a value does not fit.
        """
        for name in self.names:
            if name not in table.names:
                raise ValueError(
                    f"{where} has no column {name!r}{nearest(name, table.names)}; the model was "
                    f"trained on {', '.join(self.names)} (columns here: {', '.join(table.names)})"
                )
        columns = {name: table.column(name) for name in self.names}
        return self.encode(Block(table.rows, columns), where, dtype)

    def notes(self) -> tuple[str, ...]:
        """Return what a user should know about the columns, a sentence each."""
        return tuple(
            f"column {one.name!r} is left out: {one.note}"
            if one.kind == "left out"
            else f"column {one.name!r}: {one.note}"
            for one in self.treatments
            if one.note
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the encoding as JSON can hold it."""
        return {"layout": self.layout, "columns": [each.to_dict() for each in self.treatments]}

    @classmethod
    def from_dict(cls, written: Any) -> TableEncoding:
        """Return the encoding that :meth:`to_dict` wrote.

        Raises:
            ValueError: it is not one.
        """
        if (
            not isinstance(written, dict)
            or set(written) != {"layout", "columns"}
            or written["layout"] not in get_args(InputLayout)
            or not isinstance(written["columns"], list)
        ):
            raise ValueError("an encoding must have a layout and columns")
        found = cls(tuple(map(Treatment.from_dict, written["columns"])), written["layout"])
        names = [each.name for each in found.treatments]
        if len(set(names)) < len(names) or not found.used:
            raise ValueError("an encoding must have different columns, and use one")
        return found

    @property
    def scaling(self) -> Scaling | None:
        """Means and standard deviations, if each column is a number that is standardised."""
        if self.layout == "codes" or any(one.kind != "number" or one.gaps for one in self.used):
            return None
        return tuple(one.mean for one in self.used), tuple(one.scale for one in self.used)

    @classmethod
    def of_scaling(cls, names: Sequence[str], scaling: Scaling) -> TableEncoding:
        """Return the encoding of columns of numbers that are standardised."""
        return cls(
            tuple(
                Treatment(name, "number", mean=mean, scale=scale)
                for name, mean, scale in zip(names, *scaling, strict=True)
            ),
            "plain",
        )

    def renamed(self, names: Sequence[str]) -> TableEncoding:
        """Return the encoding for a table in which the columns that are used have other names."""
        if tuple(names) == self.names:
            return self
        used = zip(self.used, names, strict=True)
        return TableEncoding(tuple(replace(one, name=name) for one, name in used), self.layout)


def _one_hot(levels: Sequence[str]) -> Sequence[str]:
    return levels[:ONE_HOT_LEVELS]


def fit_encoding(
    blocks: Blocks,
    names: Collection[str],
    where: str,
    *,
    choices: ColumnChoices | None = None,
    layout: InputLayout = "codes",
) -> TableEncoding:
    """Return the encoding of a table, from one pass over its rows, or two for dates and units.

    Args:
        blocks: returns an iterator over the training rows in blocks.
        names: all columns but the target.
        where: the table, for error messages.
        choices: what the user says about columns.
        layout: see :class:`TableEncoding`.

    Raises:
        ValueError: a column holds values of no known kind, or none is left to use.

    Example:
        >>> columns = {
        ...     "age": np.array([30.0, np.nan, 50.0, 40.0]),
        ...     "job": np.array(["cook", "cook", "smith", None], dtype=object),
        ... }
        >>> encoding = fit_encoding(lambda: [Block(4, columns)], columns, "people")
        >>> encoding.inputs
        EncodedInputs(numbers=1, flags=1, levels=(2,))
        >>> encoding.encode(Block(4, columns), "people")[:, 1:].tolist()
        [[0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [0.0, 2.0]]
    """
    choices = choices or ColumnChoices()
    choices.check(tuple(names), where)
    wanted = [name for name in names if name not in choices.drop]
    summaries = {
        name: ColumnSummary(name, categorical=choices.kind(name) == "category") for name in wanted
    }
    for block in blocks():
        for summary in summaries.values():
            summary.add_block(block, where)
    found = {
        name: treatment_of(summary, kind=choices.kind(name), keep=name in choices.keep)
        for name, summary in summaries.items()
    }
    unread = {name: SecondSummary(one) for name, one in found.items() if needs_values(one)}
    for block in blocks() if unread else ():
        for each in unread.values():
            each.add_block(block, where)
    found |= {name: each.complete() for name, each in unread.items()}
    dropped = {name: Treatment(name, "left out", "as asked") for name in choices.drop}
    encoding = TableEncoding(tuple({**found, **dropped}[name] for name in names), layout)
    if not encoding.used:
        raise ValueError(
            f"{where} has no column to learn from: {'; '.join(encoding.notes())}"
            if encoding.notes()
            else f"{where} has no column beside the target; at least one is needed"
        )
    return encoding


def values_of(table: ColumnarTable) -> dict[str, Array]:
    """Return the columns of a table in memory."""
    return {name: table.column(name) for name in table.names}
