"""Networks of transformers, from tiny configurations."""

from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForTokenClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    RobertaConfig,
    RobertaForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
)

import torchvision_operators  # noqa: F401  # before transformers, which imports torchvision
from specimen import Arguments, Specimen, floats, integers, padding

WORDS = 50
LENGTH = 7
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}


def gpt2() -> nn.Module:
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=WORDS,
            n_positions=16,
            n_embd=32,
            n_layer=2,
            n_head=2,
            bos_token_id=0,
            eos_token_id=0,
            use_cache=False,
        )
    )


def bert() -> nn.Module:
    return BertForSequenceClassification(
        BertConfig(vocab_size=WORDS, max_position_embeddings=16, num_labels=3, **SIZES)
    )


def roberta() -> nn.Module:
    return RobertaForSequenceClassification(
        RobertaConfig(vocab_size=WORDS, max_position_embeddings=16, num_labels=3, **SIZES)
    )


def distilbert() -> nn.Module:
    return DistilBertForTokenClassification(
        DistilBertConfig(
            vocab_size=WORDS,
            max_position_embeddings=16,
            dim=32,
            n_layers=2,
            n_heads=2,
            hidden_dim=64,
            num_labels=4,
        )
    )


def t5() -> nn.Module:
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=WORDS,
            d_model=32,
            d_kv=16,
            d_ff=64,
            num_layers=2,
            num_heads=2,
            relative_attention_num_buckets=8,
            use_cache=False,
        )
    )


def llama() -> nn.Module:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=WORDS,
            max_position_embeddings=16,
            num_key_value_heads=1,
            use_cache=False,
            bos_token_id=0,
            eos_token_id=0,
            **SIZES,
        )
    )


def vit() -> nn.Module:
    return ViTForImageClassification(ViTConfig(image_size=16, patch_size=4, num_labels=10, **SIZES))


def words(batch: int) -> Arguments:
    return (), {"input_ids": integers(batch, 2, WORDS, LENGTH)}


def padded_words(batch: int) -> Arguments:
    ended = padding(batch, LENGTH)
    ids = integers(batch, 2, WORDS, LENGTH).masked_fill(ended, 1)  # RoBERTa's padding is word 1
    return (), {"input_ids": ids, "attention_mask": (~ended).long()}


def two_texts(batch: int) -> Arguments:
    keywords = padded_words(batch)[1]
    return (), {**keywords, "decoder_input_ids": integers(batch, 2, WORDS, 5, argument=1)}


SPECIMENS = [
    Specimen(
        "gpt2",
        gpt2,
        words,
        "transformers GPT-2 with its head tied to the word table",
    ),
    Specimen(
        "bert",
        bert,
        padded_words,
        "transformers BERT, which classifies padded texts",
    ),
    Specimen(
        "roberta",
        roberta,
        padded_words,
        "transformers RoBERTa, which numbers the positions of each padded text by itself",
    ),
    Specimen(
        "distilbert",
        distilbert,
        padded_words,
        "transformers DistilBERT, which labels each word of padded texts",
    ),
    Specimen(
        "t5",
        t5,
        two_texts,
        "transformers T5 with relative positions and one word table in three places",
    ),
    Specimen(
        "llama",
        llama,
        words,
        "transformers Llama with RMS norms, rotary positions and grouped queries",
    ),
    Specimen(
        "transformers_vit",
        vit,
        lambda batch: ((), {"pixel_values": floats(3, 16, 16)(batch)[0][0]}),
        "transformers vision transformer, 16 x 16 images",
    ),
]
