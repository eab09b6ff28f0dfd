"""One small layer of each kind that has a rank-one twin, and a member's inputs for it."""

from functools import partial

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from reference import Case, merged


def draws(*shapes):
    """Return inputs of normal numbers; ``None`` in a shape is the batch."""

    def inputs(batch):
        return tuple(
            torch.randn([batch if size is None else size for size in shape]) for shape in shapes
        )

    return inputs


def numbers(count, *shape):
    """Return inputs of numbers below ``count``."""
    return lambda batch: (torch.randint(count, (batch, *shape)),)


def weighted_bags(batch):
    return torch.randint(7, (batch, 4)), None, torch.randn(batch, 4)


def attention_tensors(twin, index, options):
    """Return the plain tensors of a member's attention, packed as torch has them."""
    weights, biases = [], []
    for letter in ("q", "k", "v", "out"):
        part = getattr(twin, f"{letter}_proj")
        weights.append(merged(part.weight, part.r[index], part.s[index], options))
        if part.bias is not None:
            biases.append(part.bias[index] if part.bias.dim() == 2 else part.bias)
    if twin.shell.in_proj_weight is not None:
        tensors = {"in_proj_weight": torch.cat(weights[:3])}
    else:
        tensors = {f"{x}_proj_weight": w for x, w in zip("qkv", weights[:3], strict=True)}
    tensors["out_proj.weight"] = weights[3]
    if biases:
        tensors |= {"in_proj_bias": torch.cat(biases[:3]), "out_proj.bias": biases[3]}
    if twin.bias_k is not None:
        tensors |= {"bias_k": twin.bias_k, "bias_v": twin.bias_v}
    return tensors


def recurrent(kind, **settings):
    """Return the case of a recurrent layer of 3 inputs and 4 units without a first state."""
    layer = kind(3, 4, **settings)
    names = [name for name, _ in layer.named_parameters() if name.startswith("weight")]
    axis = 0 if layer.batch_first else 1
    shape = (None, 3, 3) if layer.batch_first else (3, None, 3)
    ends = (1, 1) if kind is nn.LSTM else 1
    return Case(lambda: kind(3, 4, **settings), draws(shape), axis, (axis, ends), names)


def cell(kind, states, **settings):
    """Return the case of a cell with a first state."""

    def inputs(batch):
        hidden = [torch.randn(batch, 4) for _ in range(states)]
        return torch.randn(batch, 3), tuple(hidden) if states > 1 else hidden[0]

    return Case(partial(kind, 3, 4, **settings), inputs, matrices=("weight_ih", "weight_hh"))


def attention(**settings):
    """Return the case of an attention of 4 features and 2 heads over itself or other widths."""
    batch_first = settings.get("batch_first", False)
    axis = 0 if batch_first else 1
    keys, values = settings.get("kdim") or 4, settings.get("vdim") or 4
    shapes = [(3, 4), (5, keys), (5, values)]
    inputs = draws(*((None, n, f) if batch_first else (n, None, f) for n, f in shapes))
    make = partial(nn.MultiheadAttention, 4, 2, **settings)
    return Case(make, inputs, axis, (axis, 0), tensors=attention_tensors)


