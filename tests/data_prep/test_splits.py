"""A patient has one role; shares and classes come out as asked; nothing depends on row order."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.errors import InputError
from data_prep.splits import fold_split, follow_given_roles, split_by_patient


def make_images(patients: list[int]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "image_id": [f"i{n:05d}" for n in range(len(patients))],
            "patient_id": [f"p{patient}" for patient in patients],
            "patient_id_source": "given",
        }
    )


def make_large(n_patients: int = 2000, seed: int = 0) -> tuple[pd.DataFrame, pd.Series]:
    """Patients with 1 to 12 images; one in five is positive on some of them."""
    rng = np.random.default_rng(seed)
    owners = np.repeat(np.arange(n_patients), rng.geometric(0.5, n_patients).clip(max=12))
    images = make_images(owners.tolist())
    positive = (owners % 5 == 0) & (rng.random(len(owners)) < 0.7)
    return images, pd.Series(np.where(positive, "ill", "well"), index=images["image_id"])


patients = st.lists(st.integers(0, 30), min_size=1, max_size=120)
shares = st.tuples(st.floats(0, 0.45), st.floats(0, 0.5))


@settings(max_examples=30, deadline=None)
@given(patients, shares, st.integers(0, 2**31))
def test_a_patient_has_one_role_and_one_fold(patients, shares, seed):
    images = make_images(patients)
    split = split_by_patient(images, val=shares[0], test=shares[1], seed=seed)
    rows = split.merge(images, on="image_id")
    assert len(rows) == len(images)
    assert rows.groupby("patient_id")["role"].nunique().max() == 1
    assert rows.groupby("patient_id")["fold"].nunique().max() <= 1
    assert rows.loc[rows["role"] == "test", "fold"].isna().all()


@settings(max_examples=20, deadline=None)
@given(patients, st.integers(0, 2**31), st.randoms(use_true_random=False))
def test_row_order_does_not_matter(patients, seed, random):
    images = make_images(patients)
    strata = pd.Series(["ill" if p % 3 else "well" for p in patients], index=images["image_id"])
    order = list(range(len(images)))
    random.shuffle(order)
    straight = split_by_patient(images, strata, seed=seed)
    pd.testing.assert_frame_equal(
        straight, split_by_patient(images.iloc[order], strata.iloc[order[::-1]], seed=seed)
    )


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([(0.15, 0.2), (0.1, 0.1), (0.3, 0.0), (0.5, 0.5)]))
def test_shares_of_patients_images_and_positives_are_as_asked(seed, shares):
    val, test = shares
    images, strata = make_large()
    rows = split_by_patient(images, strata, val=val, test=test, seed=seed).merge(images)
    rows["ill"] = rows["image_id"].map(strata) == "ill"
    for role, share in (("val", val), ("test", test)):
        chosen = rows["role"] == role
        of_patients = rows.loc[chosen, "patient_id"].nunique() / rows["patient_id"].nunique()
        assert of_patients == pytest.approx(share, abs=0.01)
        assert chosen.mean() == pytest.approx(share, abs=0.03)
        assert rows.loc[chosen, "ill"].sum() / rows["ill"].sum() == pytest.approx(share, abs=0.04)


def test_another_seed_gives_another_split():
    images, strata = make_large(300)
    one, two = (split_by_patient(images, strata, seed=seed)["role"] for seed in (1, 2))
    assert not one.equals(two)


def test_folds_share_patients_and_positives_evenly():
    images, strata = make_large()
    rows = split_by_patient(images, strata, folds=4, seed=3).merge(images)
    sizes = rows.dropna(subset="fold").drop_duplicates("patient_id")["fold"].value_counts()
    assert sorted(sizes.index) == [0, 1, 2, 3]
    assert sizes.max() - sizes.min() <= 1
    ill = (rows["image_id"].map(strata) == "ill").groupby(rows["fold"]).mean()
    assert ill.max() - ill.min() < 0.03


def test_each_learning_patient_validates_in_exactly_one_fold():
    images, strata = make_large(200)
    split = split_by_patient(images, strata, folds=5, seed=3)
    roles = pd.concat([fold_split(split, fold)["role"] for fold in range(5)], axis=1)
    in_test = split["role"] == "test"
    assert ((roles == "val").sum(axis=1) == (~in_test)).all()
    assert (roles[in_test] == "test").all(axis=None)


def test_a_patient_whose_identity_is_doubtful_only_trains():
    images = make_images([n // 2 for n in range(400)])
    doubtful = images["patient_id"].isin([f"p{n}" for n in range(0, 200, 4)])
    first_of_each = doubtful & ~images["patient_id"].duplicated()
    images.loc[first_of_each, "patient_id_source"] = "mapped_unverified"
    rows = split_by_patient(images, val=0.3, test=0.3, seed=0).merge(images)
    bound = rows["patient_id"].isin(images.loc[doubtful, "patient_id"])
    assert (rows.loc[bound, "role"] == "train").all()
    assert rows.loc[bound, "fold"].isna().all()


@pytest.mark.parametrize("seed", range(4))
def test_patients_who_share_a_picture_stay_together(seed):
    images = make_images(list(range(60)))
    # A chain: 0 and 1 share a picture, 1 and 2 share another.
    keys = [f"k{n}" for n in range(60)]
    images = pd.concat([images, make_images([1]).assign(image_id="extra")], ignore_index=True)
    keys = [*keys, keys[2]]
    keys[0] = keys[1]
    linked = pd.Series(keys, index=images["image_id"])
    rows = split_by_patient(images, val=0.4, test=0.4, seed=seed, linked=linked).merge(images)
    chained = rows["patient_id"].isin(["p0", "p1", "p2"])
    assert rows.loc[chained, "role"].nunique() == 1
    assert rows["role"].nunique() == 3


def test_each_role_gets_a_patient_even_when_few_are_there():
    for n_patients in (3, 4, 7, 11):
        split = split_by_patient(make_images(list(range(n_patients))), val=0.05, test=0.05)
        assert set(split["role"]) == {"train", "val", "test"}


@pytest.mark.parametrize(
    ("val", "test", "folds"),
    [
        (-0.1, 0.2, 5),  # a share below nothing
        (0.6, 0.6, 5),  # more than all
        (float("nan"), 0.2, 5),  # no number
        (0.1, 0.2, 1),  # one fold is no cross-validation
    ],
)
def test_impossible_shares_are_refused(val, test, folds):
    with pytest.raises(InputError, match="split: "):
        split_by_patient(make_images([1, 2, 3]), val=val, test=test, folds=folds)


def test_given_roles_are_kept_and_validation_comes_from_the_given_train():
    images, strata = make_large(100)
    number = images["patient_id"].str[1:].astype(int)
    given = images[["image_id"]].assign(role=np.where(number % 4 == 0, "test", "train"))
    rows = follow_given_roles(given, images, strata, val=0.2, seed=0).merge(images)
    assert set(rows.loc[number.reindex(rows.index) % 4 == 0, "role"]) == {"test"}
    learning = rows[rows["role"] != "test"]
    assert set(learning["role"]) == {"train", "val"}
    assert learning.groupby("patient_id")["role"].nunique().max() == 1
    assert learning.drop_duplicates("patient_id")["role"].eq("val").mean() == pytest.approx(
        0.2, abs=0.02
    )


def test_given_roles_with_validation_are_left_alone():
    images = make_images([1, 2, 3])
    given = images[["image_id"]].assign(role=["val", "test", "train"])
    split = follow_given_roles(given, images, None, val=0.5, seed=0)
    assert split["role"].tolist() == ["val", "test", "train"]
