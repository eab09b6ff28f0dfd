"""What the commands share: their options, and how they say what went wrong."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console

if TYPE_CHECKING:
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

SeparatorOption = Annotated[
    str | None,
    typer.Option(
        metavar="CHARACTER",
        help="Of a CSV file: what separates its fields, or tab; by default the file tells.",
    ),
]
DecimalOption = Annotated[
    str | None,
    typer.Option(metavar="SIGN", help="Of a CSV file: . or , in numbers; by default it tells."),
]
EncodingOption = Annotated[
    str | None,
    typer.Option(help="Of a CSV file, such as cp1252; by default utf-8, or utf-16 where it is."),
]
GapsOption = Annotated[
    str | None,
    typer.Option(
        metavar="WORDS",
        help="Of a CSV file: words that are no value in columns of numbers, comma between; an "
        "empty field is none either. By default NA, NaN, null, None and others.",
    ),
]


def dialect_of(
    separator: str | None, decimal: str | None, encoding: str | None, gaps: str | None
) -> Dialect:
    """Return how the user says that CSV files are written.

    Raises:
        ValueError: one of it cannot be.
    """
    from batchensemble.data.tables.dialects import Dialect

    given = {"separator": separator, "decimal": decimal, "encoding": encoding, "gaps": gaps}
    return Dialect.of(given)


def calm(text: str) -> str:
    """Return text without what would steer a terminal: names in a file may be anybody's.

    Example:
        >>> calm("the class \x1b[31mred")
        'the class  [31mred'
    """
    return "".join(each if each.isprintable() or each == "\n" else " " for each in text)


def refuse(error: Exception) -> NoReturn:
    """Print the sentence of an error and leave with 2; with 1 where a disk failed on the way."""
    from batchensemble.core.atomic_files import WriteError

    if isinstance(error, WriteError):
        errors.print(f"Failed: {calm(str(error))}", markup=False)
        raise typer.Exit(FAILED)
    errors.print(f"Error: {calm(str(error))}", markup=False)
    raise typer.Exit(BAD_INPUT)


def refuse_several(arguments: list[str]) -> None:
    """Leave with 2 where a launcher started several processes of a command that runs in one.

    Each would do the same and write the same files; only ``train`` shares its work out.
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
    """Return the folder, or say why nothing can be written there; its first file makes it."""
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


DataSetOption = Annotated[
    str,
    typer.Option(
        "--data",
        "-d",
        help="moons, circles, digits, breast_cancer, of numbers cubic and diabetes, or the path of "
        "a CSV file with a header.",
    ),
]
FileTargetOption = Annotated[
    str | None, typer.Option("--target", help="For a file: the column of labels or numbers.")
]
TaskOption = Annotated[
    str | None,
    typer.Option(
        "--task",
        help="For a file: classification (the default), or regression to predict a number.",
    ),
]
MethodsOption = Annotated[
    str, typer.Option("--methods", help="Which of single, deep, batch, mimo; comma between.")
]
MembersOption = Annotated[
    int, typer.Option("--members", "-m", help="Members of an ensemble, at least 1.", **WHOLE)
]
HiddenOption = Annotated[
    str,
    typer.Option("--hidden", help="Widths of the network's hidden layers; comma between."),
]


ModelArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="Folder of a model, such as train leaves.")
]
DeviceOption = Annotated[
    str | None, typer.Option(help="Where the model runs, such as cuda; by default cpu.")
]
TargetOption = Annotated[
    str | None,
    typer.Option(help="The column of labels or numbers; by default as in training."),
]
NetworkOption = Annotated[
    str | None,
    typer.Option(
        metavar="PACKAGE.MODULE:FUNCTION",
        help="What makes the plain network, where the library cannot; looked for here too.",
    ),
]
TrustOption = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Import and run what DIR names to make its network, if that is installed; by default "
        "nothing is.",
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]


def given(network: str | None) -> Any:
    """Return the network that the user names, if one is named."""
    from batchensemble.ensembles.networks import find_network

    return None if network is None else find_network(network)