LINEAR = {
    "linear": Case(partial(nn.Linear, 5, 2), draws((None, 5))),
    "linear without bias": Case(partial(nn.Linear, 5, 2, bias=False), draws((None, 5))),
    "linear on tokens": Case(partial(nn.Linear, 3, 4), draws((None, 2, 3))),
    "Conv1D of transformers": Case(partial(Conv1D, 2, 5), draws((None, 5)), inputs_first=True),
}
BILINEAR = {
    "bilinear": Case(partial(nn.Bilinear, 3, 4, 2), draws((None, 3), (None, 4))),
    "bilinear without bias": Case(
        partial(nn.Bilinear, 3, 4, 2, bias=False), draws((None, 2, 3), (None, 2, 4))
    ),
}
CONVOLUTIONS = {
    "conv 1d": Case(partial(nn.Conv1d, 3, 4, 3), draws((None, 3, 6))),
    "conv 2d": Case(partial(nn.Conv2d, 2, 3, 2, stride=2), draws((None, 2, 4, 5))),
    "conv 3d": Case(partial(nn.Conv3d, 2, 3, 2, bias=False), draws((None, 2, 3, 3, 2))),
    "conv 1d in groups": Case(partial(nn.Conv1d, 4, 6, 3, groups=2), draws((None, 4, 5))),
    "depthwise conv 2d": Case(
        partial(nn.Conv2d, 3, 6, (3, 2), groups=3, padding="same", padding_mode="circular"),
        draws((None, 3, 4, 4)),
    ),
}
TRANSPOSED = {
    "transposed conv 1d": Case(
        partial(nn.ConvTranspose1d, 3, 4, 3, stride=2, output_padding=1),
        draws((None, 3, 4)),
        inputs_first=True,
    ),
    "transposed conv 2d in groups": Case(
        partial(nn.ConvTranspose2d, 4, 6, 2, groups=2), draws((None, 4, 3, 2)), inputs_first=True
    ),
    "transposed conv 3d": Case(
        partial(nn.ConvTranspose3d, 2, 3, 2, bias=False),
        draws((None, 2, 2, 3, 2)),
        inputs_first=True,
    ),
}
EMBEDDINGS = {
    "embedding": Case(partial(nn.Embedding, 7, 3), numbers(7, 4), inputs_first=True),
    "embedding with padding": Case(
        partial(nn.Embedding, 4, 3, padding_idx=1), numbers(4, 5), inputs_first=True
    ),
    "embedding of one number": Case(partial(nn.Embedding, 7, 3), numbers(7), inputs_first=True),
}
BAGS = {
    f"bag, {mode}": Case(
        partial(nn.EmbeddingBag, 7, 3, mode=mode), numbers(7, 4), inputs_first=True
    )
    for mode in ("sum", "mean", "max")
} | {
    "bag with padding": Case(
        partial(nn.EmbeddingBag, 7, 3, padding_idx=2), numbers(7, 5), inputs_first=True
    ),
    "weighted bag": Case(
        partial(nn.EmbeddingBag, 7, 3, mode="sum"), weighted_bags, (0, None, 0), inputs_first=True
    ),
}
ATTENTIONS = {
    "attention": attention(),
    "attention, batch first": attention(batch_first=True),
    "attention of other widths": attention(kdim=3, vdim=2, batch_first=True),
    "attention without bias": attention(bias=False),
    "attention with extra keys": attention(add_bias_kv=True, add_zero_attn=True),
}
RECURRENT = {
    "rnn": recurrent(nn.RNN),
    "rnn, relu, two layers": recurrent(nn.RNN, num_layers=2, nonlinearity="relu", bias=False),
    "lstm": recurrent(nn.LSTM, batch_first=True),
    "lstm, projected, both ways": recurrent(nn.LSTM, proj_size=2, bidirectional=True),
    "gru, both ways": recurrent(nn.GRU, bidirectional=True, batch_first=True),
}
CELLS = {
    "rnn cell": cell(nn.RNNCell, 1),
    "lstm cell": cell(nn.LSTMCell, 2),
    "gru cell": cell(nn.GRUCell, 1, bias=False),
}
RANK_ONE = {
    **LINEAR,
    **BILINEAR,
    **CONVOLUTIONS,
    **TRANSPOSED,
    **EMBEDDINGS,
    **BAGS,
    **ATTENTIONS,
    **RECURRENT,
    **CELLS,
}


def norm(make, *shape):
    """Return the case of a norm layer, none of whose weights is bent."""
    return Case(make, draws((None, *shape)), matrices=())


NORMS = {
    "layer norm": norm(partial(nn.LayerNorm, 4), 3, 4),
    "layer norm of two axes": norm(partial(nn.LayerNorm, (3, 4)), 2, 3, 4),
    "layer norm without bias": norm(partial(nn.LayerNorm, 4, bias=False), 4),
    "rms norm": norm(partial(nn.RMSNorm, 4), 3, 4),
    "group norm": norm(partial(nn.GroupNorm, 2, 4), 4, 3, 2),
    "group norm of vectors": norm(partial(nn.GroupNorm, 2, 4), 4),
    "instance norm 1d": norm(partial(nn.InstanceNorm1d, 3, affine=True), 3, 5),
    "instance norm 2d": norm(partial(nn.InstanceNorm2d, 3, affine=True), 3, 4, 2),
    "instance norm 3d": norm(partial(nn.InstanceNorm3d, 3, affine=True), 3, 2, 3, 2),
    "one slope": norm(nn.PReLU, 3, 4),
    "one slope of numbers": norm(nn.PReLU),
    "slopes": norm(partial(nn.PReLU, 3), 3),
    "slopes of channels": norm(partial(nn.PReLU, 3), 3, 5),
}
STATISTICS = {
    "batch norm 1d": norm(partial(nn.BatchNorm1d, 3), 3),
    "batch norm 1d of sequences": norm(partial(nn.BatchNorm1d, 3), 3, 4),
    "batch norm 2d": norm(partial(nn.BatchNorm2d, 3, momentum=None), 3, 2, 4),
    "batch norm 3d": norm(partial(nn.BatchNorm3d, 2, affine=False), 2, 2, 3, 2),
    "instance norm 1d that tracks": norm(
        partial(nn.InstanceNorm1d, 3, affine=True, track_running_stats=True), 3, 5
    ),
    "instance norm 2d that tracks": norm(
        partial(nn.InstanceNorm2d, 3, track_running_stats=True), 3, 4, 2
    ),
}
WITHOUT_STATISTICS = {
    "batch norm without statistics": norm(
        partial(nn.BatchNorm2d, 3, track_running_stats=False), 3, 2, 4
    ),
    "batch norm of nothing of its own": norm(
        partial(nn.BatchNorm1d, 3, affine=False, track_running_stats=False), 3
    ),
}
ALL_NORMS = {**NORMS, **STATISTICS, **WITHOUT_STATISTICS}
