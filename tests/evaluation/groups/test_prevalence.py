"""A prevalence that a user gives."""

import numpy as np
import pytest

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.groups.prevalence import Prevalence
from tests.compared import compare_predictions


@pytest.mark.parametrize(
    ("given", "value", "low", "high"),
    [("0.05", 0.05, 0.05, 0.05), (0.2, 0.2, 0.2, 0.2), ("0.05:0.03-0.08", 0.05, 0.03, 0.08),
     ("12/240", 0.05, 0.02610, 0.08571)],
)  # fmt: skip
def test_a_prevalence_may_bring_its_own_uncertainty(given, value, low, high):
    read = Prevalence.parse(given)
    assert (read.value, read.low, read.high) == pytest.approx((value, low, high), abs=1e-5)
    drawn = read.like(np.zeros(20_000))
    assert np.quantile(drawn, [0.025, 0.975]) == pytest.approx([low, high], abs=2e-3)
    assert float(read.like(np.float64(0.9))) == value


@pytest.mark.parametrize("given", ["0", "5", "x", ".1:.2-.3", ".1:.2", "12/0", "0/9"])
def test_text_that_is_no_prevalence_is_refused(given):
    with pytest.raises(InputError, match=r"0\.05, .*95 %"):
        Prevalence.parse(given)


def test_predictive_values_contain_the_prevalences_uncertainty(predict, test_set):
    systems = {"A": predict("A", seed=1)}
    width = {}
    for given in ("0.05", "0.05:0.02-0.12"):
        table = compare_predictions(systems, test_set, replicates=200, prevalence=given).groups
        row = table[(table["topic"] == "prevalence") & (table["metric"] == "ppv")].iloc[0]
        width[given] = row["ci_high"] - row["ci_low"]
        assert row["group"] == given
    assert width["0.05:0.02-0.12"] > width["0.05"]
