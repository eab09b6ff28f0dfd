"""Options that commands share, and how commands report errors."""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from batchensemble.data.tables.dialects import Dialect

FAILED = 1
BAD_INPUT = 2
INTERRUPTED = 130

errors = Console(stderr=True, soft_wrap=True, highlight=False)


def _whole(text: str | int) -> int:
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"give a whole number, got {text!r}") from None


def _number(text: str | float) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"give a number, got {text!r}") from None


WHOLE: dict[str, Any] = {"parser": _whole, "metavar": "N"}
NUMBER: dict[str, Any] = {"parser": _number, "metavar": "X"}

# Panels of --help.
DATA: dict[str, Any] = {"rich_help_panel": "Data"}
COLUMNS: dict[str, Any] = {"rich_help_panel": "Columns of a file (told from the file by default)"}
CSV: dict[str, Any] = {"rich_help_panel": "CSV files (detected from the file by default)"}
MODEL: dict[str, Any] = {"rich_help_panel": "Model"}
TRAINING: dict[str, Any] = {"rich_help_panel": "Training"}

SeparatorOption = Annotated[
    str | None,
    typer.Option(metavar="CHARACTER", help="Field separator: one character, or tab.", **CSV),
]
DecimalOption = Annotated[
    str | None, typer.Option(metavar="SIGN", help="Decimal sign of numbers: . or a comma.", **CSV)
]
EncodingOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Text encoding, such as cp1252; otherwise UTF-8 or UTF-16.", **CSV
    ),
]
GapsOption = Annotated[
    str | None,
    typer.Option(
        metavar="WORDS",
        help="Comma-separated words that mean a missing number, besides an empty field. "
        "\\[default: NA, NaN, null, None and others]",
        **CSV,
    ),
]
DropOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="COLUMNS", help="Columns not to use, comma-separated. Repeatable.", **COLUMNS
    ),
]
KeepOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="COLUMNS",
        help="Columns to use though they seem to name the rows, or hardly vary.",
        **COLUMNS,
    ),
]
CategoricalOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="COLUMNS", help="Columns of numbers or dates that are categories.", **COLUMNS
    ),
]
NumericOption = Annotated[
    list[str] | None,
    typer.Option(metavar="COLUMNS", help="Columns of numbers; words in them are gaps.", **COLUMNS),
]


