"""Shapes that are written as types are checked while the tests run."""

import pytest
import torch
from jaxtyping import TypeCheckError

from batchensemble.layers.rank_one.forward import own_linear
from batchensemble.layers.rank_one.products import shared_linear


def test_a_tensor_with_another_number_of_axes_is_refused():
    with pytest.raises(TypeCheckError, match="x"):
        own_linear(torch.ones(2, 3), torch.ones(2, 3, 4))


def test_a_tensor_whose_axes_do_not_go_with_another_is_refused():
    with pytest.raises(TypeCheckError, match="weight"):
        shared_linear(torch.ones(1, 3), torch.ones(2, 4))
