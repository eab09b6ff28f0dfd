"""Models go into folders with a card and come back, from folders and from a stand-in of the Hub."""

import fnmatch
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from huggingface_hub.utils import validate_repo_id
from torch import nn

import batchensemble as be
from batchensemble.ensembles.saving.hub import is_hub_name


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3))


def tanh():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 3))


def calibrated():
    model = be.BatchEnsemble(mlp(), 4).eval()
    wide = 20 * torch.randn(50, 2)
    labels = torch.from_numpy(be.predict(model, wide).labels)
    labels[:10] = labels.flip(0)[:10]
    return be.calibrate(model, (wide, labels))


X = torch.linspace(-1, 1, 20).reshape(10, 2)
MODELS = {
    "single": lambda: be.Single(mlp()),
    "deep": lambda: be.DeepEnsemble(mlp(), 2),
    "batch": lambda: be.BatchEnsemble(mlp(), 4),
    "mimo": lambda: be.MIMO(mlp(), 2),
    "calibrated": calibrated,
}


@pytest.fixture
def no_hub(monkeypatch):
    """Fail where the Hub is asked for anything."""

    def refuse(*args, **kwargs):
        raise AssertionError("the Hub was asked")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    monkeypatch.setattr(huggingface_hub, "HfApi", refuse)


class Hub:
    """What downloads and uploads do, with a folder in place of the Hub."""

    def __init__(self, files: Path, local: Path) -> None:
        self.files, self.local, self.asked = files, local, {}

    def snapshot_download(self, name, *, allow_patterns, **options):
        self.asked = {"name": name, **options}
        for path in self.files.iterdir():
            if any(fnmatch.fnmatch(path.name, each) for each in allow_patterns):
                shutil.copy(path, self.local)
        return str(self.local)


class Api:
    """What ``HfApi`` does with uploads: it keeps them."""

    def __init__(self) -> None:
        self.calls, self.token, self.uploaded = [], None, {}

    def __call__(self, token=None):
        self.token = token
        return self

    def create_repo(self, name, **options):
        self.calls.append(("create_repo", name, options))
        return SimpleNamespace(repo_id=name if "/" in name else f"ann/{name}")

    def create_branch(self, name, **options):
        self.calls.append(("create_branch", name, options))

    def upload_folder(self, *, repo_id, folder_path, allow_patterns, **options):
        self.calls.append(("upload_folder", repo_id, options))
        for path in Path(folder_path).iterdir():
            assert any(fnmatch.fnmatch(path.name, each) for each in allow_patterns)
            self.uploaded[path.name] = path.read_bytes()
        where = f"https://huggingface.co/{repo_id}"
        pr = f"{where}/discussions/1" if options["create_pr"] else None
        return SimpleNamespace(commit_url=f"{where}/commit/1", pr_url=pr)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    files, local = tmp_path / "on the hub", tmp_path / "here"
    files.mkdir()
    local.mkdir()
    found = Hub(files, local)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", found.snapshot_download)
    return found


@pytest.fixture
def api(monkeypatch):
    found = Api()
    monkeypatch.setattr(huggingface_hub, "HfApi", found)
    return found


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize("kind", MODELS)
def test_a_model_comes_back_from_its_folder(kind, tmp_path):
    model = MODELS[kind]().eval()
    folder = model.save_pretrained(tmp_path / "model")
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
    }
    again = be.from_pretrained(folder)
    assert type(again) is type(model)
    for one, other in zip(be.predict(again, X).probs, be.predict(model, X).probs, strict=True):
        assert one.tolist() == other.tolist()


@pytest.mark.usefixtures("no_hub")
def test_another_network_comes_back_on_one_of_its_architecture(tmp_path):
    model = be.BatchEnsemble(tanh(), 4).eval()
    model.save_pretrained(tmp_path)
    assert torch.equal(be.from_pretrained(str(tmp_path), tanh())(X), model(X))
    assert (
        "be.from_pretrained('path/to/this/folder', network)" in (tmp_path / "README.md").read_text()
    )
    with pytest.raises(ValueError, match="does not say how to build its network"):
        be.from_pretrained(tmp_path)


def test_nothing_that_a_folder_names_is_imported_unless_trusted(tmp_path):
    name = "batchensemble.never_imported"
    be.BatchEnsemble(tanh(), 4).save_pretrained(tmp_path, network=f"{name}:make")
    with pytest.raises(ValueError, match=f"names {name}:make to make its network"):
        be.from_pretrained(tmp_path)
    with pytest.raises(ImportError, match="there is no"):
        be.from_pretrained(tmp_path, trust=["batchensemble"])
    assert "trust=['batchensemble']" in (tmp_path / "README.md").read_text()


