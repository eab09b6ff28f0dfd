"""Model folders that a stranger may have made: each is a good one with something done to it."""

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

DEEP = "[" * 100_000 + "]" * 100_000
TWO = ["age", "dose"]
TASK = {"entropy": 0.1, "deviation": 0.1, "held_out": True, "confused_with": []}
CHOICE = {
    "chosen": [4, 1, 0],
    "members": 5,
    "score": "nll",
    "scores": [0.5, 0.4, 0.3],
    "score_of_all": None,
}
EVIL = "evilnet:make"  # a module beside the user that writes a file when it is imported

TABLE: dict[str, Any] = {  # a network of a table with two numbers and three classes
    "numbers": 2,
    "flags": 0,
    "levels": [],
    "outputs": 3,
    "hidden": [8],
    "dropout": 0.1,
    "bins": 4,
    "d_embedding": 2,
    "most_one_hot": 8,
    "d_category": 2,
}

Change = Callable[[Path], None]


def config(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def write_config(folder: Path, values: Any) -> None:
    (folder / "config.json").write_text(json.dumps(values))


def text(content: str | bytes) -> Change:
    """Replace ``config.json`` by other bytes."""
    raw = content if isinstance(content, bytes) else content.encode()
    return lambda folder: _write(folder / "config.json", raw)


def keys(**values: Any) -> Change:
    return lambda folder: write_config(folder, {**config(folder), **values})


def without(*names: str) -> Change:
    def change(folder: Path) -> None:
        write_config(folder, {key: v for key, v in config(folder).items() if key not in names})

    return change


def inside(name: str, **values: Any) -> Change:
    """Change what is in an object of the configuration."""

    def change(folder: Path) -> None:
        found = config(folder)
        write_config(folder, {**found, name: {**found[name], **values}})

    return change


def raw_value(name: str, literal: str) -> Change:
    """Put JSON that Python would not write in the place of a value."""

    def change(folder: Path) -> None:
        found = json.dumps({**config(folder), name: "@"})
        _write(folder / "config.json", found.replace('"@"', literal).encode())

    return change


def loss(name: Any, settings: Any) -> Change:
    def change(folder: Path) -> None:
        keys(loss={"name": name, "settings": settings}, calibration=None)(folder)
        tensors(lambda found: _drop(found, "calibrator.weight", "calibrator.bias"))(folder)

    return change


def weights(make: Callable[[bytes], bytes]) -> Change:
    """Change the bytes of the weights, with the checksum that goes with them."""

    def change(folder: Path) -> None:
        content = make((folder / "model.safetensors").read_bytes())
        _write(folder / "model.safetensors", content)
        keys(sha256=hashlib.sha256(content).hexdigest())(folder)

    return change


def tensors(make: Callable[[dict[str, torch.Tensor]], Any]) -> Change:
    def of(content: bytes) -> bytes:
        found = load(content)
        made = make(found)
        return save(found if made is None else made)

    return weights(of)


def one(name: str, value: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    return tensors(lambda found: {**found, name: value(found[name])})


def header(make: Callable[[dict[str, Any]], Any]) -> Change:
    """Change the header of the weights, and leave what follows it."""

    def of(content: bytes) -> bytes:
        length = struct.unpack("<Q", content[:8])[0]
        found = json.loads(content[8 : 8 + length])
        made = make(found)
        return packed(json.dumps(found if made is None else made), content[8 + length :])

    return weights(of)


def packed(head: str | bytes, data: bytes = b"") -> bytes:
    raw = head.encode() if isinstance(head, str) else head
    return struct.pack("<Q", len(raw)) + raw + data


def both(*changes: Change) -> Change:
    def change(folder: Path) -> None:
        for each in changes:
            each(folder)

    return change


def replaced(name: str, make: Callable[[Path], Any]) -> Change:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return change


def tied_in_a_circle(folder: Path) -> None:
    tensors(lambda found: _drop(found, "network.0.weight", "network.2.weight"))(folder)
    keys(tied={"network.0.weight": "network.2.weight", "network.2.weight": "network.0.weight"})(
        folder
    )


def table(**values: Any) -> Change:
    """Say that the network is one of a table, with sizes that the weights do not have."""
    return keys(network={"table": {**TABLE, **values}}, calibration=None)


def many_layers(folder: Path) -> None:
    keys(network={"mlp": [2] * 300_001})(folder)


def layers_that_the_file_has_not(folder: Path) -> None:
    keys(network={"mlp": [8] * 900}, calibration=None)(folder)


def file_of_holes(path: Path) -> None:
    """Write a file whose size is far more than it takes."""
    path.touch()
    os.truncate(path, 2**40)


def _overlapping(found: dict[str, Any]) -> None:
    found["network.2.weight"]["data_offsets"] = found["network.0.weight"]["data_offsets"]


def _entry(name: str, **values: Any) -> Change:
    return header(lambda found: found[name].update(values))


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _drop(found: dict[str, Any], *names: str) -> None:
    for name in names:
        found.pop(name, None)


def _renamed(found: dict[str, Any]) -> None:
    found["network.9.weight"] = found.pop("network.0.weight")


def _quantised(found: dict[str, Any]) -> dict[str, Any]:
    return {**found, "network.0.weight": found["network.0.weight"].to(torch.float8_e4m3fn)}


NAN, INFINITE = float("nan"), float("inf")
W = "network.0.weight"

CODE: dict[str, Change] = {
    "a function beside the user": keys(network={"function": EVIL}),
    "a function in the folder": both(
        lambda folder: _write(folder / "evilnet.py", b"def make():\n    open('ran', 'w')\n"),
        keys(network={"function": EVIL}),
    ),
    "a function that aborts": keys(network={"function": "os:abort"}),
    "a function that exits": keys(network={"function": "sys:exit"}),
    "a function that waits for a key": keys(network={"function": "builtins:input"}),
    "a class of an installed package": keys(network={"function": "torch.nn:Identity"}),
    "a way through a module to another": keys(network={"function": "torch.nn:init.math.os.abort"}),
    "a path to a file as a function": keys(network={"function": "../evilnet.py:make"}),
    "code as a function": keys(network={"function": "os:system('touch ran')"}),
    "a function that is a list": keys(network={"function": ["os", "abort"]}),
    "a function and widths": keys(network={"function": EVIL, "mlp": [2, 8, 3]}),
    "a network that is a text": keys(network=EVIL),
    "a loss that is a path": loss("os.abort", {}),
    "an option that is a function": inside("options", reset="os:abort"),
    "an option that converts in place": inside("options", inplace=True),
}
TEXTS: dict[str, Change] = {
    "a config that is empty": text(""),
    "a config that is no JSON": text("{'format': 1}"),
    "a config that is not UTF-8": text(b'{"format": 1, "method": "\xff\xfe"}'),
    "a config that is UTF-16": text('{"format": 1}'.encode("utf-16")),
    "a config that is a list": text("[1, 2]"),
    "a config that is a number": text("1"),
    "a config nested 100,000 deep": text('{"format": 1, "method": ' + DEEP + "}"),
    "a config nested 500 deep": raw_value("data", '{"a":' * 500 + "1" + "}" * 500),
    "a config with NaN": raw_value("members", "NaN"),
    "a config with infinity": raw_value("data", '{"mean": [-Infinity]}'),
    "a config with a float that is infinite": raw_value("data", '{"mean": [1e999]}'),
    "a config with a number of 100,000 digits": raw_value("members", "9" * 100_000),
    "a config with a key twice": raw_value("members", '3, "members": 4'),
    "a config with half a letter": raw_value("trained_on", '"\\ud800"'),
    "a config of 20 MB": raw_value("trained_on", '"' + "a" * 20_000_000 + '"'),
    "a config of a million lists": raw_value("data", '{"a": [' + "[]," * 1_000_000 + "[]]}"),
    "a config that is a folder": replaced("config.json", lambda path: path.mkdir()),
    "a config that is a pipe": replaced("config.json", os.mkfifo),
    "a config that is a device": replaced("config.json", lambda path: path.symlink_to("/dev/zero")),
    "a config that is a link to itself": replaced(
        "config.json", lambda path: path.symlink_to(path)
    ),
    "a config that is a link to nothing": replaced(
        "config.json", lambda path: path.symlink_to("nothing")
    ),
    "a config that is a link to a text of the user's": replaced(
        "config.json", lambda path: path.symlink_to(Path(__file__))
    ),
}
KEYS: dict[str, Change] = {
    "no format": without("format"),
    "no method": without("method"),
    "no members": without("members"),
    "no options": without("options"),
    "no network": without("network"),
    "no mode": without("training"),
    "no tied names": without("tied"),
    "no versions": without("versions"),
    "no checksum": without("sha256"),
    "a format of the future": keys(format=2),
    "a format that is true": keys(format=True),
    "a format that is an object": keys(format={"major": 1}),
    "a method that there is not": keys(method="evil"),
    "a method that is a list": keys(method=["batch"]),
    "no member at all": keys(members=0),
    "a billion members": keys(members=10**9),
    "65,000 members": keys(members=65_000),
    "65,000 independent members": both(
        keys(method="deep", members=65_000, options={"stacked": False}, calibration=None)
    ),
    "members that are text": keys(members="3"),
    "members that are true": keys(members=True),
    "members that are 3.5": keys(members=3.5),
    "three members of a single network": keys(method="single", options={"batch_axis": 0}),
    "options that are a list": keys(options=[]),
    "an option that there is not": inside("options", speed=9),
    "a rank of a billion": inside("options", mode="additive", rank=10**9),
    "a rank of 65,000": inside("options", mode="additive", rank=65_000),
    "a rank of 0": inside("options", rank=0),
    "a start that there is not": inside("options", init="evil"),
    "a start that is a list": inside("options", init=["ones"]),
    "a mode that is an object": inside("options", mode={"a": 1}),
    "a batch axis of 7": inside("options", batch_axis=7),
    "a deviation of -1": inside("options", init="normal", std=-1),
    "a selector that is a number": inside("options", exclude=[3]),
    "a selector that finds nothing": inside("options", exclude=["9"]),
    "a pattern that never ends": inside("options", exclude=["*a" * 120 + "b"]),
    "a pattern of a million letters": inside("options", exclude=["*a" * 500_000]),
    "ten thousand patterns": inside("options", exclude=[f"{i}*" for i in range(10_000)]),
    "the same name ten thousand times": inside("options", exclude=["0", "2"] * 5_000),
    "a branch that is nowhere": inside("options", branch_at="9"),
    "a branch that is a list": inside("options", branch_at=["0"]),
    "300,000 layers": many_layers,
    "900 layers that the file has not": layers_that_the_file_has_not,
    "a network of [2, 10^12, 3]": keys(network={"mlp": [2, 10**12, 3]}),
    "a network of [2, 10^18, 3]": keys(network={"mlp": [2, 10**18, 3]}),
    "a network with a width of 0": keys(network={"mlp": [2, 0, 3]}),
    "a network with a width of -1": keys(network={"mlp": [2, -1, 3]}),
    "a network with a width of 2.5": keys(network={"mlp": [2, 2.5, 3]}),
    "a network of one width": keys(network={"mlp": [2]}),
    "a network without widths": keys(network={"mlp": None}),
    "a table's network in the place of another": table(),
    "a table's network that is a list": keys(network={"table": [2, 3]}),
    "a table's network without sizes": keys(network={"table": {}}),
    "a table's network with a size too many": table(evil=1),
    "a table's network and widths": keys(network={"table": TABLE, "mlp": [2, 8, 3]}),
    "a table of 10^12 numbers": table(numbers=10**12),
    "a table of a million numbers": table(numbers=10**6),
    "a table of a million flags": table(flags=10**6),
    "a table of half a number": table(numbers=2.5),
    "a table of true numbers": table(numbers=True),
    "a table without columns": table(numbers=0),
    "a table of 10^12 levels": table(levels=[10**12]),
    "a table of 10^18 levels": table(levels=[10**18]),
    "a table of a million categories": table(levels=[9] * 10**6),
    "a table of a million levels as indicators": table(levels=[10**6] * 9, most_one_hot=2**20),
    "a table with levels that are text": table(levels=["9"]),
    "a table with a level of 0": table(levels=[0]),
    "a table with levels that are a number": table(levels=9),
    "a table with 10^12 bins": table(bins=10**12),
    "a table with embeddings of 10^12": table(d_embedding=10**12),
    "a table with a hidden width of 10^12": table(hidden=[10**12, 10**12]),
    "a table with 900 hidden layers": table(hidden=[8] * 900),
    "a table with 300,000 hidden layers": table(hidden=[8] * 300_000),
    "a table without hidden layers": table(hidden=[]),
    "a table with 10^12 outputs": table(outputs=10**12),
    "a table with dropout of 1": table(dropout=1),
    "a table with dropout of -1": table(dropout=-1),
    "a table with dropout that is text": table(dropout="0.1"),
    "a mode that is text": keys(training="false"),
    "versions that are numbers": keys(versions={"batchensemble": 1}),
    "a checksum that is short": keys(sha256="abc"),
    "a checksum of something else": keys(sha256="0" * 64),
    "frozen weights that there are not": keys(frozen=["network.9.weight"]),
    "frozen weights that are numbers": keys(frozen=[1]),
    "tied names in a circle": tied_in_a_circle,
    "a tied name that is not there": both(
        tensors(lambda found: _drop(found, W)), keys(tied={W: "nothing"})
    ),
    "a tied name that is there itself": keys(tied={W: "network.2.weight"}),
    "tied names that are a list": keys(tied=[W]),
    "weights of another shape tied": both(
        tensors(lambda found: _drop(found, W)), keys(tied={W: "network.2.weight"})
    ),
    "a text as what it was trained on": keys(trained_on=7),
    "a choice that is a list": keys(choice=[0, 1]),
    "a choice without scores": keys(choice={"chosen": [0, 1]}),
    "a choice of more members than there are": keys(choice={**CHOICE, "chosen": [0, 1, 2, 3]}),
    "a choice of one member, three times": keys(choice={**CHOICE, "chosen": [1, 1, 1]}),
    "a choice by a score that is a number": keys(choice={**CHOICE, "score": 1}),
    "tasks that are an object": keys(tasks={}),
    "more tasks than members": keys(tasks=[TASK] * 4),
    "a task without an entropy": keys(tasks=[{"held_out": True}]),
    "a task of endless entropy": keys(tasks=[{**TASK, "entropy": 1e400}]),
    "a task that is taken for a later one": keys(tasks=[{**TASK, "confused_with": [0]}]),
    "a calibrator that is a list": keys(calibration=[1]),
    "a calibrator of another method": inside("calibration", method="os"),
    "a calibrator of a method that is an object": inside("calibration", method={}),
    "a calibrator that pools nowhere": inside("calibration", pooling="never"),
    "a calibrator of a terabyte": inside(
        "calibration", shapes={"weight": [1, 10**12], "bias": [1, 10**12]}
    ),
    "a calibrator of other numbers": inside("calibration", shapes={"forward": [1, 3]}),
    "a calibrator without shapes": inside("calibration", shapes={}),
    "a calibrator of two members": inside("calibration", shapes={"weight": [2, 3], "bias": [2, 3]}),
    "a calibrator of one class": both(
        inside("calibration", shapes={"weight": [1, 1], "bias": [1, 1]}),
        tensors(
            lambda found: found.update(
                {f"calibrator.{n}": torch.ones(1, 1) for n in ("weight", "bias")}
            )
        ),
    ),
    "a calibrator of four classes": both(
        inside("calibration", shapes={"weight": [1, 4], "bias": [1, 4]}),
        tensors(
            lambda found: found.update(
                {f"calibrator.{n}": torch.ones(1, 4) for n in ("weight", "bias")}
            )
        ),
    ),
    "a calibrator that is negative": one("calibrator.weight", lambda value: -value),
    "a calibrator that is NaN": one("calibrator.bias", lambda value: value * NAN),
    "a calibrator of a model of numbers": keys(loss={"name": "mse", "settings": {}}),
    "a loss that there is not": loss("evil", {}),
    "a loss that is a list": loss(["mse"], {}),
    "a loss without settings": keys(loss={"name": "mse"}),
    "a loss with a setting that it has not": loss("mse", {"function": "os:abort"}),
    "a loss of labels smoothed by 7": loss("cross_entropy", {"label_smoothing": 7}),
    "a loss with a weight of a class that there is not": loss(
        "cross_entropy", {"class_weight": {"900": 1.0}}
    ),
    "a loss with weights of text": loss("cross_entropy", {"class_weight": {"a": 1.0}}),
    "a loss with a delta of text": loss("huber", {"delta": "large"}),
    "a loss with a floor of 10^301": loss("gaussian_nll", {"floor": 1e301}),
    "a loss with levels that are no list": loss("quantile", {"levels": 0.5}),
    "a loss with levels above 1": loss("quantile", {"levels": [0.5, 2.0, 0.9]}),
    "a loss with outputs that the network has not": loss("gaussian_nll", {}),
    "a loss that is standardised 50 times": loss(
        "standardised",
        json.loads('{"loss": {"name": "standardised", "settings": ' * 20 + "{}" + "}}" * 20),
    ),
    "a loss with a deviation of 0": loss(
        "standardised",
        {"loss": {"name": "mse", "settings": {}}, "mean": [0, 0, 0], "deviation": [1, 0, 1]},
    ),
    "a loss with more means than targets": loss(
        "standardised",
        {"loss": {"name": "mse", "settings": {}}, "mean": [0, 0], "deviation": [1, 1]},
    ),
    "data that are a list": keys(data=[1]),
    "features that are numbers": inside("data", feature_names=[1, 2]),
    "features that are one text": inside("data", feature_names="ab"),
    "the same feature twice": inside("data", feature_names=["age", "age"]),
    "classes that are numbers": inside("data", class_names=[0, 1, 2]),
    "classes that are null": inside("data", class_names=[None, "b", "c"]),
    "the same class twice": inside("data", class_names=["a", "a", "b"]),
    "a scale of 0": inside("data", scale=[1.0, 0.0]),
    "a scale of text": inside("data", scale=["1", "1"]),
    "a scale of three for two features": inside("data", scale=[1.0, 1.0, 1.0]),
    "a mean without a scale": inside("data", scale=[]),
    "columns that are numbers": keys(feature_names=[1, 2]),
    "columns that are one text": keys(class_names="ab"),
    "a scaling of text": keys(feature_names=TWO, feature_scaling=[["1"] * 2, ["1"] * 2]),
    "a scaling by 0": keys(feature_names=TWO, feature_scaling=[[0, 0], [1, 0]]),
    "a scaling of three": keys(feature_names=TWO, feature_scaling=[[0] * 3, [1] * 3]),
    "a scaling of no columns": keys(feature_names=None, feature_scaling=[[0, 0], [1, 1]]),
    "a target that is a list": inside("data", target=["kind"]),
}
WEIGHTS: dict[str, Change] = {
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "weights that are a folder": replaced("model.safetensors", lambda path: path.mkdir()),
    "weights that are a pipe": replaced("model.safetensors", os.mkfifo),
    "weights that are a device": replaced(
        "model.safetensors", lambda path: path.symlink_to("/dev/zero")
    ),
    "weights of a terabyte of holes": replaced("model.safetensors", file_of_holes),
    "weights that are empty": weights(lambda content: b""),
    "weights that are a pickle": weights(lambda content: b"\x80\x04cos\nabort\n)R."),
    "weights with a byte flipped": lambda folder: _write(
        folder / "model.safetensors",
        (folder / "model.safetensors").read_bytes()[:-1] + b"\x7f",
    ),
    "weights that end early": weights(lambda content: content[:-4]),
    "weights that end within the header": weights(lambda content: content[:40]),
    "weights with more behind": weights(lambda content: content + b"\0" * 8),
    "a header of 2^60 bytes": weights(lambda content: struct.pack("<Q", 2**60) + content[8:]),
    "a header of all ones": weights(lambda content: b"\xff" * 8 + content[8:]),
    "a header of no JSON": weights(lambda content: packed("{'a': 1}")),
    "a header that is not UTF-8": weights(lambda content: packed(b'{"\xff": 1}')),
    "a header that is a list": weights(lambda content: packed("[]")),
    "a header nested 100,000 deep": weights(lambda content: packed('{"a": ' + DEEP + "}")),
    "a header without tensors": weights(lambda content: packed("{}")),
    "a header with a tensor twice": weights(
        lambda content: packed(
            '{"a": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}, '
            '"a": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}}',
            b"\0" * 4,
        )
    ),
    "a header of 200,000 tensors": weights(
        lambda content: packed(
            "{"
            + ",".join(
                f'"{i}": {{"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}'
                for i in range(200_000)
            )
            + "}"
        )
    ),
    "offsets that overlap": header(_overlapping),
    "offsets beyond the file": _entry(W, data_offsets=[10**12, 10**12 + 64]),
    "offsets that run backwards": _entry(W, data_offsets=[64, 0]),
    "offsets that are negative": _entry(W, data_offsets=[-64, 0]),
    "offsets that are text": _entry(W, data_offsets=["0", "64"]),
    "a shape larger than its bytes": _entry(W, shape=[10**9, 10**9]),
    "a shape of ten thousand axes": _entry(W, shape=[1] * 10_000),
    "a shape that is negative": _entry(W, shape=[-8, -2]),
    "a shape that is half": _entry(W, shape=[8.0, 2]),
    "a type that there is not": _entry(W, dtype="PICKLE"),
    "a type that is a list": _entry(W, dtype=["F32"]),
    "a tensor without a type": header(lambda found: found[W].pop("dtype")),
    "a tensor that is null": header(lambda found: found.update({W: None})),
    "a weight that is NaN": one(W, lambda value: value.fill_(NAN)),
    "a weight that is infinite": one("network.0.r", lambda value: value.fill_(-INFINITE)),
    "a bias with one NaN": one(
        "network.2.bias", lambda value: value.index_fill(1, torch.tensor([2]), NAN)
    ),
    "weights that are whole numbers": one(W, lambda value: value.to(torch.int32)),
    "weights that are truth values": one(W, lambda value: value > 0),
    "weights that are float8": tensors(_quantised),
    "weights that are complex": one(W, lambda value: value.to(torch.complex64)),
    "a weight missing": tensors(lambda found: _drop(found, W)),
    "a weight too many": tensors(lambda found: found.update(extra=torch.zeros(3))),
    "a weight of another name": tensors(_renamed),
    "a weight of another shape": one(W, lambda value: value.reshape(2, 8).contiguous()),
    "members of another number": one("network.0.r", lambda value: value[:2].contiguous()),
}
FOLDERS = {**CODE, **TEXTS, **KEYS, **WEIGHTS}


def hostile(name: str, good: Path, folder: Path) -> Path:
    """Return a copy of a good folder with something done to it."""
    shutil.copytree(good, folder)
    FOLDERS[name](folder)
    return folder
