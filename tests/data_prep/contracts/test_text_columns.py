"""Numbers from columns of text."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.text_columns import to_numbers


def test_numbers_are_exact_and_missing_words_are_missing():
    text = pd.Series(["0.1", "1e-3", "-7", "+3", "", "NA", "none", "1.7976931348623157e308", "inf"])
    numbers = to_numbers(text, Path("t.csv"), "x")
    expected = [0.1, 1e-3, -7, 3, np.nan, np.nan, np.nan, 1.7976931348623157e308, np.inf]
    np.testing.assert_array_equal(numbers.to_numpy(), expected)


@pytest.mark.parametrize("wrong", ["tall", "1,5", "0x10", "nan(5)", "1_000", "--1"])
def test_the_error_of_a_cell_that_is_no_number_names_the_line(wrong):
    text = pd.Series(["1", "2", wrong, "NA"])
    with pytest.raises(InputError, match=r"line 4: x="):
        to_numbers(text, Path("t.csv"), "x")
