"""The scripts behind the claims of the manuals."""

import pytest
import torch

from benchmarks.claims.cubic import grows_after


def test_the_cubic_toy_says_from_where_on_doubt_grows():
    assert grows_after(torch.tensor([1.0, 2.0, 3.0]).numpy()) == 0
    assert grows_after(torch.tensor([1.0, 0.5, 3.0, 2.0, 2.5]).numpy()) == pytest.approx(0.3)
    assert grows_after(torch.tensor([1.0, 1.0, 3.0]).numpy()) == pytest.approx(0.1)
