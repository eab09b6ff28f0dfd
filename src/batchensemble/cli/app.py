"""The command line: parse, call, print.

Slow modules are imported inside the commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import sys

import typer
from typer.core import TyperGroup

from batchensemble.cli.card import card_command
from batchensemble.cli.compare import compare_command
from batchensemble.cli.decide import decide_command
from batchensemble.cli.evaluate import evaluate_command
from batchensemble.cli.export import export_command
from batchensemble.cli.inspect import inspect_command
from batchensemble.cli.options import INTERRUPTED, errors, refuse_several
from batchensemble.cli.predict import predict_command
from batchensemble.cli.rank import rank_command
from batchensemble.cli.report import report_command
from batchensemble.cli.train import train_command

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
    cls=TyperGroup,
)


@app.callback()
def root() -> None:
    """The uncertainty of an ensemble at the cost of one network.

    Start with [bold]batchensemble compare[/bold]: it trains a single network,
    a deep ensemble, BatchEnsemble and MIMO on the same data and writes a
    report for the browser.

    Then [bold]train[/bold] one of them, [bold]evaluate[/bold] it,
    [bold]decide[/bold] when it should answer, and [bold]predict[/bold] new
    rows, or [bold]export[/bold] it into one file. [bold]report[/bold] writes
    the report again, [bold]card[/bold] the model card; [bold]rank[/bold]
    compares methods over several data sets.
    """


def main() -> None:
    """Run the command line; Ctrl-C exits with 130."""
    refuse_several(sys.argv[1:])
    try:
        app()
    except KeyboardInterrupt:
        errors.print("Interrupted; nothing was written.")
        sys.exit(INTERRUPTED)


COMMANDS = {
    "compare": compare_command,
    "inspect": inspect_command,
    "train": train_command,
    "evaluate": evaluate_command,
    "decide": decide_command,
    "predict": predict_command,
    "export": export_command,
    "report": report_command,
    "card": card_command,
    "rank": rank_command,
}
for name, command in COMMANDS.items():
    app.command(name)(command)
