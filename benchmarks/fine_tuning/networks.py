"""The two pretrained networks that are fine-tuned."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.fine_tuning.data import Inputs
from benchmarks.operators import declare_operators

HEADS = {"minilm": "classifier", "decoder": "score"}
EPOCHS, BATCH_SIZE, LR = 3, 64, 1e-3  # of the decoder's pretraining
CLASSES = 2


class SentenceClassifier(nn.Module):
    """An encoder of sentences with a linear layer on the mean over their tokens.

    The mean is what MiniLM was trained to compare sentences by; its pooler is not.

    Args:
        encoder: a BERT without a pooler.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.classifier = nn.Linear(encoder.config.hidden_size, CLASSES)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return logits `[batch, classes]` of tokens `[batch, length]`."""
        output = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        mask = attention_mask.unsqueeze(-1).to(output.last_hidden_state.dtype)
        return self.classifier((output.last_hidden_state * mask).sum(1) / mask.sum(1))


def minilm(folder: Path) -> nn.Module:
    """Return MiniLM with an untrained head.

    Args:
        folder: of its weights.
    """
    _prepare_transformers()
    from transformers import BertModel

    return SentenceClassifier(BertModel.from_pretrained(folder, add_pooling_layer=False))


def decoder(file: Path, texts: Inputs) -> nn.Module:
    """Return a small Llama with an untrained head; it learns to write at the first call.

    Args:
        file: of its weights, written if it is not there.
        texts: the tokens of what it learns to write, which no method is scored on.
    """
    _prepare_transformers()
    from safetensors.torch import load_file, save_file
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4}
    config = LlamaConfig(
        vocab_size=30_522,
        num_attention_heads=4,
        pad_token_id=0,
        num_labels=CLASSES,
        tie_word_embeddings=True,
        **sizes,
    )
    torch.manual_seed(0)
    if not file.exists():
        writer = LlamaForCausalLM(config)
        _pretrain(writer, texts)
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(writer.model.state_dict(), file)
    network = LlamaForSequenceClassification(config)
    network.model.load_state_dict(load_file(file))
    return network


def _prepare_transformers() -> None:
    declare_operators()
    from transformers import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _pretrain(writer: nn.Module, texts: Inputs) -> None:
    """Train a language model to predict each next token."""
    ids, seen = texts["input_ids"], texts["attention_mask"]
    optimizer = torch.optim.AdamW(writer.parameters(), lr=LR, weight_decay=0.1)
    for epoch in range(EPOCHS):
        total = 0.0
        batches = torch.randperm(len(ids)).split(BATCH_SIZE)
        for rows in batches:
            logits = writer(input_ids=ids[rows], attention_mask=seen[rows]).logits[:, :-1]
            read = seen[rows][:, 1:].bool()
            loss = F.cross_entropy(logits[read], ids[rows][:, 1:][read])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            total += loss.item()
        print(
            f"pretraining, epoch {epoch + 1}: {total / len(batches):.2f} nats a token", flush=True
        )