def adapted():
    model = be.adapt(mlp(), members=4, heads=["2"])
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)
    return model.eval()


@pytest.mark.usefixtures("no_hub")
def test_of_an_adapted_network_the_adapter_is_saved(tmp_path):
    model = adapted()
    folder = model.save_pretrained(tmp_path / "adapter")
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "adapter.json",
        "adapter.safetensors",
    }
    assert torch.equal(be.from_pretrained(folder, mlp())(X), model(X))
    with pytest.raises(ValueError, match=r"holds an adapter.*as network="):
        be.from_pretrained(folder)
    be.save_adapter(model, tmp_path / "bare")
    assert torch.equal(be.from_pretrained(tmp_path / "bare", mlp())(X), model(X))
    whole = model.save_pretrained(tmp_path / "whole", whole=True)
    assert torch.equal(be.from_pretrained(whole)(X), model(X))
    assert "', network)" not in (whole / "README.md").read_text()


def test_a_model_and_an_adapter_in_one_folder_are_refused(tmp_path):
    model = adapted()
    be.BatchEnsemble(mlp(), 4).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"holds a model \(config.json\), and an adapter beside"):
        model.save_pretrained(tmp_path)
    be.save_adapter(model, tmp_path)
    with pytest.raises(ValueError, match=r"holds a model .* and an adapter"):
        be.from_pretrained(tmp_path, mlp())


def test_network_is_no_argument_of_adapters(tmp_path):
    with pytest.raises(ValueError, match="network is of whole models"):
        adapted().save_pretrained(tmp_path, network="torchvision.models:resnet18")


