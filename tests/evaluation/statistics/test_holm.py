"""Holm's correction for several tests."""

import pytest

from cxr_compare.evaluation.statistics.holm import holm


def test_holm_steps_down_and_skips_what_could_not_be_tested():
    assert holm([0.01, None, 0.04, 0.03]) == pytest.approx([0.03, None, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
