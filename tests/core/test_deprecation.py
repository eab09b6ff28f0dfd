"""Names of version 0.1 that were renamed still work, and say what to write."""

import pytest
import torch

import batchensemble as be
from batchensemble.predictions import Prediction


def test_names_of_0_1_do_what_the_new_ones_do_and_warn():
    loss, history = be.losses.Huber(delta=2.0), be.History()
    prediction = Prediction(torch.full((2, 3, 2), 0.5).numpy())
    for old, new, argument in (
        (be.losses.as_dict, be.losses.to_dict, loss),
        (be.History.as_dict, be.History.to_dict, history),
        (be.predictions.as_arrays, be.predictions.to_arrays, prediction),
    ):
        with pytest.warns(DeprecationWarning, match="goes in release 0.3"):
            found = old(argument)
        assert found.keys() == new(argument).keys()
