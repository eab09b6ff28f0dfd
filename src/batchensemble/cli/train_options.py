"""Options of ``batchensemble train``: the data, the model, the optimiser and the training."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from batchensemble.cli.options import (
    DATA,
    MODEL,
    NAMED_SETS,
    NUMBER,
    TRAINING,
    WHOLE,
    ArchitectureOption,
    parse_list,
)


def data_settings(
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            "-d",
            metavar="NAME|PATH",
            help=f"Data set: {NAMED_SETS}; or a CSV file with a header, a Parquet or Feather file, "
            "or a folder of Parquet files. A part of the rows is held out. \\[default: moons]",
            **DATA,
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Column to predict; required for a file.", **DATA),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="TASK",
            help="classification or regression. \\[default: told from the target]",
            **DATA,
        ),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Comma-separated classes in their order; --loss ordinal needs it where classes "
            "are words. \\[default: sorted]",
            **DATA,
        ),
    ] = None,
    validation: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Separate file of rows to score the model on, instead of a part of --data.",
            **DATA,
        ),
    ] = None,
    memory_limit: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Stream files larger than this, such as 512MB or 2GiB. \\[default: 512MiB]",
            **DATA,
        ),
    ] = None,
) -> dict[str, Any]:
    """Return the settings of the data; ``None`` where the user gives none."""
    settings = dict(locals())
    return {**settings, "classes": None if classes is None else parse_list(classes)}


def model_settings(
    method: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="single, deep, batch, mimo, film, last_layer, masksembles, mc_dropout, tabm "
            "or tabm_mini. \\[default: batch]",
            **MODEL,
        ),
    ] = None,
    members: Annotated[
        int | None,
        typer.Option(
            "--members",
            "-m",
            help="Ensemble size. \\[default: 8 for a file, else 4]",
            **WHOLE,
            **MODEL,
        ),
    ] = None,
    hidden: Annotated[
        str | None,
        typer.Option(
            metavar="WIDTHS",
            help="Comma-separated widths of the hidden layers. \\[default: 128,128]",
            **MODEL,
        ),
    ] = None,
    architecture: ArchitectureOption = None,
    network: Annotated[
        str | None,
        typer.Option(
            metavar="PACKAGE.MODULE:FUNCTION",
            help="Your own network: a function without arguments that returns it, or the module "
            "itself. Used instead of --hidden.",
            **MODEL,
        ),
    ] = None,
) -> dict[str, Any]:
    """Return the settings of the model; ``None`` where the user gives none.

    Raises:
        ValueError: ``hidden`` is not a list of whole numbers.
    """
    settings = dict(locals())
    try:
        settings["hidden"] = None if hidden is None else [int(each) for each in parse_list(hidden)]
    except ValueError:
        raise ValueError(
            f"hidden must be whole numbers with commas between, such as 128,128, got {hidden!r}"
        ) from None
    return settings


def optimiser_settings(
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Passes over the training data. \\[default: up to 200 for a file, else 10]",
            **WHOLE,
            **TRAINING,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Examples a step. \\[default: by the rows for a file, else 128]",
            **WHOLE,
            **TRAINING,
        ),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(
            help="Peak learning rate. \\[default: 0.002 for a file, else 0.001]",
            **NUMBER,
            **TRAINING,
        ),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Classification: cross_entropy, ordinal, or binary_cross_entropy for targets 0 "
            "and 1. Regression: gaussian_nll, quantile, mse or huber; mse and huber predict no "
            "noise. \\[default: cross_entropy, or gaussian_nll for regression]",
            **TRAINING,
        ),
    ] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="adam, adamw, sgd. \\[default: adamw for a file]", **TRAINING
        ),
    ] = None,
    weight_decay: Annotated[
        float | None,
        typer.Option(
            help="Weight decay of the weights of layers. \\[default: 0.0003 for a file, else 0]",
            **NUMBER,
            **TRAINING,
        ),
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Learning rate schedule: constant, linear, cosine or one_cycle. "
            "\\[default: constant]",
            **TRAINING,
        ),
    ] = None,
    cooldown: Annotated[
        float | None,
        typer.Option(
            help="Fraction of the steps, at the end, over which the learning rate decays linearly "
            "to 0. \\[default: 0 for a file, else 0.1]",
            **NUMBER,
            **TRAINING,
        ),
    ] = None,
) -> dict[str, Any]:
    """Return the settings of the loss and its optimiser; ``None`` where the user gives none."""
    return dict(locals())


def training_settings(
    batches: Annotated[
        str | None,
        typer.Option(
            metavar="MODE",
            help="Which examples a member sees: shared (all see the same batch), independent (each "
            "shuffles by itself) or split (each gets a part of the batch). "
            "\\[default: depends on the method]",
            **TRAINING,
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            help="Early stopping: evaluations without improvement before training stops, on rows "
            "kept for that; 0 turns it off. \\[default: 12 for a file, else off]",
            **WHOLE,
            **TRAINING,
        ),
    ] = None,
    checkpoint_every: Annotated[
        int | None,
        typer.Option(
            help="Training steps between checkpoints. \\[default: one epoch]", **WHOLE, **TRAINING
        ),
    ] = None,
    trackers: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES", help="Comma-separated: tensorboard, wandb, mlflow.", **TRAINING
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Random seed. \\[default: 0]", **WHOLE, **TRAINING)
    ] = None,
) -> dict[str, Any]:
    """Return the settings of the training; ``None`` where the user gives none."""
    settings = dict(locals())
    return {**settings, "trackers": None if trackers is None else parse_list(trackers)}