def with_options(**groups: Callable[..., Any]) -> Callable[[Callable[..., None]], Any]:
    """Return a decorator that gives a command groups of options, each as one argument.

    The command line shows the parameters of a group's function in place of the argument; the
    command gets what that function makes of them.

    Args:
        groups: the function of a group by the name of the command's argument.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        shown: list[inspect.Parameter] = []
        for each in inspect.signature(command, eval_str=True).parameters.values():
            if each.name in groups:
                group = inspect.signature(groups[each.name], eval_str=True).parameters.values()
                shown += [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in group]
            else:
                shown.append(each)

        @functools.wraps(command)
        def run(**values: Any) -> None:
            try:
                for name, make in groups.items():
                    own = {each: values.pop(each) for each in inspect.signature(make).parameters}
                    values[name] = make(**own)
            except (ValueError, TypeError, ImportError, OSError) as error:
                refuse(error)
            command(**values)

        run.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in shown}
        return run

    return decorate


def printable_lines(text: str) -> str:
    """Return text without control characters but line ends: names in files may be anybody's.

    Example:
        >>> printable_lines("the class \x1b[31mred")
        'the class  [31mred'
    """
    return "".join(each if each.isprintable() or each == "\n" else " " for each in text)


def refuse(error: Exception) -> NoReturn:
    """Print the message of an error and exit with 2; with 1 where writing a file failed midway."""
    from batchensemble.core.atomic_files import WriteError

    if isinstance(error, WriteError):
        errors.print(f"Failed: {printable_lines(str(error))}", markup=False)
        raise typer.Exit(FAILED)
    errors.print(f"Error: {printable_lines(str(error))}", markup=False)
    raise typer.Exit(BAD_INPUT)


def refuse_several(arguments: list[str]) -> None:
    """Exit with 2 where a launcher started several processes of a command that runs in one.

    Each process would write the same files; only ``train`` distributes its work.
    """
    command = next((each for each in arguments if not each.startswith("-")), "train")
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1 and command != "train":
        more = ", and with --jobs for several trainings at once" if command == "compare" else ""
        errors.print(
            f"Error: {command} runs in one process, and torchrun started {processes}; start it "
            f"without torchrun{more}",
            markup=False,
        )
        sys.exit(BAD_INPUT)


def writable(folder: Path) -> Path:
    """Return a folder that can be written to; it is created with its first file.

    Raises:
        OSError: nothing can be written there.
    """
    from batchensemble.core.atomic_files import leaving_nothing_empty

    try:
        with leaving_nothing_empty(folder):
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / ".writable"
            probe.touch()
            probe.unlink()
    except OSError as error:
        raise OSError(
            f"cannot write to {folder}: {error.strerror}; give another folder with --out"
        ) from error
    return folder


NAMED_SETS = "moons, circles, digits, breast_cancer, cubic or diabetes"

DataSetOption = Annotated[
    str,
    typer.Option(
        "--data",
        "-d",
        metavar="NAME|FILE",
        help=f"Data set: {NAMED_SETS}; or a CSV file with a header, a Parquet or Feather file. "
        "cubic and diabetes are for regression.",
        **DATA,
    ),
]
FileTargetOption = Annotated[
    str | None,
    typer.Option(
        "--target", metavar="COLUMN", help="Column to predict; required for a file.", **DATA
    ),
]
TaskOption = Annotated[
    str | None,
    typer.Option(
        "--task",
        metavar="TASK",
        help="classification or regression. \\[default: told from the target]",
        **DATA,
    ),
]
MethodsOption = Annotated[
    str | None,
    typer.Option(
        "--methods",
        metavar="NAMES",
        help="all, or some of single, deep, batch, mimo, film, last_layer, masksembles, "
        "mc_dropout, tabm and tabm_mini, with commas between. \\[default: single,deep,batch,mimo]",
        **MODEL,
    ),
]
MembersOption = Annotated[
    int | None,
    typer.Option(
        "--members",
        "-m",
        help="Ensemble size, at least 1. \\[default: 8 for a file, else 3]",
        **WHOLE,
        **MODEL,
    ),
]
HiddenOption = Annotated[
    str | None,
    typer.Option(
        "--hidden",
        metavar="WIDTHS",
        help="Comma-separated widths of the hidden layers of the network. \\[default: 128,128]",
        **MODEL,
    ),
]
ArchitectureOption = Annotated[
    str | None,
    typer.Option(
        "--architecture",
        metavar="NAME",
        help="table (embeds each column, then a perceptron) or perceptron. "
        "\\[default: table for a file, else perceptron]",
        **MODEL,
    ),
]

ModelArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="Folder of a saved model, as train writes it.")
]
DeviceOption = Annotated[
    str | None,
    typer.Option(metavar="DEVICE", help="Device of the model, such as cuda. \\[default: cpu]"),
]
TargetOption = Annotated[
    str | None,
    typer.Option(metavar="COLUMN", help="Column of the targets. \\[default: as in training]"),
]
NetworkOption = Annotated[
    str | None,
    typer.Option(
        metavar="PACKAGE.MODULE:FUNCTION",
        help="Function that returns the plain network, for a model that was not trained on one "
        "made by this library. The current directory is searched too.",
    ),
]
TrustOption = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Import and run the code that DIR names for its network. Never done by default.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors.")]


def csv_dialect(
    separator: SeparatorOption = None,
    decimal: DecimalOption = None,
    encoding: EncodingOption = None,
    gaps: GapsOption = None,
) -> Dialect:
    """Return the dialect of CSV files that the user gives; the rest is detected.

    Raises:
        ValueError: one of the options cannot be that.
    """
    given = {"separator": separator, "decimal": decimal, "encoding": encoding, "gaps": gaps}
    return Dialect.from_settings(given)


def column_options(
    drop: DropOption = None,
    keep: KeepOption = None,
    categorical: CategoricalOption = None,
    numeric: NumericOption = None,
) -> dict[str, list[str] | None]:
    """Return what the user says about columns, as settings; ``None`` where nothing is said."""
    given = {"drop": drop, "keep_columns": keep, "categorical": categorical, "numeric": numeric}
    return {
        name: [each for text in texts for each in parse_list(text)] if texts else None
        for name, texts in given.items()
    }


def parse_list(text: str) -> list[str]:
    """Return the words of a comma-separated list."""
    return [each.strip() for each in text.split(",") if each.strip()]


def network_and_trust(network: NetworkOption = None, trust: TrustOption = False) -> dict[str, Any]:
    """Return where the network of a saved model comes from, as :func:`batchensemble.load` takes it.

    Raises:
        ImportError, ValueError: there is no such network.
    """
    from batchensemble.ensembles.networks import find_network

    return {"network": None if network is None else find_network(network), "trust": trust}
