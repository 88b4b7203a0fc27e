"""A patient has one role; shares and classes come out as asked; nothing depends on row order."""

import numpy as np
import pandas as pd
import pytest
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.splits.split import SplitRule, extend_split
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data_prep.splits.simulated_images import drawn_split, make_images, make_large, patients

shares = st.tuples(st.floats(0, 0.45), st.floats(0, 0.5))


@settings(max_examples=60, deadline=None)
@given(patients, shares, st.integers(0, 2**31))
def test_a_patient_has_one_role_and_one_fold(patients, shares, seed):
    images = make_images(patients)
    split = drawn_split(images, val=shares[0], test=shares[1], seed=seed)
    rows = split.merge(images, on="image_id")
    assert len(rows) == len(images)
    assert rows.groupby("patient_id")["role"].nunique().max() == 1
    assert rows.groupby("patient_id")["fold"].nunique().max() <= 1
    assert rows.loc[rows["role"] == "test", "fold"].isna().all()


@settings(max_examples=20, deadline=None)
@given(patients, st.integers(0, 2**31), st.randoms(use_true_random=False))
def test_row_order_does_not_matter(patients, seed, random):
    images = make_images(patients)
    strata = pd.DataFrame(
        {
            "class": ["ill" if p % 3 else "well" for p in patients],
            "view": [None if n % 7 == 0 else "AP" for n in range(len(patients))],
            "mass": [n % 5 == 0 for n in range(len(patients))],
        },
        index=images["image_id"],
    )
    keys = pd.Series([f"k{n // 2 * 2 % 14}" for n in range(len(images))], index=images["image_id"])
    order = list(range(len(images)))
    random.shuffle(order)
    rule = {"seed": seed}
    straight = drawn_split(images, strata, **rule, linked=keys)
    shuffled = drawn_split(
        images.iloc[order], strata.iloc[order[::-1]], **rule, linked=keys.iloc[order]
    )
    pd.testing.assert_frame_equal(straight, shuffled)


@settings(max_examples=3, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([(0.15, 0.2), (0.1, 0.1), (0.3, 0.0), (0.5, 0.5)]))
def test_shares_of_patients_images_and_positives_are_as_asked(seed, shares):
    val, test = shares
    images, strata = make_large()
    rows = drawn_split(images, strata, val=val, test=test, seed=seed).merge(images)
    rows["ill"] = rows["image_id"].map(strata) == "ill"
    for role, share in (("val", val), ("test", test)):
        chosen = rows["role"] == role
        of_patients = rows.loc[chosen, "patient_id"].nunique() / rows["patient_id"].nunique()
        assert of_patients == pytest.approx(share, abs=0.01)
        assert chosen.mean() == pytest.approx(share, abs=0.03)
        assert rows.loc[chosen, "ill"].sum() / rows["ill"].sum() == pytest.approx(share, abs=0.04)


def test_another_seed_tests_other_patients():
    images, strata = make_clustered(600, 2)
    drawn = [drawn_split(images, strata, seed=seed) for seed in (1, 2)]
    one, two = (set(split.loc[split["role"] == "test", "image_id"]) for split in drawn)
    assert len(one & two) / len(one) == pytest.approx(0.2, abs=0.1)  # as by chance


def test_folds_share_patients_and_positives_evenly():
    images, strata = make_large()
    rows = drawn_split(images, strata, folds=4, seed=3).merge(images)
    sizes = rows.dropna(subset="fold").drop_duplicates("patient_id")["fold"].value_counts()
    assert sorted(sizes.index) == [0, 1, 2, 3]
    assert sizes.max() - sizes.min() <= 0.02 * sizes.sum()
    ill = (rows["image_id"].map(strata) == "ill").groupby(rows["fold"]).mean()
    assert ill.max() - ill.min() < 0.03


