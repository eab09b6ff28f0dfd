"""Movie snippets that people rated, as tokens of a pretrained network's vocabulary.

The sdist of ``vaderSentiment`` (MIT) ships 10,605 of them; a snippet is positive if its mean rating
is above 0. ``pip download --no-binary :all: --no-deps vaderSentiment`` fetches it.
"""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

RESOURCES = "additional_resources/hutto_ICWSM_2014.tar.gz"
SNIPPETS = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
TOKENS = 32  # a snippet has 25 in the mean; longer ones are cut

Inputs = dict[str, Tensor]


@dataclass(frozen=True)
class Split:
    """Snippets to train on and others to score by.

    Attributes:
        train: inputs and classes.
        stop: the same of others, to choose the epoch by.
        test: the same of others.
    """

    train: tuple[Inputs, Tensor]
    stop: tuple[Inputs, Tensor]
    test: tuple[Inputs, Tensor]


def read_snippets(sdist: Path) -> tuple[list[str], Tensor]:
    """Return the snippets and their classes, 1 for positive ones.

    Args:
        sdist: the file ``vaderSentiment-*.tar.gz``.
    """
    with tarfile.open(sdist) as outer:
        name = next(each for each in outer.getnames() if each.endswith(RESOURCES))
        inner = outer.extractfile(name)
        assert inner is not None
        with tarfile.open(fileobj=io.BytesIO(inner.read())) as resources:
            file = resources.extractfile(SNIPPETS)
            assert file is not None
            rows = [line.split("\t") for line in file.read().decode().splitlines() if line.strip()]
    return [text for _, _, text in rows], torch.tensor([float(r) > 0 for _, r, _ in rows]).long()


def tokens(texts: list[str], folder: Path) -> Inputs:
    """Return the inputs of a pretrained network, all of one length.

    Args:
        texts: the texts.
        folder: of the network, with its ``tokenizer.json``.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(TOKENS)
    tokenizer.enable_padding(length=TOKENS)
    encoded = tokenizer.encode_batch(texts)
    return {
        "input_ids": torch.tensor([each.ids for each in encoded]),
        "attention_mask": torch.tensor([each.attention_mask for each in encoded]),
    }


def split(inputs: Inputs, labels: Tensor, train: int, test: int, seed: int) -> Split:
    """Return parts of the snippets, drawn by a seed; a fifth of the first is to stop by.

    Args:
        inputs: of all snippets.
        labels: their classes.
        train: number of snippets to train on and to stop by.
        test: number of snippets to score by.
        seed: draws them.
    """
    order = _order(labels, seed)
    fitted = train * 4 // 5
    parts = [
        ({name: each[rows] for name, each in inputs.items()}, labels[rows])
        for rows in (order[:fitted], order[fitted:train], order[train : train + test])
    ]
    return Split(*parts)


def unscored(labels: Tensor, train: int, test: int, seeds: int) -> Tensor:
    """Return the indices of the snippets that no seed is scored on, as `split` draws them.

    Args:
        labels: the classes of all snippets.
        train: number of snippets to train on and to stop by.
        test: number of snippets to score by.
        seeds: number of seeds, from 0 on.
    """
    free = torch.ones(len(labels), dtype=torch.bool)
    for seed in range(seeds):
        free[_order(labels, seed)[train : train + test]] = False
    return free.nonzero().squeeze(1)


def _order(labels: Tensor, seed: int) -> Tensor:
    return torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
