"""Look-ups of ids against pandas, and renumbering of codes against NumPy."""

import numpy as np
import pandas as pd
import pytest
from cxr_compare.data_prep.contracts.ids import (
    find_one,
    is_member,
    is_strictly_increasing,
    positions,
    renamed,
    renumber_codes,
)
from cxr_compare.data_prep.contracts.text import TEXT
from hypothesis import given
from hypothesis import strategies as st

texts = st.lists(st.one_of(st.none(), st.sampled_from(["", "a", "b", "é", "NA"])), max_size=12)


def as_series(values: list[str | None]) -> pd.Series:
    return pd.Series(values, index=range(5, 5 + len(values)), dtype=TEXT)


@given(texts, texts)
def test_members_are_those_of_isin_but_nothing_missing(values, members):
    series = as_series(values)
    expected = series.isin([m for m in members if m is not None]).to_numpy()
    assert is_member(series, as_series(members)).tolist() == expected.tolist()
    assert is_member(pd.Index(series), [m for m in members if m]).tolist() == [
        v in members and bool(v) for v in values
    ]


@given(texts, st.lists(st.sampled_from(["a", "b", "é", "z"]), unique=True))
def test_positions_are_those_of_get_indexer(values, members):
    index = pd.Index(members, dtype=TEXT)
    expected = index.get_indexer(pd.Index(as_series(values)))
    np.testing.assert_array_equal(positions(as_series(values), index), expected)


def test_of_equal_members_the_first_counts_and_a_missing_one_is_no_match():
    assert positions(as_series(["a", None]), pd.Series(["z", None, "a", "a"])).tolist() == [2, -1]


@given(st.lists(st.sampled_from(["a", "b", "é", "z"])))
def test_of_the_same_texts_each_is_at_its_first_position(values):
    series = as_series(values)
    assert positions(series, series).tolist() == [values.index(value) for value in values]
    assert is_member(series, series).tolist() == [True] * len(values)


@given(texts)
def test_one_text_is_found_where_it_is_first(members):
    for value in ("a", "", "é"):
        expected = members.index(value) if value in members else -1
        assert find_one(value, as_series(members)) == expected


@given(texts)
def test_texts_increase_if_sorting_changes_nothing_and_none_repeats(values):
    expected = None not in values and values == sorted(set(values))
    assert is_strictly_increasing(as_series(values)) == expected


@given(texts)
def test_new_names_are_those_of_map_with_the_same_index(values):
    names = {"a": "present", "": "empty"}
    series = as_series(values)
    pd.testing.assert_series_equal(renamed(series, names), series.map(names).astype(TEXT))


def test_joined_parts_are_looked_up_whole():
    joined = pd.concat([as_series(["a"]), as_series(["b", None])])
    assert is_member(joined, joined.iloc[1:]).tolist() == [False, True, False]
    assert positions(joined, joined.iloc[:2]).tolist() == [0, 1, -1]


@given(st.lists(st.integers(0, 40), max_size=30))
def test_new_codes_are_those_of_unique(codes):
    used, rows = renumber_codes(np.array(codes, dtype=np.int64))
    expected, expected_rows = np.unique(np.array(codes, dtype=np.int64), return_inverse=True)
    assert used.tolist() == expected.tolist()
    assert rows.tolist() == expected_rows.tolist()


def test_a_missing_value_has_no_code():
    with pytest.raises(ValueError, match="negative"):
        renumber_codes(np.array([0, -1]))
