"""Networks of our own that attend: torch's attention modules, and attention by hand."""

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specimen import Arguments, Specimen, floats, integers, normal, padding, tokens

WORDS = 30


class Translator(nn.Module):
    """An ``nn.Transformer`` from padded texts to padded texts."""

    def __init__(self) -> None:
        super().__init__()
        self.source = nn.Embedding(WORDS, 16)
        self.target = nn.Embedding(WORDS, 16)
        self.transformer = nn.Transformer(
            d_model=16,
            nhead=2,
            num_encoder_layers=2,
            num_decoder_layers=2,
            dim_feedforward=32,
            batch_first=True,
        )
        self.head = nn.Linear(16, WORDS)

    def forward(
        self,
        source: Tensor,
        target: Tensor,
        target_mask: Tensor,
        source_padding: Tensor,
        target_padding: Tensor,
    ) -> Tensor:
        with warnings.catch_warnings():
            # In eval mode torch drops the padding by nested tensors, and warns of their youth.
            warnings.filterwarnings("ignore", message="The PyTorch API of nested tensors")
            hidden = self.transformer(
                self.source(source),
                self.target(target),
                tgt_mask=target_mask,
                src_key_padding_mask=source_padding,
                tgt_key_padding_mask=target_padding,
                memory_key_padding_mask=source_padding,
            )
        return self.head(hidden)


class SequenceFirstEncoder(nn.Module):
    """Batch first outside, and inside a ``nn.TransformerEncoder`` in torch's order, time first."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 16)
        self.positions = nn.Parameter(0.1 * torch.randn(5, 1, 16))
        layer = nn.TransformerEncoderLayer(16, nhead=2, dim_feedforward=32)
        # Nested tensors need the batch first, and torch says so in a warning.
        self.encoder = nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 3)

    def forward(self, series: Tensor) -> Tensor:
        hidden = self.encoder(self.stem(series).transpose(0, 1) + self.positions)
        return self.head(hidden.mean(dim=0))


class Attention(nn.Module):
    """``nn.MultiheadAttention`` used directly, among the words and then from them to an image."""

    def __init__(self) -> None:
        super().__init__()
        self.among = nn.MultiheadAttention(8, 2, batch_first=True)
        self.across = nn.MultiheadAttention(8, 2, kdim=6, vdim=4, add_bias_kv=True)
        self.head = nn.Linear(8, 3)
        self.register_buffer("causal", torch.ones(5, 5, dtype=torch.bool).triu(diagonal=1))

    def forward(self, series: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, ...]:
        hidden, among = self.among(series, series, series, attn_mask=self.causal)
        series = (series + hidden).transpose(0, 1)
        hidden, across = self.across(
            series,
            keys.transpose(0, 1),
            values.transpose(0, 1),
            need_weights=True,
            average_attn_weights=False,
        )
        return self.head(hidden.transpose(0, 1)), among, across


class Block(nn.Module):
    """A block of a decoder, with one linear layer for queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width), nn.Dropout(0.1)
        )

    def forward(self, x: Tensor) -> Tensor:
        batch, time, width = x.shape
        parts = self.qkv(self.norms[0](x)).view(batch, time, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, time, width))
        return x + self.mlp(self.norms[1](x))


class NanoGPT(nn.Module):
    """A language model whose head is tied to its word table."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, 16)
        self.positions = nn.Embedding(12, 16)
        self.blocks = nn.Sequential(Block(16, 2), Block(16, 2))
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, WORDS, bias=False)
        self.head.weight = self.words.weight

    def forward(self, words: Tensor) -> Tensor:
        positions = torch.arange(words.shape[1], device=words.device)
        return self.head(self.norm(self.blocks(self.words(words) + self.positions(positions))))


class FeatureTokenizer(nn.Module):
    """A token for each column: numbers scale a vector of their own, categories look one up."""

    def __init__(self, numbers: int, categories: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(numbers, width))
        self.bias = nn.Parameter(torch.randn(numbers, width))
        self.table = nn.Embedding(sum(categories), width)
        starts = torch.tensor((0, *categories[:-1])).cumsum(0)
        self.register_buffer("starts", starts)

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        scaled = numbers.unsqueeze(2) * self.weight + self.bias
        return torch.cat([scaled, self.table(categories + self.starts)], dim=1)


class FTTransformer(nn.Module):
    """Attention among the columns of a table; the class token gathers the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.tokenizer = FeatureTokenizer(4, (3, 5), 16)
        self.token = nn.Parameter(0.1 * torch.randn(16))
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True)
        # Nested tensors need the norm last, and torch says so in a warning.
        self.encoder = nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 2))

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        columns = self.tokenizer(numbers, categories)
        token = self.token.expand(len(columns), 1, -1)
        return self.head(self.encoder(torch.cat([token, columns], dim=1))[:, 0])


def two_texts(batch: int) -> Arguments:
    source, target = integers(batch, 0, WORDS, 6), integers(batch, 0, WORDS, 5, argument=1)
    return (source, target), {
        "target_mask": torch.ones(5, 5, dtype=torch.bool).triu(diagonal=1),
        "source_padding": padding(batch, 6),
        "target_padding": padding(batch, 5),
    }


def series_keys_and_values(batch: int) -> Arguments:
    others = normal(batch, 4, 6, argument=1), normal(batch, 4, 4, argument=2)
    return (normal(batch, 5, 8), *others), {}


def numbers_and_categories(batch: int) -> Arguments:
    return (normal(batch, 4), integers(batch, 0, 3, 2, argument=1)), {}


SPECIMENS = [
    Specimen(
        "transformer",
        Translator,
        two_texts,
        "nn.Transformer with a causal mask and masks of padding",
        {"untiled": ["target_mask"]},
        "the causal mask [time, time] would pass for a batch of as many examples",
    ),
    Specimen(
        "sequence_first_encoder",
        SequenceFirstEncoder,
        floats(5, 4),
        "nn.TransformerEncoder with time first, in a network that takes the batch first",
    ),
    Specimen(
        "attention",
        Attention,
        series_keys_and_values,
        "nn.MultiheadAttention in both orders, its weights returned, with a causal mask",
    ),
    Specimen(
        "nano_gpt",
        NanoGPT,
        tokens(WORDS, 7),
        "language model with its head tied to the word table, attention by hand",
    ),
    Specimen(
        "ft_transformer",
        FTTransformer,
        numbers_and_categories,
        "FT-Transformer for tables: tokens and class token are parameters of its own",
    ),
]
