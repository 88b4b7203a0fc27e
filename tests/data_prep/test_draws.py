"""Draws of a split: patients stay whole, shares come out as asked, nothing depends on row order."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.adapters import splits
from tests.cases import load

EMPTY = splits.finding_table(splits.image_table(["p"]), {})
SETS = {"deadline": None, "derandomize": True}


def simulated(seed, n_patients, *, doubtful=0.0, copied=0.0):
    """Patients of 1 to 9 images and two sources, two findings, and copies across patients."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(n_patients), rng.geometric(0.5, n_patients).clip(max=9))
    unsure = rng.random(n_patients) < doubtful
    images = splits.image_table(
        [f"p{number}" for number in owner],
        patient_id_source=np.where(unsure, "mapped_unverified", "given")[owner],
        source=rng.choice(["nih", "rsna"], n_patients)[owner],
        view=rng.choice(["PA", "AP"], len(owner)),
    )
    states = {
        finding: np.where(rng.random(len(owner)) < share, "present", "absent").tolist()
        for finding, share in (("mass", 0.3), ("edema", 0.1))
    }
    keys = np.arange(len(owner))
    copies = rng.random(len(owner)) < copied
    keys[copies] = keys[rng.permutation(len(owner))[: copies.sum()]]
    links = pd.Series(keys, index=images["image_id"])
    return images.set_index("image_id", drop=False), splits.finding_table(images, states), links


@settings(max_examples=15, **SETS)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 60), folds=st.integers(2, 5))
def test_a_patient_and_all_copies_of_an_image_have_one_role_and_one_fold(seed, n, folds):
    images, findings, links = simulated(seed, n, doubtful=0.1, copied=0.1)
    made = splits.drawn(images, findings, links=links, folds=folds, seed=seed)
    made = made.reindex(images.index).assign(fold=lambda table: table["fold"].fillna(-1))
    for owner in (images["patient_id"], links):
        assert made.groupby(owner)[["role", "fold"]].nunique().le(1).all(axis=None)
    unsure = made[(images["patient_id_source"] == "mapped_unverified").to_numpy()]
    assert (unsure["role"] == "train").all()
    assert (unsure["fold"] == -1).all()
    assert (made.loc[made["role"] == "test", "fold"] == -1).all()
    assert splits.leak(images, made["role"].to_dict(), links) is None


@settings(max_examples=5, **SETS)
@given(seed=st.integers(0, 10_000))
def test_shares_are_within_two_points_of_the_rule(seed):
    """For 100 patients or more; the images of each class besides."""
    images, findings, _ = simulated(seed, 150)
    made = splits.drawn(images, findings, val=0.2, test=0.3, seed=seed).reindex(images.index)
    ill = set(findings.loc[findings["state"] == "present", "image_id"])
    is_ill = images.index.isin(ill)
    for role, share in (("val", 0.2), ("test", 0.3), ("train", 0.5)):
        chosen = (made["role"] == role).to_numpy()
        n_patients = images.loc[chosen, "patient_id"].nunique()
        assert n_patients / 150 == pytest.approx(share, abs=0.02)
        assert chosen.mean() == pytest.approx(share, abs=0.02)
        assert is_ill[chosen].sum() / is_ill.sum() == pytest.approx(share, abs=0.04)


@settings(max_examples=5, **SETS)
@given(seed=st.integers(0, 10_000))
def test_the_order_of_rows_changes_nothing_and_another_seed_tests_others(seed):
    images, findings, links = simulated(seed, 100, copied=0.05)
    first = splits.drawn(images, findings, links=links, seed=seed)
    shuffled = [table.sample(frac=1, random_state=seed) for table in (images, findings, links)]
    again = splits.drawn(shuffled[0], shuffled[1], links=shuffled[2], seed=seed)
    pd.testing.assert_frame_equal(first, again)
    other = splits.drawn(images, findings, links=links, seed=seed + 1)
    in_test = first["role"] == "test"
    assert (in_test & (other["role"] == "test")).sum() < 0.5 * in_test.sum()


