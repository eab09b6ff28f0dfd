"""Options say what is wrong with them."""

import pytest

from batchensemble.layers import Options


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"mode": "additiv"}, ValueError, "mode must be one of multiplicative, additive.*additive"),
        ({"bias": "own"}, ValueError, "bias must be one of member, shared"),
        ({"norm": "own"}, ValueError, "norm must be one of member, shared"),
        ({"rank": 0}, ValueError, "rank must be at least 1"),
        ({"rank": 1.5}, TypeError, "rank must be a whole number"),
        ({"rank": 2}, ValueError, "rank above 1 needs mode='additive', got rank=2"),
        ({"alpha": 1.0}, ValueError, "alpha needs mode='additive'"),
        ({"mode": "additive", "alpha": 0.0}, ValueError, "alpha must be a finite number above 0"),
        ({"std": -1.0}, ValueError, "std must be a finite number above 0"),
        ({"space": "weights"}, ValueError, "space must be one of auto, activation, weight"),
        (
            {"mode": "additive", "space": "weight"},
            ValueError,
            "space needs mode='multiplicative', got space='weight'",
        ),
        ({"batch_axis": 2}, ValueError, "batch_axis must be 0 or 1, got 2"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(options, error, sentence, as_users_run_it):
    with pytest.raises(error, match=sentence):
        Options(**options)


@pytest.mark.parametrize(
    ("rank", "alpha", "scale"), [(1, None, 1.0), (4, None, 1.0), (4, 2.0, 0.5), (2, 6.0, 3.0)]
)
def test_the_scale_is_alpha_over_rank(rank, alpha, scale):
    assert Options(mode="additive", rank=rank, alpha=alpha).scale == scale
