"""Networks with tables of positions or distances become ensembles in one call, with no rule."""

import warnings

import pytest
import torch

import batchensemble as be
import torchvision_operators  # noqa: F401  # before anything that imports torchvision

timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")

# Types are checked in other tests; here that would take longer than what is tested.
pytestmark = pytest.mark.usefixtures("as_users_run_it")

WORDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 5, 8, 9, 7]])
SMALL = {
    "vocab_size": 20,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 16,
}


def t5():
    config = transformers.T5Config(
        vocab_size=20, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2
    )
    network = transformers.T5ForConditionalGeneration(config)
    return network, {"input_ids": WORDS, "decoder_input_ids": WORDS.flip(1)[:, :5]}


def albert():
    config = transformers.AlbertConfig(embedding_size=8, **SMALL)
    return transformers.AlbertModel(config), {"input_ids": WORDS}


def deberta():
    config = transformers.DebertaV2Config(
        relative_attention=True,
        max_relative_positions=8,
        position_buckets=4,
        pos_att_type=["c2p", "p2c"],
        norm_rel_ebd="layer_norm",
        **SMALL,
    )
    return transformers.DebertaV2Model(config), {"input_ids": WORDS}


def swin():
    config = transformers.Swinv2Config(
        image_size=8, patch_size=2, embed_dim=8, depths=[2], num_heads=[2], window_size=2
    )
    return transformers.Swinv2Model(config), {"pixel_values": torch.randn(2, 3, 8, 8)}


def beit():
    sizes = {"img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}
    network = timm.create_model("beit_base_patch16_224", num_classes=3, **sizes)
    return network, {"x": torch.randn(2, 3, 16, 16)}


SHARED = {
    t5: {
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias": "per example",
        "decoder.block.0.layer.0.SelfAttention.relative_attention_bias": "per example",
    },
    albert: {},
    deberta: {"encoder.LayerNorm": "per example", "encoder.rel_embeddings": "reads its weights"},
    swin: {
        f"encoder.layers.0.blocks.{block}.attention.self.continuous_position_bias_mlp.2": "per exa"
        for block in (0, 1)
    },
    beit: {"blocks.0.attn.qkv": "reads its weights"},
}


@pytest.mark.parametrize("make", SHARED, ids=lambda make: make.__name__)
def test_they_work_in_one_call(make):
    torch.manual_seed(0)
    network, inputs = make()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model = be.BatchEnsemble(network, members=3).double().eval()
        inputs = {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}
        model(**inputs)
    assert model.calls_per_forward == 1
    found = {row.name: row.reason for row in model.report()}
    assert all(reason in found[name] for name, reason in SHARED[make].items())
    assert model.verify(**inputs).largest_difference < 1e-6  # some compute in float32 inside
