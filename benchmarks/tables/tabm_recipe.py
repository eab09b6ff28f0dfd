"""The package ``tabm`` as its authors use it: k 32, embeddings, AdamW, stopped on held-out rows.

After the example of its repository (github.com/yandex-research/tabm, ``example.ipynb``): numbers
are made normal by their quantiles with a little noise, piecewise-linear embeddings of version B,
AdamW with a learning rate of 2e-3 and a weight decay of 3e-4, batches of 256, gradients clipped to
a norm of 1, and a patience of 16 epochs. It stops on the NLL of classes, as ours does, and on the
squared error of numbers.
"""

from __future__ import annotations

import copy

import numpy as np
import rtdl_num_embeddings
import torch
import torch.nn.functional as F
from tabm import TabM
from torch import Tensor

from benchmarks.tables.encode import Inputs
from benchmarks.tables.methods import Answer, Rows
from benchmarks.tables.scores import Numbers
from benchmarks.tables.seconds import Stopwatch

MEMBERS, BINS, WIDTH = 32, 48, 16
LR, DECAY, BATCH, CLIP, PATIENCE, EPOCHS = 2e-3, 3e-4, 256, 1.0, 16, 400

Pair = tuple[Tensor | None, Tensor | None]


def run(rows: Rows, watch: Stopwatch) -> Answer:
    """Fit it and return what it says of the rows to predict."""
    torch.manual_seed(rows.seed)
    fitted, held = rows.parted()
    with watch.fitting():
        inputs = Inputs(rows.train.iloc[fitted], quantiles=True, seed=rows.seed)
        x = _tensors(inputs, rows.train)
        mean, std = rows.y[fitted].mean(), rows.y[fitted].std()
        y = torch.tensor(rows.y if rows.classes else (rows.y - mean) / std)
        y = y.long() if rows.classes else y.float()
        model = _model(inputs, _at(x, fitted), rows.classes)
        _train(model, x, y, fitted, held)
    with watch.predicting():
        outputs = _outputs(model, _tensors(inputs, rows.test))
    if rows.classes:
        return outputs.softmax(-1).mean(1).numpy()
    numbers = outputs.mean(1)[:, 0].double().numpy() * std + mean
    errors = _outputs(model, _at(x, held)).mean(1)[:, 0] - y[held]
    return Numbers.normal(numbers, float(errors.pow(2).mean().sqrt()) * float(std))


def _model(inputs: Inputs, x: Pair, classes: int) -> TabM:
    numbers, _ = x
    count = 0 if numbers is None else numbers.shape[1]
    embeddings = None
    if numbers is not None:
        # The package computes bins only where a column has two values.
        bins = [
            rtdl_num_embeddings.compute_bins(column[:, None], min(BINS, len(column) - 1))[0]
            if len(column.unique()) > 1
            else column[0] + torch.tensor([-0.5, 0.5])
            for column in numbers.t()
        ]
        embeddings = rtdl_num_embeddings.PiecewiseLinearEmbeddings(
            bins, WIDTH, activation=False, version="B"
        )
    return TabM.make(
        n_num_features=count,
        cat_cardinalities=inputs.cardinalities or None,
        d_out=classes or 1,
        num_embeddings=embeddings,
        k=MEMBERS,
    )


def _train(model: TabM, x: Pair, y: Tensor, fitted: np.ndarray, held: np.ndarray) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=DECAY)
    best, waited, weights = np.inf, 0, model.state_dict()
    for _ in range(EPOCHS):
        model.train()
        for rows in torch.from_numpy(fitted)[torch.randperm(len(fitted))].split(BATCH):
            optimizer.zero_grad()
            outputs = model(*_at(x, rows.numpy()))
            targets = y[rows].repeat_interleave(outputs.shape[1])
            _loss(outputs.flatten(0, 1), targets).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
        value = _held_out(_outputs(model, _at(x, held)), y[held])
        if value < best:
            best, waited, weights = value, 0, copy.deepcopy(model.state_dict())
        else:
            waited += 1
            if waited > PATIENCE:
                break
    model.load_state_dict(weights)


def _loss(outputs: Tensor, targets: Tensor) -> Tensor:
    if targets.is_floating_point():
        return F.mse_loss(outputs[:, 0], targets)
    return F.cross_entropy(outputs, targets)


def _held_out(outputs: Tensor, targets: Tensor) -> float:
    """Return the loss of the mean prediction."""
    if targets.is_floating_point():
        return float(F.mse_loss(outputs.mean(1)[:, 0], targets))
    return float(F.nll_loss(outputs.softmax(-1).mean(1).log(), targets))


@torch.no_grad()
def _outputs(model: TabM, x: Pair) -> Tensor:
    model.eval()
    count = len(next(part for part in x if part is not None))
    pieces = torch.arange(count).split(1_024)
    return torch.cat([model(*_at(x, piece.numpy())) for piece in pieces])


def _tensors(inputs: Inputs, frame: object) -> Pair:
    numbers = torch.tensor(inputs.numeric(frame), dtype=torch.float32)
    codes = torch.tensor(inputs.codes(frame), dtype=torch.long)
    return (numbers if numbers.shape[1] else None, codes if codes.shape[1] else None)


def _at(x: Pair, index: np.ndarray) -> Pair:
    numbers, codes = x
    return (None if numbers is None else numbers[index], None if codes is None else codes[index])
