"""Copies of any module, each with its own rows."""

import torch
from torch import nn

from batchensemble.layers import Independent


def test_each_copy_sees_its_members_rows():
    copies = [nn.Linear(4, 2) for _ in range(3)]
    rows = torch.randn(3 * 5, 4)
    expected = torch.cat([copies[i](rows[5 * i : 5 * i + 5]) for i in range(3)])
    assert torch.equal(Independent(copies)(rows), expected)


def test_modules_that_mix_rows_mix_only_their_members():
    twin = Independent([nn.BatchNorm1d(2) for _ in range(2)])
    rows = torch.cat([torch.randn(50, 2), 100 + torch.randn(50, 2)])
    outputs = twin(rows)
    for part in outputs.chunk(2):
        torch.testing.assert_close(part.mean(0), torch.zeros(2), atol=1e-4, rtol=0)


def test_images_keep_their_axes():
    twin = Independent([nn.Conv2d(3, 6, 3, padding=1) for _ in range(2)])
    assert twin(torch.zeros(8, 3, 5, 5)).shape == (8, 6, 5, 5)


def test_no_examples_give_no_rows():
    twin = Independent([nn.Linear(4, 2) for _ in range(3)])
    assert twin(torch.zeros(0, 4)).shape == (0, 2)


def test_a_member_is_a_copy_of_its_module():
    copies = [nn.Linear(4, 2) for _ in range(3)]
    member = Independent(copies).member(1)
    assert member is not copies[1]
    assert torch.equal(member.weight, copies[1].weight)
    with torch.no_grad():
        member.weight.zero_()
    assert copies[1].weight.any()