@pytest.mark.usefixtures("no_hub")
def test_an_existing_folder_wins_over_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    be.BatchEnsemble(mlp(), 4).save_pretrained("ann/moons")
    assert be.from_pretrained("ann/moons").members == 4
    with pytest.raises(ValueError, match="revision is of models on the Hugging Face Hub"):
        be.from_pretrained("ann/moons", revision="v1")


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize("where", ["runs/moons/4", "./moons", "~/moons", "a b", "a..b", "moons."])
def test_what_is_no_name_is_not_looked_up(where, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is n"):
        be.from_pretrained(where)


def test_names_are_those_that_the_hub_takes():
    pieces = ["ann", "a.b", "-a", ".a", "a-", "a.", "a--b", "a..b", "a.git", "é", "", "x" * 97, "_"]
    for name in [*pieces, *(f"{one}/{other}" for one in pieces for other in ("m", "a.git", "m-"))]:
        try:
            validate_repo_id(name)
        except HFValidationError:
            assert not is_hub_name(name), name
        else:
            assert is_hub_name(name), name


@pytest.mark.usefixtures("no_hub")
def test_a_path_is_a_folder_and_a_file_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no folder ann/moons"):
        be.from_pretrained(Path("ann/moons"))
    Path("moons").touch()
    with pytest.raises(ValueError, match="moons is a file; give the folder"):
        be.from_pretrained("moons")


def test_only_the_files_of_the_format_are_downloaded(hub):
    model = be.BatchEnsemble(mlp(), 4).eval()
    model.save_pretrained(hub.files)
    for name in ("modeling.py", "pytorch_model.bin", "training_args.pkl", "run.toml", "x.json"):
        (hub.files / name).write_text("import os")
    again = be.from_pretrained("ann/moons", revision="v1", token="secret", cache_dir="cache")
    assert torch.equal(again(X), model(X))
    assert {path.name for path in hub.local.iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
    }
    assert hub.asked == {
        "name": "ann/moons",
        "revision": "v1",
        "token": "secret",
        "cache_dir": "cache",
        "local_files_only": False,
    }


def test_an_adapter_is_downloaded_too(hub):
    model = adapted()
    model.save_pretrained(hub.files)
    assert torch.equal(be.from_pretrained("ann/moons", mlp())(X), model(X))


def test_a_repository_without_a_model_is_called_by_its_name(hub):
    (hub.files / "pytorch_model.bin").touch()
    with pytest.raises(FileNotFoundError, match=r"neither a model \(config.json\).* in ann/moons"):
        be.from_pretrained("ann/moons")


def test_what_was_tried_is_said_where_there_is_neither(monkeypatch):
    def fail(name, **options):
        raise LocalEntryNotFoundError("cannot reach it.\nmore lines")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    said = (
        "there is no folder ann/moons, and ann/moons at revision v1 could not be read from the "
        "Hugging Face Hub: cannot reach it."
    )
    with pytest.raises(FileNotFoundError) as caught:
        be.from_pretrained("ann/moons", revision="v1")
    assert str(caught.value) == said


def test_the_cache_of_the_hub_is_read_for_real(tmp_path):
    """Without a stand-in: the layout is that of huggingface_hub, and no connection is needed."""
    model = be.BatchEnsemble(mlp(), 4).eval()
    commit, repository = "a" * 40, tmp_path / "models--ann--moons"
    model.save_pretrained(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "v1").write_text(commit)
    options = {"cache_dir": tmp_path, "local_files_only": True}
    assert torch.equal(be.from_pretrained("ann/moons", revision="v1", **options)(X), model(X))
    with pytest.raises(FileNotFoundError, match="could not be read from the Hugging Face Hub"):
        be.from_pretrained("ann/others", **options)


def test_without_the_extra_folders_are_read_and_names_say_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    model = be.BatchEnsemble(mlp(), 4)
    assert be.from_pretrained(model.save_pretrained(tmp_path)).members == 4
    for call in (lambda: be.from_pretrained("ann/moons"), lambda: model.push_to_hub("ann/moons")):
        with pytest.raises(ImportError, match=r"pip install 'batchensemble\[hub\]'"):
            call()


def test_push_uploads_the_model_with_a_card_that_names_it(api, hub):
    model = be.BatchEnsemble(mlp(), 4).eval()
    address = model.push_to_hub("moons", private=True, token="secret")
    assert address == "https://huggingface.co/ann/moons/commit/1"
    assert set(api.uploaded) == {"README.md", "config.json", "model.safetensors"}
    assert "be.from_pretrained('ann/moons')" in api.uploaded["README.md"].decode()
    assert [name for name, *_ in api.calls] == ["create_repo", "upload_folder"]
    assert api.calls[0][2] == {"private": True, "exist_ok": True}
    assert api.token == "secret"
    for name, content in api.uploaded.items():
        (hub.files / name).write_bytes(content)
    assert torch.equal(be.from_pretrained("ann/moons")(X), model(X))


def test_push_of_a_text_names_the_model_in_it(api):
    model = be.BatchEnsemble(mlp(), 4)
    model.push_to_hub("moons", card=be.model_card(model, title="Mine"))
    text = api.uploaded["README.md"].decode()
    assert "# Mine\n" in text
    assert "be.from_pretrained('ann/moons')" in text
    model.push_to_hub("moons", card="path 'path/to/this/folder'")
    assert api.uploaded["README.md"] == b"path 'path/to/this/folder'"


def test_push_to_a_branch_or_as_a_proposal(api):
    address = adapted().push_to_hub(
        "ann/moons", card=False, revision="v2", commit_message="Second", create_pr=True
    )
    assert address == "https://huggingface.co/ann/moons/discussions/1"
    assert set(api.uploaded) == {"adapter.json", "adapter.safetensors"}
    assert api.calls[1] == ("create_branch", "ann/moons", {"branch": "v2", "exist_ok": True})
    expected = {"revision": "v2", "commit_message": "Second", "create_pr": True}
    assert api.calls[2] == ("upload_folder", "ann/moons", expected)


def test_nothing_is_created_for_a_model_that_cannot_be_saved(api):
    model = be.BatchEnsemble(mlp(), 4)
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match="must be finite to be saved"):
        model.push_to_hub("ann/moons")
    with pytest.raises(ValueError, match="name must be that of a model"):
        be.BatchEnsemble(mlp(), 4).push_to_hub("./moons")
    with pytest.raises(TypeError, match="card must be scores"):
        be.BatchEnsemble(mlp(), 4).push_to_hub("ann/moons", card=1)
    assert api.calls == []


def test_a_card_of_the_user_is_not_replaced(tmp_path):
    model = be.BatchEnsemble(mlp(), 4)
    card = tmp_path / "README.md"
    card.write_text("# Mine")
    with pytest.raises(ValueError, match=r"README.md was not written by batchensemble.*card=False"):
        model.save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    model.save_pretrained(tmp_path, card=False)
    assert card.read_text() == "# Mine"
    model.save_pretrained(tmp_path, card="# Ours")
    assert card.read_text() == "# Ours"
    card.unlink()
    model.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path, card=be.evaluate(model, (X, torch.arange(10) % 3)))
    assert "## Scores" in card.read_text()