def test_a_patient_whose_identity_is_doubtful_only_trains():
    images = make_images([n // 2 for n in range(400)])
    doubtful = images["patient_id"].isin([f"p{n}" for n in range(0, 200, 4)])
    first_of_each = doubtful & ~images["patient_id"].duplicated()
    images.loc[first_of_each, "patient_id_source"] = "mapped_unverified"
    rows = drawn_split(images, val=0.3, test=0.3, seed=0).merge(images)
    bound = rows["patient_id"].isin(images.loc[doubtful, "patient_id"])
    assert (rows.loc[bound, "role"] == "train").all()
    assert rows.loc[bound, "fold"].isna().all()
    assert rows.loc[~bound & (rows["role"] != "test"), "fold"].notna().all()


@pytest.mark.parametrize("seed", range(2))
def test_patients_who_share_an_image_stay_together(seed):
    images = make_images(list(range(60)))
    # A chain: 0 and 1 share an image, 1 and 2 share another.
    keys = [f"k{n}" for n in range(60)]
    images = pd.concat([images, make_images([1]).assign(image_id="extra")], ignore_index=True)
    keys = [*keys, keys[2]]
    keys[0] = keys[1]
    linked = pd.Series(keys, index=images["image_id"])
    rows = drawn_split(images, val=0.4, test=0.4, seed=seed, linked=linked).merge(images)
    chained = rows["patient_id"].isin(["p0", "p1", "p2"])
    assert rows.loc[chained, "role"].nunique() == 1
    assert rows["role"].nunique() == 3


def test_patients_are_linked_by_any_of_several_keys():
    images = make_images(list(range(30)))
    keys = pd.DataFrame({"pixels": None, "image": None}, index=images["image_id"], dtype=TEXT)
    keys.loc[["i00000", "i00001"], "pixels"] = "equal"
    keys.loc[["i00001", "i00002"], "image"] = "near"
    for seed in range(4):
        split = drawn_split(images, val=0.4, test=0.4, seed=seed, linked=keys)
        assert split["role"][:3].nunique() == 1
        assert split["fold"][:3].nunique(dropna=False) == 1


@pytest.mark.parametrize(("val", "test"), [(0.0, 1.0), (0.0, 0.0), (0.5, 0.5)])
@pytest.mark.parametrize("n_images", [0, 1])
def test_shares_of_all_or_nothing_and_sets_without_images_are_no_trouble(val, test, n_images):
    images = make_images(list(range(n_images)))
    split = drawn_split(images, val=val, test=test)
    asked = {role for role, share in (("val", val), ("test", test)) if share}
    assert len(split) == n_images
    assert set(split["role"]) <= (asked or {"train"})


def test_each_role_gets_a_patient_even_when_few_are_there():
    for n_patients in (3, 4, 7, 11):
        split = drawn_split(make_images(list(range(n_patients))), val=0.05, test=0.05)
        assert set(split["role"]) == {"train", "val", "test"}


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"val": -0.1}, "val=-0.1"),  # a share below nothing
        ({"val": 0.6, "test": 0.6}, "at most 1"),
        ({"val": float("nan")}, "val=nan"),
        ({"folds": 1}, "folds=1"),  # one fold is no cross-validation
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_an_impossible_rule_is_refused(rule, message):
    with pytest.raises(InputError, match=message):
        drawn_split(make_images([1, 2, 3]), **rule)


