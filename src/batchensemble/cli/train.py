"""``batchensemble train``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from batchensemble.cli.options import (
    FAILED,
    NUMBER,
    WHOLE,
    DecimalOption,
    EncodingOption,
    GapsOption,
    SeparatorOption,
    errors,
    refuse,
    writable,
)


def train(
    out: Annotated[Path, typer.Option(help="Folder for the model and all that belongs to it.")],
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            "-d",
            help="moons, circles, digits, breast_cancer, or the path of a CSV file with a header, "
            "a Parquet or Feather file or a folder of Parquet files. A fifth is held out; by "
            "default moons.",
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="For a file: the column of labels, or of numbers.")
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="The classes in their order, comma between, which --loss ordinal needs where they "
            "are words; by default sorted.",
        ),
    ] = None,
    validation: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="A file to hold out, in place of a fifth of the rows of --data."
        ),
    ] = None,
    separator: SeparatorOption = None,
    decimal: DecimalOption = None,
    encoding: EncodingOption = None,
    gaps: GapsOption = None,
    memory_limit: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Larger files are streamed, such as 512MB or 2GiB; by default 512MiB.",
        ),
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="single, deep, batch or mimo; by default batch.")
    ] = None,
    members: Annotated[
        int | None,
        typer.Option("--members", "-m", help="Members of the ensemble; by default 4.", **WHOLE),
    ] = None,
    hidden: Annotated[
        str | None,
        typer.Option(
            help="Widths of the network's hidden layers; comma between; by default 128,128."
        ),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(
            metavar="PACKAGE.MODULE:FUNCTION",
            help="A function without arguments that returns your network, or the network itself.",
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(help="Times the training data are gone through; by default 10.", **WHOLE),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Examples a training step; by default 128.", **WHOLE)
    ] = None,
    lr: Annotated[
        float | None, typer.Option(help="Highest learning rate; by default 0.001.", **NUMBER)
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="regression, to predict numbers, by default by --loss gaussian_nll; by default "
            "classification."
        ),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            help="cross_entropy or ordinal for classes; gaussian_nll or quantile for numbers; with "
            "--task regression also mse and huber, which learn no noise; binary_cross_entropy for "
            "0 and 1; by default cross_entropy."
        ),
    ] = None,
    optimizer: Annotated[
        str | None, typer.Option(help="adam, adamw or sgd; by default adam.")
    ] = None,
    weight_decay: Annotated[
        float | None, typer.Option(help="Of the weights of layers; by default 0.", **NUMBER)
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(help="constant, linear, cosine or one_cycle; by default constant."),
    ] = None,
    cooldown: Annotated[
        float | None,
        typer.Option(
            help="Share of the steps, at the end, in which the rate falls to 0; by default 0.1.",
            **NUMBER,
        ),
    ] = None,
    batches: Annotated[
        str | None,
        typer.Option(help="What members see: shared, independent or split; by default method's."),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(help="Scorings without a better held-out score after which it ends.", **WHOLE),
    ] = None,
    checkpoint_every: Annotated[
        int | None,
        typer.Option(help="Steps between two checkpoints; by default an epoch's.", **WHOLE),
    ] = None,
    trackers: Annotated[
        str | None, typer.Option(help="tensorboard, wandb, mlflow; comma between.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of all that is random; by default 0.", **WHOLE)
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="Settings as TOML or JSON, such as the run.toml of another training."),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any argument of fit or of the method; goes before flags, which go before "
            "--config. May be given again and again.",
        ),
    ] = None,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust",
            help="Import the network that --config names; a --network of yours always is.",
        ),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on from the last checkpoint; without one, start afresh."),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Train one model and keep all of it in a folder.

    The folder ends with the model ([bold]model.safetensors[/bold], [bold]config.json[/bold]), the
    settings ([bold]run.toml[/bold], which [bold]--config[/bold] takes to train the same again), the
    history ([bold]history.json[/bold]; [bold]history.jsonl[/bold] grows as it trains) and
    [bold]checkpoints/[/bold]. A killed training goes on where it was if the same command with
    [bold]--resume[/bold] is given again; SIGTERM and Ctrl-C write a checkpoint first and leave with
    143 and 130.

    [bold]Examples[/bold]

      batchensemble train --out runs/moons-4

      batchensemble train --data patients.csv --target outcome --epochs 50 --resume --out runs/p

      batchensemble train --data visits.parquet --target kind --memory-limit 2GB --out runs/visits

      batchensemble train --data prices.csv --target price --task regression --out runs/prices

      batchensemble train --method batch --set mode=additive --set rank=2 --out runs/additive

      batchensemble train --data digits --network my_package.networks:make --out runs/mine

      batchensemble train --config runs/moons-4/run.toml --seed 1 --out runs/moons-4-again
    """
    flags: dict[str, Any] = {
        "data": data,
        "target": target,
        "classes": None if classes is None else _listed(classes),
        "validation": validation,
        "separator": separator,
        "decimal": decimal,
        "encoding": encoding,
        "gaps": gaps,
        "memory_limit": memory_limit,
        "method": method,
        "members": members,
        "network": network,
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "task": task,
        "loss": loss,
        "optimizer": optimizer,
        "weight_decay": weight_decay,
        "schedule": schedule,
        "cooldown": cooldown,
        "batches": batches,
        "patience": patience,
        "checkpoint_every": checkpoint_every,
        "trackers": None if trackers is None else _listed(trackers),
        "seed": seed,
    }
    from batchensemble.cli.workflows.scored_rows import notes_on
    from batchensemble.cli.workflows.settings import parse, read, resolve
    from batchensemble.cli.workflows.train import train as train_in_folder
    from batchensemble.training.checkpoints.store import CheckpointError
    from batchensemble.training.distributed.processes import is_first

    try:
        flags["hidden"] = None if hidden is None else [int(each) for each in _listed(hidden)]
    except ValueError:
        sentence = "hidden must be whole numbers with commas between, such as 128,128, got "
        refuse(ValueError(f"{sentence}{hidden!r}"))
    try:
        given = {} if config is None else read(config)
        typed = parse(assignments or ())
        if not trust and network is None and "network" not in typed:
            _check_trusted(config, given)
        settings = resolve(given, flags, typed)
        model, history, scores = train_in_folder(
            settings, writable(out), resume=resume, progress=False if quiet else None
        )
    except (ValueError, TypeError, ImportError, OSError, CheckpointError) as error:
        refuse(error)
    except FloatingPointError as error:
        errors.print(f"Failed: {error}", markup=False)
        raise typer.Exit(FAILED) from None
    except SystemExit as end:
        errors.print(
            f"Interrupted, with a checkpoint in {out}; the same command with --resume goes on.",
            markup=False,
        )
        raise typer.Exit(int(str(end.code))) from None
    if not quiet and is_first():
        _print(out, settings, history, scores, model.class_names, notes_on(model.loss))


