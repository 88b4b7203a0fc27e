"""Hexadecimal columns as bytes."""

import cProfile
import pstats
from functools import partial

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from cxr_compare.data_prep.contracts.text import TEXT, bytes_from_hex
from cxr_compare.data_prep.duplicates.near_duplicates import hashes_to_bytes

from cxr_compare.data_prep.images.border_greys import read_border_greys


def hex_texts(n: int, digits: int) -> list[str]:
    rng = np.random.default_rng(n)
    return [rng.bytes(digits // 2).hex() for _ in range(n)]


@pytest.mark.parametrize("n", [0, 7])
def test_bytes_are_those_of_the_texts_in_order(n):
    texts = hex_texts(n, 8)
    expected = list(bytes.fromhex("".join(texts)))
    assert bytes_from_hex(pd.Series(texts, dtype=TEXT)).tolist() == expected
    assert bytes_from_hex(pd.Index(texts, dtype=TEXT)).tolist() == expected
    assert bytes_from_hex(pd.Series(texts, dtype=object)).tolist() == expected


def test_a_part_of_a_column_in_chunks_gives_its_own_bytes():
    chunks = pa.chunked_array([["00", "01"], ["02", "03"]], pa.large_string())
    column = pd.Series(pd.array(chunks, dtype=TEXT))
    assert bytes_from_hex(column.iloc[1:3]).tolist() == [1, 2]


def test_another_character_is_refused():
    with pytest.raises(ValueError, match="hexadecimal"):
        bytes_from_hex(pd.Series(["0g"]))


@pytest.mark.parametrize(
    ("read", "as_column", "digits"),
    [(read_border_greys, pd.Series, 32), (hashes_to_bytes, pd.Index, 64)],
)
def test_more_texts_need_no_more_calls(read, as_column, digits):
    def count_calls(n: int) -> int:
        column = as_column(hex_texts(n, digits), dtype=TEXT)
        read(column)  # loads what is loaded once
        profile = cProfile.Profile()
        profile.runcall(partial(read, column))
        return pstats.Stats(profile).total_calls

    assert count_calls(2_000) < count_calls(20) + 100
