"""The defaults that ``--help`` names are those that are used."""

import inspect
import re

import pytest
import typer

from batchensemble.cli.app import app
from batchensemble.cli.workflows.settings import resolve
from batchensemble.comparison.results import Settings
from batchensemble.ensembles.table_network import TableNetwork
from batchensemble.training.table_recipe import TableRecipe

DEFAULT = re.compile(
    r"\\?\[default: (?:up to )?(?P<file>.+?)(?: for a file(?:, else (?P<else>.+?))?)?\]"
)

NAMES = {"members", "hidden", "epochs", "lr", "cooldown"}


def shown(value):
    """Return a setting as the help writes it."""
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    if isinstance(value, float):
        return f"{value:g}"
    return "off" if value is None else str(value)


def defaults_of(command):
    """Return what the help of a command says of each option with defaults: of a file, and else."""
    found = {}
    for option in typer.main.get_command(app).commands[command].params:
        said = DEFAULT.search(getattr(option, "help", None) or "")
        if said:
            found[option.name] = said["file"], said["else"] or said["file"]
    return found


def settings_of(command, name):
    """Return the settings of a table in files and of a named data set."""
    if command == "train":
        return resolve({"data": "cars.csv"}).get(name), resolve({}).get(name)
    return getattr(Settings.of_table(1), name), getattr(Settings(), name)


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("train", {*NAMES, "weight_decay", "patience"}),
        ("compare", {*NAMES, "architecture"}),
    ],
)
def test_the_help_names_the_defaults_that_are_used(command, names):
    found = defaults_of(command)
    assert names <= found.keys()
    for name in names:
        assert found[name] == tuple(map(shown, settings_of(command, name))), name


def test_a_table_network_is_as_wide_as_its_recipe():
    default = inspect.signature(TableNetwork).parameters["hidden"].default
    assert default == TableRecipe().hidden
