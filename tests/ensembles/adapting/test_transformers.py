"""Adapted networks of Hugging Face in its own machinery: Trainer, caches, branches and the like."""

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainingArguments,
)

import batchensemble as be

MEMBERS = 3


def bert():
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 20}
    dropouts = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = BertConfig(intermediate_size=16, max_position_embeddings=12, **sizes, **dropouts)
    return BertForSequenceClassification(config)


def llama():
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "vocab_size": 20}
    return LlamaForCausalLM(LlamaConfig(num_attention_heads=2, **sizes)).eval()


def examples(count=16):
    torch.manual_seed(1)
    ids = torch.randint(1, 20, (count, 6))
    mask = torch.ones_like(ids)
    mask[: count // 2, 4:] = 0
    return {"input_ids": ids, "attention_mask": mask}, (ids[:, 0] > 9).long()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("bf16", [False, True])
def test_the_trainer_trains_scores_and_predicts_an_ensemble(bf16, tmp_path):
    model = be.adapt(bert(), MEMBERS, heads=["classifier"])
    base, head = (
        model.network.bert.pooler.dense.weight.clone(),
        model.network.classifier.weight.clone(),
    )
    inputs, labels = examples()
    rows = [
        {"input_ids": one, "attention_mask": mask, "labels": label}
        for one, mask, label in zip(*inputs.values(), labels, strict=True)
    ]
    arguments = TrainingArguments(
        str(tmp_path),
        max_steps=2,
        save_steps=1,
        remove_unused_columns=False,
        label_names=["labels"],
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        bf16=bf16,
    )
    trainer = Trainer(model, arguments, train_dataset=rows, eval_dataset=rows)
    trainer.train()
    assert 0 < trainer.evaluate()["eval_loss"] < 2
    assert trainer.predict(rows).predictions.shape == (16, MEMBERS, 2)
    assert torch.equal(model.network.bert.pooler.dense.weight, base)
    assert not torch.equal(model.network.classifier.weight, head)


def test_gradient_checkpointing_of_the_network_changes_no_gradient():
    model = be.adapt(bert(), MEMBERS, heads=["classifier"])
    inputs, labels = examples()

    def gradients():
        model.zero_grad()
        model(**inputs, labels=labels).loss.backward()
        return [each.grad.clone() for each in model.parameters() if each.requires_grad]

    before = gradients()
    model.network.activation_checkpointing_enable()
    for one, other in zip(before, gradients(), strict=True):
        torch.testing.assert_close(one, other)


def test_weights_of_bfloat16_train():
    model = be.adapt(bert().bfloat16(), MEMBERS, heads=["classifier"])
    assert {each.dtype for each in model.parameters()} == {torch.bfloat16}
    data = examples()
    be.fit(model, data, epochs=1, batch_size=8, progress=False)
    assert 0 < be.evaluate(model, data)["nll"] < 2


@pytest.mark.parametrize("place", ["bert.encoder.layer.1", "bert.pooler", "classifier"])
def test_the_ensemble_may_begin_where_masks_go_round_the_branch(place):
    model = be.adapt(bert(), MEMBERS, heads=["classifier"], branch_at=place).eval()
    inputs, _ = examples(5)
    with torch.no_grad():
        found = model(**inputs).logits
        for index in range(MEMBERS):
            torch.testing.assert_close(model.member(index)(**inputs).logits, found[:, index])


def test_of_a_decoder_too():
    model = be.adapt(llama(), MEMBERS, branch_at="model.layers.1").eval()
    inputs, _ = examples(5)
    with torch.no_grad():
        found = model(**inputs).logits
        for index in range(MEMBERS):
            torch.testing.assert_close(model.member(index)(**inputs).logits, found[:, index])


def test_a_decoder_reads_on_from_the_cache_of_all_members():
    model, ids = be.adapt(llama(), MEMBERS).eval(), torch.randint(1, 20, (2, 6))
    with torch.no_grad():
        first = model(input_ids=ids[:, :4], use_cache=True)
        rest = model(input_ids=ids[:, 4:], past_key_values=first.past_key_values)
        whole = model(input_ids=ids).logits
    torch.testing.assert_close(rest.logits, whole[:, :, 4:])


def test_one_member_generates():
    member = be.adapt(llama(), MEMBERS).member(1)
    assert isinstance(member, nn.Module)
    ids = torch.randint(3, 20, (2, 4))
    found = member.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=3, min_new_tokens=3, pad_token_id=0
    )
    assert found.shape == (2, 7)
