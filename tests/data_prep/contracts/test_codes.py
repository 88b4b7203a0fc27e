"""Renumbering of codes against NumPy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_compare.data_prep.contracts.codes import renumber_codes


@given(st.lists(st.integers(0, 40), max_size=30))
def test_new_codes_are_those_of_unique(codes):
    used, rows = renumber_codes(np.array(codes, dtype=np.int64))
    expected, expected_rows = np.unique(np.array(codes, dtype=np.int64), return_inverse=True)
    assert used.tolist() == expected.tolist()
    assert rows.tolist() == expected_rows.tolist()


def test_a_missing_value_has_no_code():
    with pytest.raises(ValueError, match="negative"):
        renumber_codes(np.array([0, -1]))