@pytest.mark.parametrize(("val", "test"), [(0.0, 1.0), (0.0, 0.0), (0.5, 0.5)])
@pytest.mark.parametrize("n_images", [0, 1])
def test_shares_of_all_or_nothing_and_sets_without_images_are_no_trouble(val, test, n_images):
    images = splits.image_table(["p"] * n_images)
    made = splits.drawn(images, EMPTY, val=val, test=test)
    expected = {role for role, share in (("val", val), ("test", test)) if share} or {"train"}
    assert len(made) == n_images
    assert set(made["role"]) <= expected


def test_the_class_is_the_sources_own_or_the_rarest_finding_or_absent():
    images = splits.image_table(list("pqrst"))
    states = {
        "mass": ["present", "present", "absent", "uncertain", "present"],
        "edema": ["present", None, None, None, None],
    }
    findings = splits.finding_table(images, states)
    classes = splits.strata(images, findings)["class"]
    assert classes.fillna("?").tolist() == ["edema", "mass", "absent", "?", "mass"]
    own = images.assign(x_class=["x", None, "y", None, None])
    classes = splits.strata(own, findings)["class"]
    assert classes.fillna("?").tolist() == ["x", "mass", "y", "?", "mass"]


@pytest.mark.parametrize("seed", range(3))
def test_each_part_of_a_small_set_gets_one_of_few_positive_images(seed):
    images = splits.image_table([f"p{number % 20}" for number in range(30)])
    states = {"mass": ["present" if number % 10 < 3 else "absent" for number in range(30)]}
    findings = splits.finding_table(images, states)
    made = splits.drawn(images, findings, val=0.15, test=0.15, seed=seed)
    ill = findings.loc[findings["state"] == "present", "image_id"]
    assert set(made.loc[ill, "role"]) == {"train", "val", "test"}


@settings(max_examples=25, **SETS)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 12), st.sampled_from(["train", "val", "test", "unused"])),
        min_size=1,
        max_size=40,
    )
)
def test_published_roles_stay_but_a_patient_keeps_only_test_then_validation(rows):
    images = splits.image_table([f"p{patient}" for patient, _ in rows])
    stated = dict(zip(images["image_id"], (role for _, role in rows), strict=True))
    made, notes = splits.adopted(images, EMPTY, stated, folds=3)
    patient = images.set_index("image_id")["patient_id"]
    before = pd.Series(stated)
    used = made[made["role"] != "unused"]
    assert (used.groupby(patient)["role"].nunique() <= 1).all()
    assert used["fold"].notna().equals(used["role"] != "test")
    assert made["role"].eq("test").equals(before.eq("test"))
    lost = (made["role"] == "unused") & (before != "unused")
    assert any("more than one role" in note for note in notes) == lost.any()
    if "val" in set(before[~lost]):
        assert made["role"][~lost].equals(before[~lost].astype(made["role"].dtype))


def test_validation_is_drawn_from_train_by_patient_where_there_is_none():
    images = splits.image_table([f"p{number // 3:03d}" for number in range(300)])
    stated = {f"i{number:04d}": "test" if number < 60 else "train" for number in range(300)}
    made, notes = splits.adopted(images, EMPTY, stated, val=0.25, seed=1)
    assert set(made["role"][:60]) == {"test"}
    learning = made["role"][60:].groupby(images.set_index("image_id")["patient_id"][60:]).first()
    assert learning.value_counts().to_dict() == {"train": 60, "val": 20}
    assert notes == []


@pytest.mark.parametrize("case", load("../tests/cases/split_files.json"))
def test_a_table_of_roles_is_followed_or_refused_with_its_line(case, tmp_path):
    path, expect = tmp_path / "s.csv", case["expect"]
    path.write_text(case["text"], encoding="utf-8")
    images = splits.image_table(case["patients"])
    outcome, found, *notes = splits.read_file(path, images, case.get("split", "role"))
    if "refused" in expect:
        assert outcome == "refused"
        assert [part for part in ("s.csv", *expect["refused"]) if part not in found] == []
    else:
        assert [found[name] for name in images["image_id"]] == expect["roles"]
        said = " ".join(notes[0])
        assert all(number in said for number in expect.get("noted", []))
        assert len(notes[0]) == len(expect.get("noted", []))
