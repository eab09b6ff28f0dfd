"""An ensemble in a training loop of one's own: it is a module, and each member has its loss.

python examples/bare_loop.py
"""

import torch
from sklearn.datasets import make_moons
from torch import nn

import batchensemble as be
from batchensemble.losses import cross_entropy

MEMBERS, EPOCHS, BATCH = 4, 15, 64


def main(examples: int = 2000) -> float:
    """Train on two moons and return the held-out accuracy of the members together."""
    torch.manual_seed(0)
    X, y = make_moons(examples, noise=0.2, random_state=0)
    X, y = torch.from_numpy(X).float(), torch.from_numpy(y)
    train, held_out = slice(examples // 5, None), slice(examples // 5)

    network = nn.Sequential(
        nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2)
    )
    model = be.BatchEnsemble(network, members=MEMBERS)
    optimizer = torch.optim.AdamW(model.parameter_groups(lr=5e-3, weight_decay=1e-2))

    for epoch in range(EPOCHS):
        for rows in torch.randperm(len(X[train])).split(BATCH):
            logits = model(X[train][rows])  # [batch, members, classes]
            losses = cross_entropy(logits, y[train][rows])  # [batch, members]
            # The mean over the examples and the sum over the members: each gets the gradient that
            # it would get alone. (A mean over both would divide its learning rate by M.)
            loss = losses.mean(0).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}: loss of a member {loss.item() / MEMBERS:.4f}")

    scores = be.evaluate(model, (X[held_out], y[held_out]))
    print(f"held-out accuracy {scores['accuracy']:.4f}, NLL {scores['nll']:.4f} nats")
    return scores["accuracy"]


if __name__ == "__main__":
    main()
