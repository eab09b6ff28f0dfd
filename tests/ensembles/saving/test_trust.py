"""What a saved model may run: nothing, or what its user trusts, and never what lies beside."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import batchensemble as be
from batchensemble.cli.app import app
from batchensemble.ensembles.networks import find_network

pytestmark = pytest.mark.usefixtures("as_users_run_it")

NETWORK = """
import functools, os
from torch import nn

with open({ran!r}, "a") as file:
    file.write("x")

def make():
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))

partly = functools.partial(make)
network = make()
"""


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install a package, and return a function that tells how often it was imported."""
    site, ran = tmp_path / "site", tmp_path / "ran"
    (site / "mynets").mkdir(parents=True)
    (site / "mynets" / "__init__.py").write_text("")
    (site / "mynets" / "tables.py").write_text(NETWORK.format(ran=str(ran)))
    monkeypatch.syspath_prepend(str(site))
    yield lambda: len(ran.read_text()) if ran.exists() else 0
    for name in [each for each in sys.modules if each.partition(".")[0] in ("mynets", "evil")]:
        del sys.modules[name]


def saved(folder: Path, function: str | None) -> Path:
    return be.save(be.BatchEnsemble(network(), 2).eval(), folder, network=function)


def named(folder: Path, function: str) -> Path:
    """Save a model that names a function, whatever it is."""
    path = saved(folder, "mynets.tables:make") / "config.json"
    path.write_text(path.read_text().replace("mynets.tables:make", function))
    return folder


def test_nothing_that_a_folder_names_is_imported_by_itself(tmp_path, installed):
    folder = saved(tmp_path / "model", "mynets.tables:make")
    with pytest.raises(ValueError, match=r"names mynets\.tables:make") as refused:
        be.load(folder)
    for cure in ("network=", "trust=['mynets']", "trust=True", "--trust"):
        assert cure in str(refused.value)
    assert not installed()
    be.load(folder, network=network())
    assert not installed()


@pytest.mark.parametrize("name", ["make", "partly", "network"])
@pytest.mark.parametrize("trust", [True, "mynets", ["other", "mynets"], ("mynets.tables",)])
def test_what_is_trusted_makes_the_network(tmp_path, installed, name, trust):
    folder = saved(tmp_path / "model", f"mynets.tables:{name}")
    loaded = be.load(folder, trust=trust)
    assert installed() == 1
    x = torch.randn(5, 4)
    assert torch.equal(loaded(x), be.load(folder, network=network())(x))


@pytest.mark.parametrize("trust", [["torchvision"], ["my"], ["mynets.images"], [], ()])
def test_another_package_is_not_trusted(tmp_path, installed, trust):
    folder = saved(tmp_path / "model", "mynets.tables:make")
    with pytest.raises(ValueError, match="mynets"):
        be.load(folder, trust=trust)
    assert not installed()


@pytest.mark.parametrize(
    "function",
    ["os:abort", "sys:exit", "builtins:input", "posix:abort", "code:interact", "this:make"],
)
def test_the_library_of_python_makes_no_network_whoever_is_trusted(tmp_path, function):
    with pytest.raises(ValueError, match="Python's own"):
        be.load(named(tmp_path, function), trust=True)


@pytest.mark.parametrize("trust", [True, ["mynets"]])
@pytest.mark.parametrize("name", ["os.abort", "os._exit", "functools.namedtuple", "make.__class__"])
def test_what_a_trusted_module_imports_is_not_trusted_with_it(tmp_path, installed, name, trust):
    with pytest.raises(ValueError, match="Python's own"):
        be.load(named(tmp_path / "model", f"mynets.tables:{name}"), trust=trust)


def test_what_a_trusted_module_imports_is_not_of_its_package(tmp_path, installed):
    with pytest.raises(ValueError, match="you trust mynets alone"):
        be.load(named(tmp_path / "model", "mynets.tables:nn.Identity"), trust=["mynets"])


@pytest.mark.parametrize("place", ["", ".", "here", "model"])
def test_nothing_beside_the_user_or_the_model_is_imported(tmp_path, monkeypatch, installed, place):
    folder = named(tmp_path / "model", "evil:make")
    for each in (tmp_path, folder):
        (each / "evil.py").write_text(NETWORK.format(ran=str(tmp_path / "ran")))
    monkeypatch.chdir(tmp_path)
    known = {"here": str(tmp_path), "model": str(folder)}
    monkeypatch.syspath_prepend(known.get(place, place))
    before = sys.path[:]
    with pytest.raises(ImportError, match="working directory is not searched"):
        be.load(folder, trust=True)
    assert sys.path == before
    assert not installed()
    # What the user gives by hand is found there, as before.
    assert isinstance(find_network("evil:make"), nn.Module)


def test_what_the_user_imported_already_is_taken(tmp_path, installed):
    assert isinstance(find_network("mynets.tables:make"), nn.Module)
    be.load(saved(tmp_path / "model", "mynets.tables:make"), trust=["mynets"])
    assert installed() == 1


@pytest.mark.parametrize("trust", [None, 1, [1], b"mynets"])
def test_trust_is_true_or_names(tmp_path, trust):
    with pytest.raises(TypeError, match="trust must be"):
        be.load(saved(tmp_path, None), trust=trust)


def test_a_module_that_is_missing_or_fails_says_so(tmp_path, installed):
    with pytest.raises(ImportError, match=r"no nowhere installed.*working directory"):
        be.load(named(tmp_path / "a", "nowhere.at_all:make"), trust=True)
    with pytest.raises(ValueError, match=r"mynets\.tables has no 'mak'; did you mean 'make'"):
        be.load(named(tmp_path / "b", "mynets.tables:mak"), trust=True)


@pytest.mark.parametrize("function", ["make", "os.abort()", "a:b:c", "../a:b", "a b:c", ""])
def test_a_path_that_names_no_function_is_not_saved(tmp_path, function):
    with pytest.raises(ValueError, match=r"package\.module:function"):
        saved(tmp_path / "model", function)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("command", ["evaluate", "decide", "predict", "report"])
def test_every_command_asks_for_trust_in_the_same_words(tmp_path, installed, command, monkeypatch):
    columns = {"feature_names": list("abcd"), "class_names": list("xyz"), "target": "y"}
    model = be.BatchEnsemble(network(), 2).eval()
    folder = be.save(model, tmp_path / "model", network="mynets.tables:make", data=columns)
    rows = "".join(f"{i % 7},{i % 5},{i % 3},1,{'xyz'[i % 3]}\n" for i in range(60))
    (tmp_path / "rows.csv").write_text(f"a,b,c,d,y\n{rows}")
    asked = [command, str(folder), "--data", str(tmp_path / "rows.csv")]
    more = {"predict": ["--out", str(tmp_path / "out.csv")], "report": ["--format", "md"]}
    asked += more.get(command, [])
    refused = CliRunner().invoke(app, asked)
    assert refused.exit_code == 2
    assert refused.output.startswith("Error: ")
    assert "names mynets.tables:make" in refused.output
    assert "--trust" in refused.output
    assert not installed()
    done = CliRunner().invoke(app, [*asked, "--trust"])
    assert done.exit_code == 0, done.output
    assert installed() == 1
    # A network that the user types is looked for beside the user, too.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text(NETWORK.format(ran=str(tmp_path / "mine")))
    done = CliRunner().invoke(app, [*asked, "--network", "evil:make"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "mine").exists()
    assert installed() == 1
