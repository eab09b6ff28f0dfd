"""An ensemble of a Hugging Face network, trained by its Trainer.

The task: are most words of a sentence from the second half of the vocabulary?

pip install "transformers[torch]"
python examples/transformers_trainer.py
"""

import tempfile

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

import batchensemble as be
from batchensemble.losses import cross_entropy

MEMBERS, WORDS, LENGTH = 3, 20, 7


class MembersTogether(nn.Module):
    """What a Trainer expects of a model: the loss, then the logits."""

    def __init__(self, ensemble: be.Ensemble) -> None:
        super().__init__()
        self.ensemble = ensemble

    def forward(self, input_ids: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the summed losses of the members, and logits ``[batch, members, classes]``."""
        logits = self.ensemble(input_ids=input_ids).logits
        return cross_entropy(logits, labels).mean(0).sum(), logits


def sentences(count: int) -> list[dict[str, Tensor]]:
    """Return random sentences; the label says which half most words are from."""
    words = torch.randint(WORDS, (count, LENGTH))
    labels = (words >= WORDS // 2).float().mean(1).round().long()
    return [{"input_ids": each, "labels": label} for each, label in zip(words, labels, strict=True)]


def main(steps: int = 100) -> float:
    """Train and return the held-out accuracy of the members together."""
    torch.manual_seed(0)
    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = BertConfig(vocab_size=WORDS, intermediate_size=64, num_labels=2, **size)
    model = MembersTogether(be.BatchEnsemble(BertForSequenceClassification(config), MEMBERS))
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            max_steps=steps,
            per_device_train_batch_size=64,
            learning_rate=3e-3,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
        )
        groups = model.ensemble.parameter_groups(lr=3e-3, weight_decay=1e-2)
        optimizer = torch.optim.AdamW(groups)
        trainer = Trainer(
            model, arguments, train_dataset=sentences(5000), optimizers=(optimizer, None)
        )
        trainer.train()
        predicted = trainer.predict(sentences(500))
    probs = torch.from_numpy(predicted.predictions).softmax(-1).mean(1)  # over the members
    accuracy = (probs.argmax(1).numpy() == predicted.label_ids).mean().item()
    print(f"held-out accuracy {accuracy:.4f}")
    return accuracy


if __name__ == "__main__":
    main()
