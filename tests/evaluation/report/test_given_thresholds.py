"""Lines that are printed for a threshold that the user gave."""

import pytest

import cxr_compare
from cxr_compare.data_prep.contracts.errors import InputError

Y_TRUE = [1, 1, 1, 1, 0, 0, 0, 0]
SCORES = {"A": [0.9, 0.8, 0.7, 0.2, 0.1, 0.1, 0.1, 0.6], "B": [0.9] * 4 + [0.1] * 4}


def lines_of(**options) -> list[str]:
    report = cxr_compare.compare(SCORES, truth=Y_TRUE, replicates=100, **options)
    return [line for line in str(report).splitlines() if "given threshold" in line]


def test_a_given_threshold_and_its_figures_are_printed():
    (line,) = lines_of(policy=["threshold=0.5"])
    assert "given threshold 0.5, which was not chosen on validation images" in line
    # By hand: A finds 3 of 4 positives and calls 1 of 4 negatives; F1 is 6 / 8.
    assert "A has sensitivity 0.750, specificity 0.750 and F1 0.750" in line
    assert "B has sensitivity 1.000, specificity 1.000 and F1 1.000" in line


def test_each_given_threshold_has_a_line_and_none_has_no_line():
    lines = lines_of(policy=["threshold=0.5", "threshold=0.15"])
    assert [line.split()[4].rstrip(",") for line in lines] == ["0.5", "0.15"]
    assert lines_of() == []


def test_a_wrong_threshold_is_still_refused():
    with pytest.raises(InputError, match="threshold"):
        lines_of(policy=["threshold=high"])