def make_clustered(n_patients: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Patients of three sources who lean to one view, with several findings an image."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(n_patients), rng.geometric(0.4, n_patients).clip(max=15))
    images = make_images(owner.tolist())
    n = len(owner)
    severity = rng.random(n_patients)[owner] ** 2
    lying = rng.beta(0.4, 0.6, n_patients)[owner]
    present = {f"f{k}": rng.random(n) < severity / (k + 2) for k in range(5)}
    rarest = np.select([present[f"f{k}"] for k in (4, 3, 2, 1, 0)], list("edcba"), "absent")
    texts = {
        "class": rarest,
        "source": rng.choice(["nih", "rsna", "covid"], n_patients, p=[0.7, 0.25, 0.05])[owner],
        "view": np.where(rng.random(n) < lying, "AP", "PA"),
    }
    return images, pd.DataFrame({**texts, **present}, index=images["image_id"])


def image_counts(strata: pd.DataFrame, chosen: np.ndarray) -> pd.Series:
    """Chosen images of each class, source, view and finding."""
    flags = pd.get_dummies(strata, columns=["class", "source", "view"])
    return flags[chosen].sum()


@settings(max_examples=2, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([400, 800]))
def test_every_class_finding_view_and_source_gets_its_share_of_images(seed, n_patients):
    images, strata = make_clustered(n_patients, seed)
    split = drawn_split(images, strata, val=0.15, test=0.2, seed=seed)
    everything = image_counts(strata, np.ones(len(split), dtype=bool))
    for part, share in (("role", {"val": 0.15, "test": 0.2, "train": 0.65}), ("fold", None)):
        total = everything if share else image_counts(strata, split[part].notna().to_numpy())
        shares = share or dict.fromkeys(range(5), 0.2)
        for name, wanted in shares.items():
            found = image_counts(strata, (split[part] == name).fillna(False).to_numpy(dtype=bool))
            assert (found - wanted * total).abs().max() <= 10  # images, of up to thousands


def test_strata_too_rare_to_share_out_change_nothing_else():
    images, strata = make_clustered(300, 1)
    lonely = strata.assign(odd=[f"level {n}" for n in range(len(strata))])
    rows = drawn_split(images, lonely, val=0.15, test=0.2)
    ap = image_counts(strata, (rows["role"] == "test").to_numpy())["view_AP"]
    assert abs(ap - 0.2 * (strata["view"] == "AP").sum()) <= 6


@settings(max_examples=40, deadline=None)
@given(patients, patients, st.integers(0, 2**31), st.data())
def test_extending_keeps_old_roles_and_lets_no_patient_or_image_have_two(old, new, seed, draw):
    images = make_images([*old, *new])
    ids = images["image_id"]
    shown = draw.draw(st.lists(st.integers(0, 3 * len(ids)), min_size=len(ids), max_size=len(ids)))
    linked = pd.Series([f"k{n}" for n in shown], index=ids)
    rule = SplitRule(seed=seed)
    first = images.iloc[: len(old)]
    before = drawn_split(first, linked=linked, seed=seed)
    after = extend_split(before, images, None, rule, linked)
    assert sorted(after["image_id"]) == sorted(ids)
    same = before.merge(after, on="image_id", suffixes=("", "_after"))
    assert same["role"].equals(same["role_after"])
    assert same["fold"].equals(same["fold_after"])
    used = after[after["role"] != "unused"].merge(images, on="image_id")
    used["image"] = used["image_id"].map(linked)
    assert (used.groupby("patient_id")["role"].nunique() <= 1).all()
    assert (used.groupby("image")["role"].nunique() <= 1).all()
    assert (used.fillna({"fold": -1}).groupby("image")["fold"].nunique() <= 1).all()


def test_new_images_follow_their_patient_and_new_patients_bring_the_shares_to_the_rule():
    images, strata = make_clustered(1200, 2)
    number = images["patient_id"].str[1:].astype(int)
    first = images[number < 300]
    before = drawn_split(first, strata, val=0.1, test=0.1, seed=2)
    after = extend_split(before, images, strata, SplitRule(val=0.2, test=0.3, seed=2))
    rows = after.merge(images, on="image_id")
    of_patients = rows.drop_duplicates("patient_id")["role"].value_counts(normalize=True)
    assert of_patients["val"] == pytest.approx(0.2, abs=0.02)
    assert of_patients["test"] == pytest.approx(0.3, abs=0.02)
    total = image_counts(strata, np.ones(len(strata), dtype=bool))
    found = image_counts(strata.loc[after["image_id"]], (after["role"] == "test").to_numpy())
    assert (found - 0.3 * total).abs().max() <= 8
    assert after["fold"].notna().equals(after["role"] != "test")


def test_an_image_that_shows_two_patients_to_be_one_is_unused():
    images = make_images([0, 1, 0, 2])
    before = pd.DataFrame(
        {"image_id": ["i00000", "i00001"], "role": ["train", "test"], "fold": None}
    )
    linked = pd.Series({"i00001": "image", "i00002": "image"})  # a new image of 0 is one of 1
    split = extend_split(before, images, None, SplitRule(val=0.0), linked)
    assert split["role"].tolist()[:3] == ["train", "test", "unused"]
    # A new patient who shares one image with each of them cannot have either role.
    linked = pd.Series({"i00000": "a", "i00001": "b", "i00002": "a", "i00003": "b"})
    images = make_images([0, 1, 2, 2])
    split = extend_split(before, images, None, SplitRule(), linked)
    assert split["role"].tolist() == ["train", "test", "unused", "unused"]


def test_a_split_without_folds_stays_without():
    images = make_images([0, 1, 2, 3, 4, 0])
    before = pd.DataFrame({"image_id": ["i00000"], "role": "train", "fold": None})
    assert extend_split(before, images)["fold"].isna().all()
