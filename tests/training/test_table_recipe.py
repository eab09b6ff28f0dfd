"""How an ensemble for tables is started."""

import numpy as np
import pandas as pd
import pytest
import torch

import batchensemble as be
from batchensemble.training.table_recipe import TableRecipe, build_table_ensemble
from tests.support.tables import block_of, encoding_of

SIZES = np.random.default_rng(0).normal(size=40)
FRAME = pd.DataFrame({"size": SIZES, "town": ["Bonn", "Ulm"] * 20})


def built(recipe, **options):
    encoding = encoding_of(FRAME)
    X = encoding.encode(block_of(FRAME), "table")
    return build_table_ensemble(recipe, encoding, X, 2, seed=0, **options)


def first_scales(model):
    """Return what scales the inputs of the first layer, for each member and input."""
    return model.network.backbone[0].r.detach()


def test_members_start_from_a_sign_for_each_column():
    scales = first_scales(built(TableRecipe()))
    assert scales.abs().unique().tolist() == [1.0]
    assert len(scales.unique(dim=0)) > 1


def test_an_asked_for_start_is_taken():
    for recipe, options in (
        (TableRecipe(init="feature_normals"), {}),
        (TableRecipe(), {"init": "feature_normals"}),
        (TableRecipe(init="ones"), {"init": "feature_normals"}),
    ):
        scales = first_scales(built(recipe, **options))
        assert len(scales.unique()) == 8 * 2  # one draw for each member and column
    ones = first_scales(built(TableRecipe(init="ones")))
    assert torch.equal(ones, torch.ones_like(ones))


def test_additive_members_start_as_they_do_elsewhere():
    model = built(TableRecipe(), mode="additive")
    assert model.options["init"] is None
    x = torch.zeros(3, 2)
    assert not torch.equal(*model(x)[:, :2].unbind(1))


def test_a_start_is_for_one_method_only():
    with pytest.raises(
        ValueError, match=r"init is for method='batch', 'tabm', .* got 'ones' and 'deep'"
    ):
        built(TableRecipe(method="deep", init="ones"))


def test_an_estimator_takes_a_start():
    y = np.arange(40) // 20
    model = be.BatchEnsembleClassifier(init="ones", epochs=1, random_state=0).fit(FRAME, y)
    assert "init='ones'" in str(model.recipe)
    with pytest.raises(ValueError, match="init must be one of feature_signs"):
        be.BatchEnsembleClassifier(init="sings").fit(FRAME, y)
