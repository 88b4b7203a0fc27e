"""Roles that others gave: followed as they are, unless they would take a patient apart."""

import numpy as np
import pandas as pd
from cxr_compare.data_prep.splits.split import SplitRule, official_split
from hypothesis import given, settings
from hypothesis import strategies as st


def make_images(patients: list[int]) -> pd.DataFrame:
    ids = [f"i{n:04d}" for n in range(len(patients))]
    return pd.DataFrame(
        {
            "image_id": ids,
            "patient_id": [f"nih:{patient:03d}" for patient in patients],
            "patient_id_source": "given",
        }
    )


def give(images: pd.DataFrame, *roles: str) -> pd.DataFrame:
    return images[["image_id"]].assign(role=list(roles))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 12), st.sampled_from(["train", "val", "test", "unused"])),
        min_size=1,
        max_size=60,
    ),
    st.integers(0, 99),
)
def test_published_roles_stay_but_a_patient_keeps_only_test_then_validation(rows, seed):
    images = make_images([patient for patient, _ in rows])
    published = give(images, *[role for _, role in rows])
    split, how = official_split(published, images, rule=SplitRule(seed=seed, folds=3))
    found = split.merge(images).merge(published, on="image_id", suffixes=("", "_was"))
    assert len(found) == len(images)
    used = found[found["role"] != "unused"]
    assert (used.groupby("patient_id")["role"].nunique() <= 1).all()
    assert (used.groupby("patient_id")["fold"].nunique(dropna=False) <= 1).all()
    assert used["fold"].notna().equals(used["role"] != "test")
    # Test is never touched, nothing unused comes back, and what is lost is counted.
    assert found["role"].eq("test").equals(found["role_was"].eq("test"))
    lost = (found["role"] == "unused") & (found["role_was"] != "unused")
    assert how.n_images_unused == lost.sum()
    assert how.n_patients_in_two_roles == found.loc[lost, "patient_id"].nunique()
    kept = found[~lost]
    if "val" in set(kept["role_was"]):
        assert kept["role"].equals(kept["role_was"])


def test_validation_is_drawn_from_train_by_patient_where_there_is_none():
    images = make_images([n // 3 for n in range(300)])
    roles = np.where(np.arange(300) < 60, "test", "train")
    strata = pd.Series(np.where(np.arange(300) % 2, "ill", "well"), index=images["image_id"])
    rule = SplitRule(val=0.25, seed=1)
    split, how = official_split(give(images, *roles), images, rule=rule, strata=strata)
    learning = split.merge(images).iloc[60:]
    assert set(split["role"][:60]) == {"test"}
    of_patients = learning.drop_duplicates("patient_id")["role"].value_counts()
    assert of_patients.to_dict() == {"train": 60, "val": 20}
    assert "validation drawn" in how.method
    assert how.notes == ()


def test_a_tiny_validation_set_is_kept_with_a_note():
    images = make_images(list(range(400)))
    roles = ["val"] * 16 + ["test"] * 100 + ["train"] * 284
    split, how = official_split(give(images, *roles), images)
    assert split["role"].tolist() == roles
    assert "16 images, too few" in how.notes[0]


def test_patients_who_share_an_image_count_as_one():
    images = make_images([0, 1, 1, 2, 3])
    linked = pd.Series({"i0000": "image", "i0001": "image"})
    published = give(images, "test", "train", "train", "train", "val")
    split, how = official_split(published, images, linked)
    assert split["role"].tolist() == ["test", "unused", "unused", "train", "val"]
    assert (how.n_patients_in_two_roles, how.n_images_unused) == (1, 2)


def test_an_image_without_a_published_role_is_unused_and_counted():
    images = make_images([0, 1, 2])
    split, how = official_split(give(images, "train", "val", "test").iloc[:2], images)
    assert split["role"].tolist() == ["train", "val", "unused"]
    assert how.n_images_without_role == 1


def test_a_doubtful_image_never_comes_to_the_drawn_validation():
    images = make_images(list(range(50)))
    images.loc[:30, "patient_id_source"] = "mapped_unverified"
    split, _ = official_split(give(images, *["train"] * 50), images, rule=SplitRule(val=0.5))
    assert set(split["role"][:31]) == {"train"}
    assert split["fold"][:31].isna().all()
    assert (split["role"] == "val").sum() in (9, 10)  # of 19 whose identity is sure
