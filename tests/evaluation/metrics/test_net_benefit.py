"""Net benefit by hand."""

import numpy as np
import pytest

from cxr_compare.evaluation.metrics.net_benefit import net_benefit


def test_net_benefit_of_calling_all_is_what_the_prevalence_gives():
    truth = [1, 0, 0, 0]
    assert net_benefit(truth, np.ones(4), 0.2) == pytest.approx(0.25 - 0.75 * 0.25)
    assert net_benefit(truth, np.zeros(4), 0.2) == 0.0
    tied = [0.2, 0.2, 0.1, 0.1]  # a score at the threshold is called
    assert net_benefit(truth, tied, 0.2) == pytest.approx((1 - 0.25) / 4)
