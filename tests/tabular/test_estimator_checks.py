"""scikit-learn's own checks of estimators."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

import batchensemble as be

SMALL = {"members": 2, "hidden": (32,), "epochs": 60, "lr": 5e-3}
WEIGHTS = "training takes random batches, so a weight of 2 is not the same as two rows"


def expected_failures(estimator):
    return {"check_sample_weight_equivalence_on_dense_data": WEIGHTS}


# The type checker of the tests would speak before our sentences.
@pytest.mark.usefixtures("as_users_run_it")
# A frame of the checks has no gaps in training and some in prediction, among others.
@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(
    [be.BatchEnsembleClassifier(**SMALL), be.BatchEnsembleRegressor(**SMALL)],
    expected_failed_checks=expected_failures,
)
def test_scikit_learn_s_checks_pass(estimator, check):
    check(estimator)
