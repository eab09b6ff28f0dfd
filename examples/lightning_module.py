"""An ensemble in a LightningModule.

pip install lightning
python examples/lightning_module.py
"""

import lightning
import torch
from sklearn.datasets import make_moons
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import batchensemble as be
from batchensemble.losses import cross_entropy

MEMBERS = 4


class Moons(lightning.LightningModule):
    """Trains the members together; the accuracy is that of their mean."""

    def __init__(self, model: be.Ensemble) -> None:
        super().__init__()
        self.model = model

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the sum of the members' losses, so that each learns as it would alone."""
        X, y = batch
        return cross_entropy(self.model(X), y).mean(0).sum()

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        """Score the mean of the members' probabilities."""
        X, y = batch
        probs = self.model(X).softmax(-1).mean(1)
        self.log("accuracy", (probs.argmax(1) == y).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Use the ensemble's groups: fast weights and biases without decay."""
        return torch.optim.AdamW(self.model.parameter_groups(lr=5e-3, weight_decay=1e-2))


def main(epochs: int = 15) -> float:
    """Train on two moons and return the held-out accuracy of the members together."""
    torch.manual_seed(0)
    X, y = make_moons(2000, noise=0.2, random_state=0)
    data = TensorDataset(torch.from_numpy(X).float(), torch.from_numpy(y))
    train, held_out = torch.utils.data.random_split(data, [1600, 400])
    network = nn.Sequential(
        nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2)
    )
    module = Moons(be.BatchEnsemble(network, MEMBERS))
    trainer = lightning.Trainer(
        max_epochs=epochs, logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.fit(module, DataLoader(train, 64, shuffle=True), DataLoader(held_out, 400))
    accuracy = float(trainer.callback_metrics["accuracy"])
    print(f"held-out accuracy {accuracy:.4f}")
    return accuracy


if __name__ == "__main__":
    main()