def _check_trusted(config: Path | None, given: dict[str, Any]) -> None:
    """Check that a file of settings names no network: it may be of somebody else's training.

    Raises:
        ValueError: it does.
    """
    if given.get("network") is not None:
        raise ValueError(
            f"{config} names the network {given['network']!r}, and nothing that a file names is "
            "run unless you trust it: give --trust, or a --network of yours"
        )


def _print(
    out: Path,
    settings: dict[str, Any],
    history: Any,
    scores: Any,
    class_names: Sequence[str],
    notes: tuple[str, ...],
) -> None:
    from batchensemble.comparison.wording import titled
    from batchensemble.report.terminal import scores_table

    name, members = titled(settings["method"]), settings["members"]
    many = f"{members} member{'s' if members > 1 else ''}"
    title = f"{name}, {many}, {history.epochs} epochs: held-out examples of {settings['data']}"
    console = Console()
    console.print(scores_table(title, scores))
    if remark := scores.remark(class_names):
        console.print(f"Note: {remark}", markup=False, highlight=False)
    if history.stopped:
        console.print(f"stopped: {history.stopped}", markup=False)
    for note in notes:
        console.print(f"Note: {note}", markup=False)
    console.print(f"model: {out}", soft_wrap=True, markup=False)


def _listed(text: str) -> list[str]:
    return [each.strip() for each in text.split(",") if each.strip()]
