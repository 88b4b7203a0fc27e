"""Nested parts of a split: by patient, in proportion, each within the next."""

import numpy as np
import pandas as pd
import pytest
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.splits.nested_parts import nested_parts
from hypothesis import given, settings
from hypothesis import strategies as st

SHARES = [0.125, 0.25, 0.5, 1.0]


def drawn(patients: int, seed: int) -> tuple[pd.DataFrame, pd.Series, pd.Series]:
    """A split of patients with one to four images, a fifth of them positive."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(patients), rng.integers(1, 5, patients))
    ids = [f"i{number}" for number in range(len(owner))]
    roles = rng.choice(["train", "val", "test"], patients, p=[0.6, 0.2, 0.2])[owner]
    state = np.where(rng.random(patients) < 0.2, "positive", "negative")[owner]
    split = pd.DataFrame({"image_id": ids, "role": roles, "fold": None})
    return split, pd.Series(owner, index=ids).astype(str), pd.Series(state, index=ids)


@settings(max_examples=25, deadline=None)
@given(patients=st.integers(30, 200), seed=st.integers(0, 9))
def test_parts_are_nested_keep_patients_whole_and_leave_the_test_set_alone(patients, seed):
    split, owner, strata = drawn(patients, seed)
    parts = nested_parts(split, owner, strata, SHARES, seed)
    before: set[str] = set()
    for share in SHARES:
        kept = parts[share]
        assert (kept["role"] == split["role"]).eq(kept["role"] != "unused").all()
        pd.testing.assert_frame_equal(kept.query("role == 'test'"), split.query("role == 'test'"))
        states = kept.assign(patient=kept["image_id"].map(owner)).groupby("patient")["role"]
        assert (states.nunique() == 1).all()
        ids = set(kept.query("role in ['train', 'val']")["image_id"])
        assert before <= ids
        before = ids
    assert parts[1.0].equals(split)


def test_a_part_holds_its_share_of_patients_and_of_every_stratum():
    split, owner, strata = drawn(2000, 0)
    train = split.query("role == 'train'")["image_id"]
    positive = owner[train].groupby(owner[train]).size().index
    for seed in range(3):
        for share, part in nested_parts(split, owner, strata, SHARES, seed).items():
            ids = part.query("role == 'train'")["image_id"]
            assert owner[ids].nunique() == round(share * len(positive))
            of_part = strata[ids].groupby(owner[ids]).first().eq("positive").mean()
            of_all = strata[train].groupby(owner[train]).first().eq("positive").mean()
            assert of_part == pytest.approx(of_all, abs=0.011)  # one patient of 150


def test_parts_depend_on_the_seed_but_not_on_the_order_of_rows_or_on_other_shares():
    split, owner, strata = drawn(100, 1)
    half = nested_parts(split, owner, strata, [0.5], 3)[0.5]
    shuffled = nested_parts(split.sample(frac=1, random_state=1), owner, strata, SHARES, 3)[0.5]
    assert half.equals(shuffled.sort_index())
    assert not half.equals(nested_parts(split, owner, strata, [0.5], 4)[0.5])


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5])
def test_a_share_that_is_none_is_refused(share):
    split, owner, strata = drawn(30, 0)
    with pytest.raises(InputError, match="give shares above 0 and up to 1"):
        nested_parts(split, owner, strata, [share])
