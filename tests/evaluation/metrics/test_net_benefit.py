"""Net benefit by hand."""

import numpy as np
import pytest

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.metrics.net_benefit import net_benefit


def test_net_benefit_of_calling_all_is_what_the_prevalence_gives():
    truth = [1, 0, 0, 0]
    assert net_benefit(truth, np.ones(4), 0.2) == pytest.approx(0.25 - 0.75 * 0.25)
    assert net_benefit(truth, np.zeros(4), 0.2) == 0.0
    tied = [0.2, 0.2, 0.1, 0.1]  # a score at the threshold is called
    assert net_benefit(truth, tied, 0.2) == pytest.approx((1 - 0.25) / 4)


@pytest.mark.parametrize("truth", [["yes", "no"], [1, np.nan], [1, -1], [1, 2]])
def test_a_label_that_is_neither_0_nor_1_is_no_positive_image(truth):
    with pytest.raises(InputError, match="row"):
        net_benefit(truth, [0.9, 0.8], 0.5)
    with pytest.raises(InputError, match="threshold"):
        net_benefit([1, 0], [0.9, 0.8], 1.5)
